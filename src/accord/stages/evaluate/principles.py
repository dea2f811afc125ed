"""A test by principle: replies to each principle's prompts, judged under every principle.

tests → replies → scores under all principles, helpfulness, evasiveness, a row each → which hold, at what price, which
two contradict; pairs with another snapshot's replies, in both orders
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from accord.data.rows import prompt_of_row, reply_row
from accord.data.sources import read_prompts
from accord.disk import read_lines, write_text
from accord.errors import BadInput
from accord.evaluation.attacks import means
from accord.evaluation.phrases import is_evasive
from accord.evaluation.principles import association, contradictions, kept
from accord.evaluation.statistics import mean_interval, paired_difference, paired_shares, share_interval
from accord.labelers.constitution_file import asked_by, read_constitution, to_yaml
from accord.labelers.labeler import Labeler, Writing
from accord.labelers.preferences import prefers
from accord.labelers.principles import Principles, WrittenPrinciple
from accord.labelers.questions import WORLD
from accord.labelers.scores import score_replies
from accord.labelers.trust import read_calibration
from accord.records import Prompt, Turn
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluatePrinciples
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.rewards import Setting
from accord.stages.shared import gold_scores, load_all, open_run
from accord.training import distributed
from accord.training.progress import Progress

Row = dict[str, Any]
CHUNK = 32  # replies between two writes: what a crash can lose of a local model's work
TESTS = "tests"  # the source of prompts that a constitution brings along
PRICES = ("helpful", "evasive")
HELP = WrittenPrinciple("helpful", "Help the user with what they asked for.")


class Tested(NamedTuple):
    """A prompt, and the principles that it is a test of."""

    prompt: Prompt
    principles: tuple[str, ...]


class Judging(NamedTuple):
    """Who judges under which constitution; gold where there is no `labeler`."""

    constitution: Principles
    labeler: Labeler | None

    def rows(self, config: EvaluatePrinciples, replies: Sequence[tuple[Prompt, str]]) -> list[Row]:
        """Of every reply its `scores` by principle (None without an answer), `helpful` and `evasive`."""
        if self.labeler is None:
            return [gold_row(prompt, text) for prompt, text in replies]
        principles = self.constitution.scoring(config.tags)
        # the gold world's language has no such question, and gold knows
        asked = [*principles, *([] if self.constitution.wording is WORLD else [HELP])]
        by_one = [(prompt, text, [principle]) for prompt, text in replies for principle in asked]
        told = iter(score_replies(self.labeler, self.constitution, config.question, by_one).values)
        rows: list[Row] = []
        for prompt, text in replies:
            found = {principle.name: next(told) for principle in principles}
            helpful = next(told) if len(asked) > len(principles) else gold_scores(prompt, text).get("gold/helpful")
            rows.append({"scores": found, "helpful": helpful, "evasive": float(is_evasive(text))})
        return rows


def run(config: EvaluatePrinciples) -> RunFolder:
    """Test a snapshot by principle; leaves `evaluation.json` and `samples.jsonl`."""
    named = {"model": config.model, "against": config.against, "calibration": config.calibration}
    if config.judge != "gold":
        named["model.judge"] = config.judge
    with open_run("evaluate-principles", config, {k: v for k, v in named.items() if v}) as run, ExitStack() as opened:
        if run.finished:
            return run
        constitution = read_constitution(config.constitution)
        write_text(run.path / "constitution.yaml", to_yaml(constitution))
        tests = tests_of(config, run, constitution)
        before = rows_against(config.against, tests)
        setting = Setting(run, distributed.start(run.threads), None, config)
        opened.enter_context(setting.journal)
        judging = Judging(constitution, None if config.judge == "gold" else setting.labeler(config.judge))
        refuse_unfit(config, judging)
        answer(config, run, setting.labeler(config.model), judging, tests)
        rows = read_lines(run.path / "samples.jsonl")
        result = {"model": config.model, "judge": config.judge, "measured": bool(config.calibration)}
        found = summary(config, rows)
        for principle in constitution.principles:
            if principle.name in found["principles"]:
                found["principles"][principle.name]["text"] = principle.text
        result |= found
        if config.against:
            result["against"] = compared(config, judging, list(paired(rows, before)))
        say(result)
        run.write_json("evaluation.json", result)
        run.finish(replies=len(rows))
        return run


def tests_of(config: EvaluatePrinciples, run: RunFolder, constitution: Principles) -> list[Tested]:
    """Every principle's test prompts; those of `--data` for all principles without. BadInput where there are none."""
    asked = constitution.scoring(config.tags)
    if not asked:
        raise BadInput(f"--constitution {config.constitution}: no principle with these --tags has a text; take another")
    without = tuple(p.name for p in asked if not p.tests)
    shared: list[Prompt] = []
    if config.data:
        if not without:
            raise BadInput("--data has no effect: every principle of --constitution has tests of its own; leave it out")
        shared = load_all(read_prompts, config.data, config, run, split=config.split)
    elif without:
        raise BadInput(
            f"--constitution {config.constitution}: no tests of {', '.join(without[:3])}; give --data SOURCE"
        )
    tests = [Tested(Prompt((Turn("user", text),), p.name, TESTS), (p.name,)) for p in asked for text in p.tests]
    tests += [Tested(prompt, without) for prompt in shared]
    refuse_trained_prompts([test.prompt for test in tests], [config.model], "--data")
    return tests


