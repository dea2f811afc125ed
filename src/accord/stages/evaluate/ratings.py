"""Snapshots head to head: votes of people and AI, or of any score between evaluations, to win rates and Elo.

votes and evaluations → duels by judge → ratings, win rates under length control, order, cycles, agreement; and why what
a preference model promises is not what a judge says.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from accord.data.rows import prompt_of_row
from accord.data.sources import read_battles
from accord.disk import read_json, read_lines
from accord.errors import BadInput
from accord.evaluation.agreement import Answer, agreement
from accord.evaluation.decomposition import ScoredReply, decompose
from accord.evaluation.head_to_head import answers, cyclic_triples, mean_lengths, order_effect, pair_rates
from accord.evaluation.length_control import length_controlled
from accord.evaluation.ratings import Vote, fit_ratings, players
from accord.evaluation.statistics import pair_outcomes
from accord.labelers.labeler import Labeler
from accord.records import Comparison, Prompt, content_hash
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluateRatings
from accord.stages.evaluate.judges import chosen, open_labelers, parents_of, preferences_by
from accord.stages.evaluate.rows import Row, parents_of_runs
from accord.stages.shared import group_of, load_criterion, open_run

AGREEMENT = 500  # resamples behind an interval of agreement, which are slow

# of these scores the lower one wins
LOWER_IS_BETTER = ("cost/", "gold/harm", "gold/evasive", "kl")


class Duel(NamedTuple):
    """A vote, and the replies that it is about."""

    vote: Vote
    prompt_id: str
    replies: tuple[str, str]


Duels = dict[str, list[Duel]]


def run(config: EvaluateRatings) -> RunFolder:
    """Rate snapshots; leaves `ratings.json`."""
    parents = parents_of_runs(config.runs, scores=config.scores) | parents_of(config)
    with open_run("evaluate-ratings", config, parents) as run, open_labelers(config, run) as labelers:
        if run.finished:
            return run
        evaluated = {name: read_run(path, "samples.jsonl") for name, path in config.runs.items()}
        duels = duels_of_votes(config, run)
        for judge in config.judge:
            duels[judge] = duels_of_runs(evaluated, judge, config.ties_within)
        for name, labeler in labelers.items():
            duels[f"labeler/{name}"] = duels_by(labeler, evaluated, f"labeler/{name}", config.criterion)
        result: dict[str, Any] = {"judges": {judge: rated(config, judge, asked) for judge, asked in duels.items()}}
        result["agreement"] = between(duels)
        if config.decompose:
            result |= {"decomposed": config.decompose, "decomposition": decomposed(config, evaluated, duels)}
        run.write_json("ratings.json", result)
        run.finish(votes={judge: len(asked) for judge, asked in duels.items()})
        return run


def read_run(folder: str, file: str) -> list[Row]:
    """The rows of a run folder's file; BadInput where it has none."""
    rows = read_lines(Path(folder) / file)
    if not rows:
        raise BadInput(f"{folder} has no {file}, or an empty one; give the folder of a finished run")
    return rows


def duels_of_votes(config: EvaluateRatings, run: RunFolder) -> Duels:
    """Judge → its votes in --data; labelers of one kind (`human:3`, `human:7`) are one judge."""
    found: Duels = defaultdict(list)
    if config.data:
        for record in load_criterion(
            read_battles, config.data, config, run, config.criterion, split=config.split, what="data"
        ):
            found[group_of(record.labeler)] += duels_of(record)
    return dict(found)


def duels_of(battle: Comparison) -> Iterator[Duel]:
    """Every two replies of a comparison; of two the labeler's probability is kept."""
    place = {reply: number for number, reply in enumerate(battle.order)}
    for i, j in combinations(range(len(battle.replies)), 2):
        if place and place[i] > place[j]:
            i, j = j, i
        better = battle.ranks[i] - battle.ranks[j]
        sure = battle.probability if len(battle.replies) == 2 else 1.0
        outcome = 0.5 if better == 0 else sure if better < 0 else 1 - sure
        names, replies = (battle.snapshots[i], battle.snapshots[j]), (battle.replies[i], battle.replies[j])
        yield duel(battle.prompt, names, replies, outcome, battle.labeler, ordered=bool(place))


def duel(
    prompt: Prompt,
    names: tuple[str, str],
    replies: tuple[str, str],
    outcome: float,
    judge: str,
    *,
    ordered: bool = False,
) -> Duel:
    """Prompts that open alike are drawn together."""
    question = content_hash(prompt.turns, sorted(replies))
    lengths = (len(replies[0]), len(replies[1]))
    return Duel(Vote(*names, outcome, prompt.opening, judge, question, lengths, ordered), prompt.id, replies)


