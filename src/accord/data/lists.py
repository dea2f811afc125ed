"""Shapes of lists: several replies with ranks or scores, or lists of right and of wrong ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from accord.data.columns import Fields
from accord.data.conversations import Dropped, Turns, holds_messages
from accord.data.parts import CHOICE, Parts, Ranking, Shape, renamed


def _ranked(sides: Sequence[tuple[Turns, str]], ranks: tuple[int, ...], all_bad: bool = False) -> Parts:
    if len(sides) < 2:
        raise Dropped("fewer than two replies")
    best = [index for index, rank in enumerate(ranks) if rank == min(ranks)]
    prompts, replies = zip(*sides, strict=True)
    ideal = best[0] if len(best) == 1 and not all_bad else -1
    return Parts(prompts=prompts, replies=replies, ideal=ideal, rankings=(Ranking("", ranks, all_bad=all_bad),))


def rankings(cells: Fields) -> Parts:
    """`responses` and the rank of each, 1 for the best."""
    prompt = cells.turns("prompt")
    sides = [cells.side("responses", reply, prompt) for reply in cells.items("responses")]
    ranks = cells.whole_numbers("ranks")
    if len(ranks) != len(sides) or any(rank < 1 for rank in ranks):
        raise cells.wrong("ranks", "one rank for each response, 1 for the best, equal ranks for a tie")
    return _ranked(sides, ranks, cells.has("all_bad") and cells.flag("all_bad"))


def _right_and_wrong(cells: Fields) -> Parts:
    """Every right reply is better than every wrong one; a list may be one reply. The same one twice counts once."""
    prompt = cells.turns("prompt")
    sides: list[tuple[Turns, str]] = []
    ranks: list[int] = []
    first: list[int] = []
    for rank, name in ((1, "right"), (2, "wrong")):
        value = cells.get(name)
        replies = [value] if isinstance(value, str) and not value.lstrip().startswith("[") else cells.items(name)
        found = [cells.side(name, reply, prompt) for reply in replies]
        if not found:
            raise Dropped(f"no {name} reply")
        first += [len(sides) + place for place, side in enumerate(found) if side not in found[:place]]
        sides += found
        ranks += [rank] * len(found)
    parts = _ranked(sides, tuple(ranks))
    ideal = 0 if sum(ranks[place] == 1 for place in first) == 1 else -1
    return replace(parts, ideal=ideal, first=tuple(first))


def _truthful_qa(cells: Fields) -> Parts:
    """The answers of a cell stand with semicolons between."""
    lists = {name: [a.strip() for a in cells.text(name).split(";") if a.strip()] for name in ("right", "wrong")}
    return _right_and_wrong(Fields({**cells.values, **lists}, cells.where, cells.columns, cells.notes))


def _scored(cells: Fields) -> Parts:
    """A list of objects that hold a reply and its rank (1 best) or its score (higher is better)."""
    reply, rank, higher_is_better = next(
        (keys for keys in _SCORED if all(k in item for item in cells.items("answers") for k in keys[:2])),
        ("", "", False),
    )
    if not reply:
        raise cells.wrong("answers", "objects with " + ", or ".join(f"'{a}' and '{b}'" for a, b, _ in _SCORED))
    prompt = cells.turns("prompt")
    answers = cells.items("answers")
    sides = [cells.side("answers", answer[reply], prompt) for answer in answers]
    values = [Fields(answer, cells.where).number(rank) for answer in answers]
    order = sorted(set(values), reverse=higher_is_better)
    return _ranked(sides, tuple(1 + order.index(value) for value in values))


_SCORED = (("answer", "rank", False), ("response", "overall_score", True))  # Nectar, UltraFeedback


def _are_lists(*names: str) -> Any:
    """Whether one of the columns holds a list of replies; messages are one reply."""

    def fits(row: Mapping[str, Any]) -> bool:
        values = [row[name] for name in names]
        return any(isinstance(v, list | tuple) and len(v) > 0 and not holds_messages(v) for v in values)

    return fits


def _are_objects(name: str) -> Any:
    def fits(row: Mapping[str, Any]) -> bool:
        value = row[name]
        return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and not holds_messages(value)

    return fits


def _lists(prompt: str, right: str, wrong: str) -> Shape:
    parse = renamed(_right_and_wrong, prompt=prompt, right=right, wrong=wrong)
    return Shape((prompt, right, wrong), (), CHOICE, parse, _are_lists(right, wrong))


LISTS: dict[str, Shape] = {
    "rankings": Shape(("prompt", "responses", "ranks"), ("all_bad",), CHOICE, rankings),
    "right and wrong": Shape(("prompt", "right", "wrong"), (), CHOICE, _right_and_wrong),
    "right and wrong in chosen and rejected": _lists("prompt", "chosen", "rejected"),
    "right and wrong in corrects and incorrects": _lists("prompt", "corrects", "incorrects"),
    "truthful qa": Shape(
        ("Question", "Correct Answers", "Incorrect Answers"),
        (),
        CHOICE,
        renamed(_truthful_qa, prompt="Question", right="Correct Answers", wrong="Incorrect Answers"),
    ),
    "nectar": Shape(("prompt", "answers"), (), CHOICE, _scored, _are_objects("answers")),
    "ultrafeedback": Shape(
        ("instruction", "completions"),
        (),
        CHOICE,
        renamed(_scored, prompt="instruction", answers="completions"),
        _are_objects("completions"),
    ),
}