def refuse_unfit(config: EvaluatePrinciples, judging: Judging) -> None:
    """Raise BadInput where gold does not know the principles, or `--calibration` is of another judge."""
    if judging.labeler is None:
        if judging.constitution.wording is not WORLD:
            raise BadInput(
                "--judge gold knows the gold world's principles alone; give --constitution world, or a judge"
            )
        return
    asked = asked_by(judging.labeler, judging.constitution, config.question, config.tags, 1)
    read_calibration(config.calibration, asked)


def gold_row(prompt: Prompt, text: str) -> Row:
    """The truth of a reply, by principle 1 where it keeps to it and -1 where it does not."""
    from accord.world import PRINCIPLES, faults

    scores = gold_scores(prompt, text)
    if not scores:
        raise BadInput("--judge gold knows prompts of the gold world alone; give --data world:prompts/SLICE")
    broken = faults(prompt.turns, text)
    by = {name: -1.0 if name in broken else 1.0 for name in PRINCIPLES}
    return {"scores": by, "helpful": scores["gold/helpful"], "evasive": scores["gold/evasive"]}


def answer(
    config: EvaluatePrinciples, run: RunFolder, policy: Labeler, judging: Judging, tests: Sequence[Tested]
) -> None:
    """`--samples` replies to every test and their scores, a row each; a resumed run has the first ones."""
    todo = [test for test in tests for _ in range(config.samples)]
    done = run.keep_samples(1)
    progress = Progress(run.stage, len(todo), unit="reply", first=done)
    for start in range(done, len(todo), CHUNK):
        part = todo[start : start + CHUNK]
        numbers = range(start, start + len(part))
        how = Writing(config.max_new_tokens, config.temperature, config.seed, numbers)
        drafts = policy.write([test.prompt.turns for test in part], how)
        told = judging.rows(config, [(test.prompt, draft.text) for test, draft in zip(part, drafts, strict=True)])
        for test, draft, row in zip(part, drafts, told, strict=True):
            about = {"principles": list(test.principles), "why": draft.why, "model": config.model}
            run.add_sample(reply_row(test.prompt, draft.text, **about, temperature=config.temperature, **row))
        progress.update(start + len(part), {})
        if run.stop_requested and start + CHUNK < len(todo):
            raise run.interrupted(start + len(part), "reply")


def summary(config: EvaluatePrinciples, rows: Sequence[Row]) -> Row:
    """Each principle on its own tests, its price among all replies, and every two principles beside each other."""
    names = list(dict.fromkeys(name for row in rows for name in row["principles"]))
    table = [row for row in rows if all(row["scores"][name] is not None for name in names)]
    scores = {name: [row["scores"][name] for row in table] for name in names}
    found = {name: of_principle(config, name, rows) for name in names}
    for name, told in found.items():
        for price in PRICES:
            known = [i for i, row in enumerate(table) if row[price] is not None]
            value = association(
                [table[i][price] for i in known],
                [scores[name][i] for i in known],
                [table[i]["prompt_id"] for i in known],
            )
            told[f"with_{price}"] = value.json() if value else None
    unjudged = Counter(name for row in rows for name in names if row["scores"][name] is None)
    pairs = contradictions(scores, [row["prompt_id"] for row in table])
    return {"principles": found, "pairs": pairs, "judged_under_all": len(table), "unjudged": dict(unjudged)}


def of_principle(config: EvaluatePrinciples, name: str, rows: Sequence[Row]) -> Row:
    """Of the replies to a principle's tests: how many keep to it, how helpful and how evasive they are."""
    own = [row for row in rows if name in row["principles"] and row["scores"][name] is not None]
    if not own:
        raise BadInput(f"--judge {config.judge}: no reply to the tests of {name} could be judged; take another")
    prompts = [row["prompt_id"] for row in own]
    told: Row = {"replies": len(own), "prompts": len(set(prompts))}
    told |= kept([row["scores"][name] for row in own], prompts, config.seed)
    for price in PRICES:
        known = [row for row in own if row[price] is not None]
        of = [row["prompt_id"] for row in known]
        told[price] = mean_interval([row[price] for row in known], of, config.seed, resamples=2000).json()
    return told