def duels_of_runs(evaluated: Mapping[str, Sequence[Row]], judge: str, ties_within: float) -> list[Duel]:
    """Every two evaluations on every prompt they share, first reply against first reply; the judge's score decides."""
    sign = -1.0 if judge.startswith(LOWER_IS_BETTER) else 1.0
    by_prompt = {name: replies_of(name, rows, judge) for name, rows in evaluated.items()}
    found = []
    for one, other in combinations(by_prompt, 2):
        shared = [prompt for prompt in by_prompt[one] if prompt in by_prompt[other]]
        if not shared:
            raise BadInput(f"--runs.{one} and --runs.{other} have no prompt in common that {judge} has scored")
        for prompt in shared:
            for a, b in zip(by_prompt[one][prompt], by_prompt[other][prompt], strict=False):
                (outcome,) = pair_outcomes([sign * (a["scores"][judge] - b["scores"][judge])], ties_within)
                replies = (a["reply"], b["reply"])
                found.append(duel(prompt_of_row(a), (one, other), replies, float(outcome), judge))
    return found


def duels_by(labeler: Labeler, evaluated: Mapping[str, Sequence[Row]], judge: str, criterion: str) -> list[Duel]:
    """The same by a labeler's answers in both orders; equal replies tie, and what it does not answer is left out."""
    by_prompt = {name: rows_by_prompt(rows) for name, rows in evaluated.items()}
    met = [
        ((one, other), prompt_of_row(a), a["reply"], b["reply"])
        for one, other in combinations(by_prompt, 2)
        for prompt in by_prompt[one]
        for a, b in zip(by_prompt[one][prompt], by_prompt[other].get(prompt, ()), strict=False)
    ]
    if not met:
        raise BadInput(f"--runs: no two of {', '.join(evaluated)} have a prompt in common")
    asked = [(prompt, first, second) for _, prompt, first, second in met if first != second]
    told = iter(preferences_by(labeler, asked, criterion)) if asked else iter(())
    found = []
    for names, prompt, first, second in met:
        chance = 0.5 if first == second else next(told)
        if chance is not None:
            found.append(duel(prompt, names, (first, second), chance, judge))
    return found


