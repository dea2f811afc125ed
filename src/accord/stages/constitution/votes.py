"""Statements and votes → principles that every group agrees with, and what each group goes without."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accord.data.formats import Row, read_csv
from accord.errors import BadInput
from accord.evaluation.consensus import agreement, group_aware_consensus, losses
from accord.labelers.principles import Principles, WrittenPrinciple
from accord.labelers.questions import ENGLISH

ID, BODY, GROUP, MODERATED = "comment-id", "comment-body", "group-id", "moderated"
VOTES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}


def read_statements(where: str) -> tuple[dict[str, str], int]:
    """Statements by id, and how many a moderator has left out (`moderated` -1)."""
    kept: dict[str, str] = {}
    dropped = 0
    for row in _rows(where, (ID, BODY)):
        name, text = str(row.value[ID]), " ".join(str(row.value[BODY]).split())
        if not text or name in kept:
            raise BadInput(f"{row.where}: {ID} {name} is {'there twice' if name in kept else 'empty'}; mend the row")
        if str(row.value.get(MODERATED, "")).startswith("-1"):
            dropped += 1
        else:
            kept[name] = text
    return kept, dropped


def count_votes(where: str, statements: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray, dict[str, int], int]:
    """Groups, votes agreed and cast (S, G), participants by group, and how many of them have no group."""
    agreed: Counter[tuple[str, str]] = Counter()
    cast: Counter[tuple[str, str]] = Counter()
    people: Counter[str] = Counter()
    lone = 0
    for row in _rows(where, (GROUP, *statements)):
        if not (group := str(row.value[GROUP] or "").strip()):
            lone += 1
            continue
        people[group] += 1
        for name in statements:
            said = str(row.value[name] or "").strip()
            if said not in VOTES:
                raise BadInput(f"{row.where}: column {name}: {said[:20]!r} is no vote; write 1, 0, -1 or nothing")
            if (vote := VOTES[said]) is not None:
                cast[name, group] += 1
                agreed[name, group] += vote == 1
    groups = sorted(people)
    if len(groups) < 2:
        raise BadInput(f"{where}: {len(groups)} groups in {GROUP}; consensus over groups needs two or more")
    tables = [np.array([[table[name, group] for group in groups] for name in statements]) for table in (agreed, cast)]
    return groups, tables[0], tables[1], dict(people), lone


def _rows(where: str, needed: Sequence[str]) -> list[Row]:
    rows = list(read_csv(Path(where)))
    if not rows:
        raise BadInput(f"{where}: no rows")
    missing = [name for name in needed if name not in rows[0].value]
    if missing:
        raise BadInput(f"{where}: no column {', '.join(missing[:5])}; here are {', '.join(list(rows[0].value)[:8])} …")
    return rows


def from_votes(votes: str, statements: str, keep: int) -> tuple[Principles, dict[str, Any]]:
    """The constitution, and what is to be known of it: consensus, agreement by group, what each group lost."""
    texts, dropped = read_statements(statements)
    names = list(texts)
    groups, agreed, cast, people, lone = count_votes(votes, names)
    if keep > len(names):
        raise BadInput(f"--keep {keep}: {statements} has {len(names)} statements; keep fewer")
    chances = agreement(agreed, cast)
    consensus = group_aware_consensus(chances)
    chosen = [int(i) for i in np.argsort(-consensus, kind="stable")[:keep]]

    def told(i: int) -> dict[str, Any]:
        by_group = {g: {"agreement": float(chances[i, k]), "votes": int(cast[i, k])} for k, g in enumerate(groups)}
        return {"id": names[i], "text": texts[names[i]], "consensus": float(consensus[i]), "groups": by_group}

    found = dict(zip(groups, losses(chances, chosen), strict=True))
    facts = {
        "participants": people,
        "without_group": lone,
        "statements": len(names),
        "moderated": dropped,
        "chosen": [told(i) for i in chosen],
        "groups": {
            group: {"chosen": loss.chosen, "own": loss.own, "lost": [told(i) for i in loss.lost]}
            for group, loss in found.items()
        },
    }
    return Principles("votes", ENGLISH, tuple(principle(names[i], texts[names[i]]) for i in chosen)), facts


def principle(name: str, text: str) -> WrittenPrinciple:
    """A statement as something to criticise, revise and compare by."""
    return WrittenPrinciple(
        f"statement-{name}".lower(),
        text,
        f"Say in which ways your last reply departs from this principle: {text}",
        f"Write the reply again so that it follows this principle: {text}",
        f"Which reply follows this principle better: {text}",
    )


def summary(facts: Mapping[str, Any]) -> str:
    """What each group gets and goes without, a line each."""
    lines = []
    for group, found in facts["groups"].items():
        lines.append(
            f"group {group}, {facts['participants'][group]} people: agrees {found['chosen']:.2f} with what was chosen, "
            f"{found['own']:.2f} with its own choice; goes without {len(found['lost'])} of it"
        )
    return "\n".join(lines)
