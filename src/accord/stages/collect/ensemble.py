"""Scores: how far an ensemble of preference models disagrees about a question, from what `accord score` leaves."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from accord.data.rows import prompt_of_row
from accord.disk import read_lines
from accord.errors import BadInput
from accord.evaluation.selection import disagreement
from accord.feedback.store.questions import Item

LOGIT = "/logit"  # of the columns of a scorer
Scores = Mapping[str, Mapping[str, Sequence[float]]]  # by a prompt's id and a reply: a logit of every model


def read_scores(path: str) -> Scores:
    """The logits of every reply. Raises BadInput for a file that is no `scores.jsonl` of two or more models."""
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    try:
        for row in read_lines(Path(path)):
            logits = [value for name, value in row["scores"].items() if name.endswith(LOGIT)]
            if len(logits) < 2:
                raise BadInput(f"{path}: an ensemble is two preference models or more; give accord score as many")
            found[prompt_of_row(row).id][row["reply"]] = [math.nan if value is None else value for value in logits]
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{path}: is no scores.jsonl that accord score left") from None
    if not found:
        raise BadInput(f"{path}: holds no scores; give the scores.jsonl of a run of accord score")
    return found


def with_score(item: Item, scores: Scores) -> Item:
    """The item with the disagreement about its replies; as it is where one of them was not scored."""
    said = scores.get(item.prompt.id, {})
    table = [said[reply] for reply in item.replies if reply in said and all(map(math.isfinite, said[reply]))]
    if len(table) < len(item.replies):
        return item
    return replace(item, score=disagreement(list(zip(*table, strict=True))))
