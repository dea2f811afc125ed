"""The judge of a round: candidate and opponent meet on prompts that neither has seen, compared by who has not labelled.

prompts ─► a reply of each ─► questions ─► votes          (equal replies tie, an empty one loses: nobody is asked)
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accord.data.rows import prompt_of_row, reply_row
from accord.data.sources import read_comparisons
from accord.disk import read_json, read_lines, write_text
from accord.errors import BadInput
from accord.evaluation.checks import CheckRule, is_right
from accord.evaluation.promotion import CANDIDATE, failed_checks, vote_of
from accord.evaluation.ratings import Vote
from accord.feedback.store.answers import HUMAN
from accord.records import Comparison, Prompt
from accord.stages.collect.rounds import JUDGING
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.online import annotate
from accord.stages.online.bounds import criteria_by_opponent
from accord.stages.online.config import Annotate
from accord.stages.online.people import ask, keep, questions_of
from accord.stages.online.place import FIRST, Place, keep_prompts
from accord.stages.online.steps import asking, draw, labels_of
from accord.stages.shared import replies_by_prompt

FOLDER = "judge"
SEEDS_FROM = 1000  # of the simulated people who judge, above the one who labels
MOST_CHECKS = 20


class Met(NamedTuple):
    """What is known of the meetings with one opponent: votes by criterion with the prompt of each, and the judges that
    are not counted: by check items with how many of how many were right, by labels with how many votes."""

    votes: dict[str, list[tuple[Prompt, Vote]]]
    failed: dict[str, tuple[int, int]]
    trained: dict[str, int]


def meet(place: Place) -> dict[str, Any]:
    """Draw a reply of the candidate and of every opponent to each prompt, and write down what has to be asked."""
    prompts = place.prompts.judged[place.number - 1]
    refuse_trained_prompts(prompts, [place.candidate], "--data (to judge on)")
    data = keep_prompts(place.folder / FOLDER / "prompts.jsonl", prompts)
    players = {CANDIDATE: place.candidate, "incumbent": place.incumbent, FIRST: place.config.model}
    opponents = criteria_by_opponent(place.gate)
    for name in (CANDIDATE, *opponents):
        place.ended(draw(place, f"{FOLDER}/sample-{name}", players[name], data, 1))
    counts = {}
    ours = read_lines(place.folder / FOLDER / f"sample-{CANDIDATE}" / "samples.jsonl")
    for opponent in opponents:
        theirs = read_lines(place.folder / FOLDER / f"sample-{opponent}" / "samples.jsonl")
        counts[opponent] = _pair(place, opponent, ours, theirs)
    return {"prompts": len(prompts), "asked": counts}


def _pair(place: Place, opponent: str, ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> int:
    """Write the pairs to ask about (`samples.jsonl`), and what needs no answer (`settled.json`); how many are asked."""
    there = {row["prompt_id"]: row["reply"].strip() for row in theirs}
    asked, settled = [], []
    for row in ours:
        prompt, reply, other = prompt_of_row(row), row["reply"].strip(), there.get(row["prompt_id"])
        if other is None:
            continue
        if reply and other and reply != other:
            asked += [reply_row(prompt, reply, by=CANDIDATE), reply_row(prompt, other, by=opponent)]
        else:
            outcome = 0.5 if reply == other else float(bool(reply))
            settled.append({**reply_row(prompt, reply), "other": other, "outcome": outcome})
    known = {row["prompt_id"] for row in ours}
    for check in read_checks(place, opponent):
        if check.prompt.id not in known:
            asked += [reply_row(check.prompt, reply, by="check") for reply in check.replies]
    folder = place.folder / FOLDER / opponent
    folder.mkdir(exist_ok=True)
    write_text(folder / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked))
    place.run.write_json(place.shown(folder / "settled.json"), settled)
    return len({row["prompt_id"] for row in asked if row["by"] != "check"})


def read_checks(place: Place, opponent: str) -> list[Comparison]:
    """The comparisons whose answer is known, under the first criterion that is asked about."""
    if not place.config.checks:
        return []
    criterion = criteria_by_opponent(place.gate)[opponent][0]
    loaded = read_comparisons(place.config.checks, criterion, **place.config.how)
    usable = {
        record.prompt.id: record
        for record in loaded.records
        if record.criterion == criterion and len(record.replies) == 2 and len(set(record.ranks)) == 2
    }
    if not usable:
        raise BadInput(f"--checks {place.config.checks}: no comparison of two replies with an answer under {criterion}")
    return list(usable.values())[:MOST_CHECKS]


def have_judged(place: Place) -> dict[str, Any]:
    """Ask the judges about every pair; who they are and what they said is in the folders of the opponents."""
    told: dict[str, Any] = {}
    for opponent, criteria in criteria_by_opponent(place.gate).items():
        folder = place.folder / FOLDER / opponent
        if not read_lines(folder / "samples.jsonl"):
            told[opponent] = {"files": {}, "labelers": {}}
            continue
        told[opponent] = JUDGES[place.config.judge](place, folder, criteria)
    return told


def _by_people(place: Place, folder: Path, criteria: list[str]) -> dict[str, Any]:
    items = questions_of(list(replies_by_prompt(folder)), criteria, JUDGING, place.config.overlap)
    found = ask(place, folder, items, "judge")
    keep(place, folder, found)
    return {"source": found.source, **labels_of(place, folder)}


def _by_simulated(place: Place, folder: Path, criteria: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {"files": {}, "labelers": {}}
    for number in range(1, place.config.judges + 1):
        out = folder / f"judge-{number}"
        knobs = place.below(out, SEEDS_FROM + number)
        _annotate(place, knobs, folder, criteria, labeler="simulated", group=place.config.group)
        said = labels_of(place, out)
        told = {key: told[key] | said[key] for key in told}
    return told


def _by_ai(place: Place, folder: Path, criteria: list[str]) -> dict[str, Any]:
    scorer = place.config.judge_scorer
    out = folder / "judge-1"
    _annotate(place, place.below(out), folder, criteria, labeler="ai", scorer=scorer, **asking(place, scorer))
    return labels_of(place, out)


def _annotate(place: Place, knobs: dict[str, Any], folder: Path, criteria: list[str], **who: Any) -> None:
    place.ended(annotate.run(Annotate(**knobs, samples=str(folder), criteria=criteria, judged=[], **who)))


JUDGES: dict[str, Callable[[Place, Path, list[str]], dict[str, Any]]] = {
    "people": _by_people,
    "simulated": _by_simulated,
    "ai": _by_ai,
}


def read_votes(place: Place, opponent: str, trained: set[str]) -> Met:
    """The votes that count: first those who failed the check items go, then those whose labels the candidate learned
    from."""
    folder = place.folder / FOLDER / opponent
    checks = {check.prompt.id: check for check in read_checks(place, opponent)}
    said = [
        Comparison(**_fields(row)) for file in sorted(folder.rglob("comparisons-*.jsonl")) for row in read_lines(file)
    ]
    settled, ours = read_json(folder / "settled.json"), _first_replies(folder)
    criteria = criteria_by_opponent(place.gate)[opponent]
    return count_votes(said, criteria, opponent, checks=checks, trained=trained, settled=settled, candidates=ours)


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a comparison from its row."""
    listed = {key: tuple(row[key]) for key in ("replies", "ranks", "order")}
    plain = {key: row[key] for key in ("criterion", "labeler", "strength")}
    said = {"probability": row.get("probability", 1.0), "all_bad": row.get("all_bad", False)}
    return {"prompt": prompt_of_row(row), **listed, **plain, **said}