def rows_against(folder: str, tests: Sequence[Tested]) -> list[Row]:
    """The replies of `--against` to the same tests; BadInput where there are none."""
    if not folder:
        return []
    wanted = {test.prompt.id for test in tests}
    rows = read_lines(Path(folder) / "samples.jsonl")
    found = [row for row in rows if "principles" in row and row["prompt_id"] in wanted]
    if not found:
        raise BadInput(f"--against {folder}: no replies to these tests; give a run of `evaluate principles` on them")
    return found


def paired(rows: Sequence[Row], before: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """The k-th reply to a prompt beside the other snapshot's k-th."""
    others: dict[str, list[Row]] = {}
    for row in before:
        others.setdefault(row["prompt_id"], []).append(row)
    for row in rows:
        if other := others.get(row["prompt_id"]):
            yield row, other.pop(0)


def compared(config: EvaluatePrinciples, judging: Judging, pairs: Sequence[tuple[Row, Row]]) -> Row:
    """By principle: how often the reply is preferred to the other snapshot's, and what changed, paired by prompt."""
    found: Row = {}
    for name in dict.fromkeys(name for row, _ in pairs for name in row["principles"]):
        own = [pair for pair in pairs if name in pair[0]["principles"]]
        wins = won(config, judging, name, own)
        known = [(one["prompt_id"], win) for (one, _), win in zip(own, wins, strict=True) if win is not None]
        told: Row = {"pairs": len(own), "preferred": None}
        if known:
            told["preferred"] = share_interval([win for _, win in known], [prompt for prompt, _ in known]).json()
        scores = [(one["prompt_id"], one["scores"].get(name), other["scores"].get(name)) for one, other in own]
        told |= {"holds": change(scores, shares=True), "score": change(scores)}
        told |= {p: change([(one["prompt_id"], one[p], other[p]) for one, other in own]) for p in PRICES}
        found[name] = told
    return found


def change(values: Sequence[tuple[str, float | None, float | None]], *, shares: bool = False) -> Row | None:
    """Change of a mean by prompt, from (prompt, after, before) where both are known; `shares`: of what is above 0."""
    known = [(prompt, one, other) for prompt, one, other in values if one is not None and other is not None]
    if not known:
        return None
    if shares:
        known = [(prompt, float(one > 0), float(other > 0)) for prompt, one, other in known]
    after = list(means([(prompt, one) for prompt, one, _ in known]).values())
    before = list(means([(prompt, other) for prompt, _, other in known]).values())
    return (paired_shares(after, before) if shares else paired_difference(after, before, resamples=2000)).json()


def won(
    config: EvaluatePrinciples, judging: Judging, name: str, pairs: Sequence[tuple[Row, Row]]
) -> list[float | None]:
    """1 where the first reply of a pair is better under a principle, 0 where the other is, ½ where they are equal."""
    if judging.labeler is None:
        margins = [one["scores"][name] - other["scores"][name] for one, other in pairs]
        return [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    principle = next((p for p in judging.constitution.comparing(config.tags) if p.name == name), None)
    if principle is None:
        return [None] * len(pairs)
    apart = [i for i, (one, other) in enumerate(pairs) if one["reply"] != other["reply"]]
    asked = []
    for one, other in (pairs[i] for i in apart):
        turns = prompt_of_row(one).turns
        both = judging.constitution.both_orders(principle, turns, one["reply"], other["reply"], config.shots)
        asked.append([both])
    verdicts: list[float | None] = [0.5] * len(pairs)
    for i, first in zip(apart, prefers(judging.labeler, asked).first if asked else [], strict=True):
        verdicts[i] = None if first is None else 0.5 if first == 0.5 else float(first > 0.5)
    return verdicts


def say(result: Mapping[str, Any]) -> None:
    """A line a principle, and one for every two that contradict each other."""
    for name, row in result["principles"].items():
        value = row["holds"]
        bounds = "n/a" if value["low"] is None else f"[{value['low']:.2f}, {value['high']:.2f}]"
        print(f"{name}: {value['mean']:.2f} {bounds} of {row['replies']} replies keep to it, by {result['judge']}")
    for pair in result["pairs"]:
        if pair["contradict"]:
            print(f"{pair['one']} and {pair['other']} contradict each other: correlation {pair['mean']:.2f}")
