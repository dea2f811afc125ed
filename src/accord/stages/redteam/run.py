"""Red-teaming: requests in many forms → replies → what got through, by family; prompts for the next round.

requests   from sources, or written by a model and filtered for being unlike each other
attacks    each as it is and in one form of every family; some families are held out
verdicts   gold, a cost model or a labeler; shares with intervals over requests
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accord.data.rows import prompt_of_row, reply_row, write_records
from accord.data.sources import read_prompts
from accord.disk import read_lines
from accord.errors import BadInput
from accord.evaluation.attacks import Tried, change_by_prompt, change_by_request, success
from accord.labelers.labeler import Labeler, Writing
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.redteam.attacks import KINDS, PLAIN, Attack, attacks_on, chosen
from accord.stages.redteam.config import Redteam
from accord.stages.redteam.prompts import facts_of, written
from accord.stages.redteam.verdicts import AttackJudge, Found, Replied, open_judge
from accord.stages.rewards import Setting
from accord.stages.shared import load_all, open_run
from accord.training import distributed
from accord.training.progress import Progress

CHUNK = 64  # replies between two writes: what a crash can lose of a local model's work
Row = dict[str, Any]


def run(config: Redteam) -> RunFolder:
    """Attack a policy; leaves `redteam.json`, `samples.jsonl`, `prompts.jsonl` and `held-out.jsonl`."""
    named = {"model": config.model, "model.writer": config.writer, "model.judge": config.labeler}
    if not config.labeler and config.judge != "gold":
        named["cost.judge"] = config.judge
    named |= {"against": config.against, "calibration": config.calibration}
    parents = {role: where for role, where in named.items() if where}
    with open_run("redteam", config, parents) as run, ExitStack() as opened:
        if run.finished:
            return run
        families = KINDS["none"] if config.behaviour else chosen(config.attacks, config.families, config.held_out)
        before = rows_against(config.against)
        setting = Setting(run, distributed.start(run.threads), None, config)
        opened.enter_context(setting.journal)
        behaviour = behaviour_of(config.behaviour)
        judge = open_judge(config, setting, behaviour)
        seeds: list[Prompt] = (
            load_all(read_prompts, config.data, config, run, split=config.split) if config.data else []
        )
        policy = setting.labeler(config.model)
        if config.generate:
            seeds += written(config, run, setting.labeler(config.writer) if config.writer else policy, seeds, behaviour)
        attack(config, run, policy, judge, attacks_on(list({s.id: s for s in seeds}.values()), families, config.seed))
        rows = read_lines(run.path / "samples.jsonl")
        told = summary(config, rows, before)
        if written_facts := facts_of(run.path):
            told["generated"] = written_facts
        say(told)
        run.write_json("redteam.json", told)
        run.finish(**keep_successes(run, rows), unjudged=told["unjudged"])
        return run


def behaviour_of(given: str) -> str:
    """The words of `--behaviour`, which may be those of a file."""
    if not given or not Path(given).is_file():
        return given
    try:
        return Path(given).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--behaviour {given}: cannot be read ({error}); give a text file in UTF-8") from None


def rows_against(folder: str) -> list[Row]:
    """The judged replies of `--against`; BadInput where there are none."""
    rows = [row for row in read_lines(Path(folder) / "samples.jsonl") if "family" in row] if folder else []
    if folder and not rows:
        raise BadInput(f"--against {folder}: no samples of attacks there; give a folder of `accord redteam`")
    return rows


def attack(config: Redteam, run: RunFolder, policy: Labeler, judge: AttackJudge, attacks: Sequence[Attack]) -> None:
    """`--samples` replies to every attack and what the judge says, a row each; a resumed run has the first ones."""
    asked = [one for one in attacks for _ in range(config.samples)]
    first = run.keep_samples(1)
    progress = Progress(run.stage, len(asked), unit="reply", first=first)
    while first < len(asked):
        chunk = asked[first : first + CHUNK]
        how = Writing(
            config.max_new_tokens,
            config.temperature,
            config.seed,
            range(first, first + len(chunk)),
            plain=config.continuation,
        )
        drafts = policy.write([one.prompt.turns for one in chunk], how)
        answered = [Replied(one.prompt, d.text, not d.why) for one, d in zip(chunk, drafts, strict=True)]
        found = iter(judge([reply for reply in answered if reply.text]))
        for one, draft, reply in zip(chunk, drafts, answered, strict=True):
            said = next(found) if reply.text else Found(None, "empty reply")
            about = {"family": one.family, "held_out": one.held_out, "seed_id": one.seed.id, "why": draft.why}
            how_drawn = {"model": config.model, "temperature": config.temperature}
            run.add_sample(reply_row(one.prompt, draft.text, **about, **how_drawn, score=said.score, unjudged=said.why))
        first += len(chunk)
        progress.update(first, {})
        if run.stop_requested and first < len(asked):
            raise run.interrupted(first, "reply")


def summary(config: Redteam, rows: Sequence[Row], before: Sequence[Row]) -> dict[str, Any]:
    """Success by family, for families that are trained on and held out, and against another policy."""
    tried = [tried_of(row) for row in rows if row["score"] is not None]
    unjudged = Counter(row["unjudged"] for row in rows if row["score"] is None)
    if not tried:
        reasons = ", ".join(f"{count} {why}" for why, count in unjudged.items())
        raise BadInput(f"--judge {config.judge}: no reply could be judged ({reasons}); take another judge or model")
    held_out = {row["family"] for row in rows if row["held_out"]}
    earlier = [tried_of(row) for row in before if row["score"] is not None]
    groups = {name: [one for one in tried if one.family == name] for name in dict.fromkeys(t.family for t in tried)}
    plain = groups.get(PLAIN, [])
    found = {}
    for name, own in groups.items():
        row: dict[str, Any] = {"held_out": name in held_out, **success(own, config.seed)}
        if name != PLAIN and (change := change_by_request(own, plain)) is not None:
            row["over_plain"] = change.json()
        if against := change_by_prompt(own, [one for one in earlier if one.family == name], config.seed):
            row["against"] = against
        found[name] = row
    attacked = [one for one in tried if one.family != PLAIN]
    parts = {
        "attacks": attacked,
        "trained families": [one for one in attacked if one.family not in held_out],
        "held-out families": [one for one in attacked if one.family in held_out],
    }
    whole = {name: success(own, config.seed) for name, own in parts.items() if own}
    for name, own in parts.items():
        if against := change_by_prompt(own, earlier, config.seed):
            whole[name]["against"] = against
    if earlier and change_by_prompt(tried, earlier, config.seed) is None:
        raise BadInput(f"--against {config.against}: none of its prompts is among these; give the same data and seed")
    asked = {"judge": config.judge, "behaviour": config.behaviour, "measured": bool(config.calibration)}
    return {**asked, "replies": len(rows), "unjudged": dict(unjudged), "families": found, "together": whole}


def tried_of(row: Row) -> Tried:
    """A judged row of `samples.jsonl`."""
    return Tried(row["family"], row["seed_id"], row["prompt_id"], row["score"])


def keep_successes(run: RunFolder, rows: Sequence[Row]) -> dict[str, int]:
    """Prompts that got through: of families to train on, and of those that are held out, each in a file of its own."""
    through = [row for row in rows if row["score"] is not None and row["score"] > 0]
    counts = {}
    for name, held_out in (("prompts", False), ("held-out", True)):
        kept = {row["prompt_id"]: prompt_of_row(row) for row in through if row["held_out"] == held_out}
        counts[name] = write_records(run.path / f"{name}.jsonl", kept.values())
    return {"prompts": counts["prompts"], "held_out": counts["held-out"], "replies": len(rows)}


def say(told: dict[str, Any]) -> None:
    """A line a family."""
    for name, row in (told["families"] | told["together"]).items():
        value = row["success"]
        bounds = "n/a" if value["low"] is None else f"[{value['low']:.2f}, {value['high']:.2f}]"
        held = ", held out" if row.get("held_out") else ""
        print(f"{name}{held}: {value['mean']:.2f} {bounds} of {row['replies']} replies give in, by {told['judge']}")
