"""Whether a round's candidate is promoted: every bound of the gate at the part of its error that the round has."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from accord.disk import read_json, read_lines, write_yaml
from accord.errors import GateClosed
from accord.evaluation.gate import GateBound, judge_bound
from accord.evaluation.promotion import CANDIDATE, WORST_GROUP, judge_wins, judge_worst_group
from accord.evaluation.ratings import Vote
from accord.records import Prompt
from accord.stages.evaluate import run as evaluate
from accord.stages.evaluate.config import Evaluate
from accord.stages.gate import FILE as VERDICTS
from accord.stages.gate import scores_by_prompt
from accord.stages.online.bounds import (
    LOSS,
    criteria_by_opponent,
    criterion_of,
    gate_of_evaluation,
    in_round,
    is_on,
    loss_bounds,
    on_wins,
    opponent_of,
)
from accord.stages.online.judge import FOLDER, Met, read_votes
from accord.stages.online.place import FIRST, Place, keep_prompts, needed_of
from accord.stages.score import run as score
from accord.stages.score.config import Score
from accord.stages.shared import group_of

EVALUATION, LOSSES = "evaluate", "loss"
SHOWN = 4


def first_evaluation(run: Path) -> str:
    """Where the first snapshot's evaluation is."""
    return str(run / FIRST / EVALUATION)


def measure(place: Place) -> dict[str, Any]:
    """Evaluate the candidate, and in the first round the snapshot that all are compared with."""
    config = place.config
    data = keep_prompts(place.run.path / "evaluation-prompts.jsonl", place.prompts.evaluated)
    first = Path(first_evaluation(place.run.path))
    _evaluate(place, first, config.model, data, "")
    gate = gate_of_evaluation(config, place.gate, place.number)
    file = place.folder / "gate.yaml"
    if gate:
        write_yaml(file, gate)
    with suppress(GateClosed):  # the decision says so, beside the other bounds
        _evaluate(place, place.folder / EVALUATION, place.candidate, data, str(file) if gate else "")
    if config.eval_data:
        for folder, model in ((first.with_name(LOSSES), config.model), (place.folder / LOSSES, place.candidate)):
            models = {"policy": model}
            place.ended(score.run(Score(**place.below(folder), models=models, data=config.eval_data)))
    found = {"slices": read_json(place.folder / EVALUATION / "evaluation.json")["slices"]}
    return found | ({FIRST: read_json(first / "evaluation.json")["slices"]} if place.number == 1 else {})


def _evaluate(place: Place, out: Path, model: str, data: str, gate: str) -> None:
    config = place.config
    knobs: dict[str, Any] = {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens}
    knobs |= {"cache_tokens": config.cache_tokens, "costs": config.costs, "gate": gate}
    place.ended(evaluate.run(Evaluate(**place.below(out), model=model, data=data, **knobs)))


def decide(place: Place) -> dict[str, Any]:
    """Judge every bound; the decision is in `rounds.json` and in the round's `decision.json`, and is said aloud."""
    config, number = place.config, place.number
    trained = {name for n in range(1, number + 1) for name in place.ledger.facts(n, "label")["labelers"]}
    met = {opponent: read_votes(place, opponent, trained) for opponent in criteria_by_opponent(place.gate)}
    bounds = [in_round(config, bound, number) for bound in on_wins(place.gate)]
    rows = [judge_votes(bound, met[opponent_of(bound)]) for bound in bounds]
    for row, bound in zip(rows, bounds, strict=True):
        row["needed_to_detect"] = needed_of(config, bound)
    if gate_of_evaluation(config, place.gate, number):
        rows += read_json(place.folder / EVALUATION / VERDICTS)["bounds"]
    rows += [_loss_verdict(place, bound) for bound in loss_bounds(config, place.gate, number)]
    promoted = all(row["verdict"] == "met" for row in rows)
    decision = {
        "promoted": promoted,
        "bounds": rows,
        "judged_by": config.judge,
        "detect": config.detect,
        "judges": {opponent: _who(found) for opponent, found in met.items()},
        "excluded": {opponent: _excluded(found) for opponent, found in met.items()},
        "samples": shown_meetings(place),
    }
    place.run.write_json(place.shown(place.folder / "decision.json"), decision)
    place.ledger.decide(number, decision)
    for row in rows:
        print(said_of(row), flush=True)
    print(f"round {number}: {'promoted' if promoted else 'refused'}", flush=True)
    return {"promoted": promoted}


def judge_votes(bound: GateBound, met: Met) -> dict[str, Any]:
    """The verdict of a bound on wins, as `decision.json` has it."""
    of_slices: Sequence[tuple[Prompt, Vote]] = met.votes.get(criterion_of(bound), [])
    votes = [vote for prompt, vote in of_slices if is_on(bound, prompt)]
    asked = {"comparisons": sum(bool(vote.judge) for vote in votes), "unasked": sum(not vote.judge for vote in votes)}
    if bound.metric.endswith(WORST_GROUP):
        verdict, group = judge_worst_group(bound, votes, group_of)
        return verdict.json() | asked | {"group": group}
    return judge_wins(bound, votes).json() | asked


def shown_meetings(place: Place) -> list[dict[str, Any]]:
    """A few of the meetings with the incumbent, for a person to look at: the first ones, which no score has chosen."""
    rows = read_lines(place.folder / FOLDER / "incumbent" / "samples.jsonl")
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [
        {"slice": ours["slice"], "prompt": ours["prompt"], "candidate": ours["reply"], "incumbent": theirs["reply"]}
        for ours, theirs in pairs
        if ours["by"] == CANDIDATE
    ][:SHOWN]


def _loss_verdict(place: Place, bound: GateBound) -> dict[str, Any]:
    ours, first = (_losses(folder) for folder in (place.folder, Path(first_evaluation(place.run.path)).parent))
    theirs = scores_by_prompt(first, bound) if bound.against else None
    return judge_bound(bound, scores_by_prompt(ours, bound), theirs).json()


def _losses(folder: Path) -> list[dict[str, Any]]:
    """Nats per token of every demonstration, as rows that a gate reads."""
    rows = []
    for row in read_lines(folder / LOSSES / "scores.jsonl"):
        total, tokens = row["scores"]["policy/logprob"], row["scores"]["policy/tokens"]
        if tokens:
            rows.append({"prompt_id": row["record_id"], "slice": row["slice"], "scores": {LOSS: -total / tokens}})
    return rows


def _who(met: Met) -> dict[str, int]:
    """How many votes of each judge counted."""
    found: dict[str, int] = {}
    for votes in met.votes.values():
        for _, vote in votes:
            if vote.judge:
                found[vote.judge] = found.get(vote.judge, 0) + 1
    return dict(sorted(found.items()))


def _excluded(met: Met) -> dict[str, Any]:
    failed = {judge: {"right": right, "of": of} for judge, (right, of) in met.failed.items()}
    return {"failed_checks": failed, "labels_trained": met.trained}


def said_of(row: Mapping[str, Any]) -> str:
    """A bound and what was found of it, in a line."""
    low, high = (row[end] if row[end] is not None else float("nan") for end in ("low", "high"))
    mean = row["mean"] if row["mean"] is not None else float("nan")
    group = f" of {row['group']}" if row.get("group") else ""
    needed = f"; about {row['needed']} prompts would decide" if row.get("needed") else ""
    return (
        f"bound {row['name']}: {row['verdict']}; {row['metric']}{group} is {mean:.3g} [{low:.3g}, {high:.3g}], asked "
        f"{row['side']} {row['limit']:g} at {row['confidence']:.4g}; {row['prompts']} prompts{needed}"
    )