def _first_replies(folder: Path) -> dict[str, str]:
    """The candidate's reply to every prompt that was asked about."""
    return {row["prompt_id"]: row["reply"] for row in read_lines(folder / "samples.jsonl") if row["by"] == CANDIDATE}


def count_votes(
    said: Sequence[Comparison],
    criteria: Sequence[str],
    opponent: str,
    *,
    checks: Mapping[str, Comparison],
    trained: Collection[str],
    settled: Sequence[dict[str, Any]] = (),
    candidates: Mapping[str, str],
) -> Met:
    """Votes by criterion, of judges that passed the check items (`checks`, by prompt) and are not among `trained`.

    `candidates` has the candidate's reply by prompt, to tell the sides."""
    teachers = {person_of(labeler) for labeler in trained}
    answers: dict[str, list[bool]] = {}
    for one in said:
        check = checks.get(one.prompt.id)
        if check is not None and set(check.replies) == set(one.replies):
            known = tuple(check.ranks[check.replies.index(reply)] for reply in one.replies)
            answers.setdefault(one.labeler, []).append(is_right((known,), (one.ranks,)))
    failed = failed_checks(answers, CheckRule())
    votes: dict[str, list[tuple[Prompt, Vote]]] = {criterion: [] for criterion in criteria}
    refused: dict[str, int] = {}
    for one in said:
        if one.prompt.id in checks or one.labeler in failed:
            continue
        if person_of(one.labeler) in teachers:
            refused[one.labeler] = refused.get(one.labeler, 0) + 1
            continue
        vote = vote_of(one, opponent)
        if one.replies[0] != candidates[one.prompt.id]:
            vote = vote._replace(outcome=1 - vote.outcome)
        votes[one.criterion].append((one.prompt, vote))
    for row in settled:
        prompt = prompt_of_row(row)
        for criterion in votes:
            votes[criterion].append((prompt, Vote(CANDIDATE, opponent, row["outcome"], prompt.id)))
    return Met(votes, failed, refused)


def person_of(labeler: str) -> str:
    """Who it is, in whichever group they were when they said so: `human:GROUP:7` is `human:7`."""
    kind, *_, number = labeler.split(":")
    return f"{kind}:{number}" if kind == HUMAN else labeler