def rows_by_prompt(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Prompt id → its rows."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["prompt_id"]].append(row)
    return found


def replies_of(name: str, rows: Sequence[Row], judge: str) -> dict[str, list[Row]]:
    """Prompt id → the rows of its replies that have the score."""
    there = {score for row in rows for score, value in row["scores"].items() if value is not None}
    chosen([judge], there, f"--runs.{name}")
    return rows_by_prompt([row for row in rows if row["scores"].get(judge) is not None])


def rated(config: EvaluateRatings, judge: str, asked: Sequence[Duel]) -> Row:
    """All that one judge's votes say. BadInput where they leave somebody without a finite rating."""
    votes = [one.vote for one in asked]
    anchor = anchor_of(config, judge, votes)
    try:
        ratings = fit_ratings(
            votes,
            ties=config.ties,
            ridge=config.ridge,
            anchor=anchor,
            resamples=config.bootstrap,
            seed=config.seed,
        )
    except ValueError as problem:
        raise BadInput(f"votes by {judge}: {problem} (--ridge, or --ties half)") from None
    best = ", ".join(f"{name} {elo.mean:+.0f}" for name, elo in list(ratings.elo.items())[:5])
    print(f"{judge}: {len(votes)} votes on {len({v.cluster for v in votes})} prompts; Elo from {anchor}: {best}")
    several = len({vote.judge for vote in votes}) > 1
    return {
        "votes": len(votes),
        "prompts": len({vote.cluster for vote in votes}),
        "ratings": ratings.json(),
        "pairs": pair_rates(votes),
        "length_controlled": {name: rate.json() for name, rate in length_controlled(votes, anchor).items()},
        "lengths": mean_lengths(votes),
        "order": order_effect(votes),
        "cycles": cyclic_triples(votes, ratings).json(),
        "agreement": agreement(answers(votes), resamples=AGREEMENT, seed=config.seed) if several else {},
    }


def anchor_of(config: EvaluateRatings, judge: str, votes: Sequence[Vote]) -> str:
    """The snapshot that is asked for, else the one that the judge has seen most (of equals the first named)."""
    names = players(votes)
    if config.anchor:
        if config.anchor not in names:
            raise BadInput(f"--anchor {config.anchor}: {judge} has no votes on it; there are {', '.join(names)}")
        return config.anchor
    met = {name: sum(name in vote[:2] for vote in votes) for name in [*config.runs, *names] if name in names}
    return max(met, key=met.__getitem__)


def between(duels: Duels) -> Row:
    """How far the judges agree on the questions that they share, each as one."""
    said = [
        Answer(answer.question, judge, answer.answer)
        for judge, asked in duels.items()
        for answer in answers([one.vote._replace(judge=judge) for one in asked])
    ]
    return agreement(said, resamples=AGREEMENT) if len(duels) > 1 else {}


def decomposed(config: EvaluateRatings, evaluated: Mapping[str, Sequence[Row]], duels: Duels) -> Row:
    """Judge → where the Elo that the preference model promises parts from the judge's; a judge that it is has none."""
    column, found = f"reward/{config.decompose}", {}
    promised, known = logits_of_runs(config, evaluated, column)
    if config.scores:
        known |= logits_of_scores(config)
    for judge, asked in duels.items():
        scored = [one for one in asked if all((one.prompt_id, reply) in known for reply in one.replies)]
        if judge == column:
            continue
        if not scored:
            raise BadInput(
                f"--decompose {config.decompose}: none of the replies that {judge} compared has a score; "
                "give --scores RUN, of `accord score` on the same --data"
            )
        if len(scored) < len(asked):
            print(f"{judge}: {len(asked) - len(scored)} of {len(asked)} votes are on replies without a score; left out")
        found[judge] = decomposition_of(config, judge, scored, known, promised)
    return found


def decomposition_of(
    config: EvaluateRatings,
    judge: str,
    asked: Sequence[Duel],
    known: Mapping[tuple[str, str], float],
    promised: Sequence[ScoredReply],
) -> Row:
    judged = [one.vote for one in asked]
    anchor, names = anchor_of(config, judge, judged), set(players(judged))
    pairs = [(known[one.prompt_id, one.replies[0]], known[one.prompt_id, one.replies[1]]) for one in asked]
    outcomes = pair_outcomes([a - b for a, b in pairs])
    chosen = [vote._replace(outcome=float(outcome)) for vote, outcome in zip(judged, outcomes, strict=True)]
    scored = [
        ScoredReply(name, score, vote.cluster)
        for vote, pair in zip(judged, pairs, strict=True)
        for name, score in zip(vote[:2], pair, strict=True)
    ]
    elsewhere = {vote.cluster for vote in judged}
    fresh = [one for one in promised if one.snapshot in names and one.cluster not in elsewhere]
    same = not fresh
    fresh = fresh or [one for one in promised if one.snapshot in names]
    try:
        parts = decompose(
            judged, chosen, scored, fresh, anchor, ridge=config.ridge, resamples=config.bootstrap, seed=config.seed
        )
    except ValueError as problem:
        raise BadInput(f"--decompose {config.decompose}, votes by {judge}: {problem} (--ridge)") from None
    return {"anchor": anchor, "votes": len(judged), "same_prompts": same, "snapshots": parts}


def logits_of_runs(
    config: EvaluateRatings, evaluated: Mapping[str, Sequence[Row]], column: str
) -> tuple[list[ScoredReply], dict[tuple[str, str], float]]:
    """The model's scores of all replies in --runs, in logits: what it promises, and by (prompt id, reply)."""
    promised, known = [], {}
    for name, rows in evaluated.items():
        normalizer = (read_json(Path(config.runs[name]) / "evaluation.json").get("normalizers") or {}).get(
            config.decompose
        )
        if normalizer is None:
            raise BadInput(f"--decompose {config.decompose}: --runs.{name} was not scored by it; evaluate it again")
        for row in rows:
            if row["scores"].get(column) is not None:
                logit = row["scores"][column] * normalizer["scale"] + normalizer["shift"]
                promised.append(ScoredReply(name, logit, prompt_of_row(row).opening))
                known[row["prompt_id"], row["reply"]] = logit
    return promised, known


def logits_of_scores(config: EvaluateRatings) -> dict[tuple[str, str], float]:
    """The same of a run folder of `accord score`."""
    column = f"{config.decompose}/logit"
    found = {
        (row["prompt_id"], row["reply"]): row["scores"][column]
        for row in read_run(config.scores, "scores.jsonl")
        if row["scores"].get(column) is not None
    }
    if not found:
        raise BadInput(f"--scores {config.scores} has no column {column}; score by --models.{config.decompose} DIR")
    return found
