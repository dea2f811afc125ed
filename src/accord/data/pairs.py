"""Shapes of pairs: two sides of which the columns say which is better, or which is safe."""

from collections.abc import Mapping
from typing import Any

from accord.data.columns import Fields
from accord.data.conversations import Turns, holds_messages, is_transcript, split_transcript, unpack
from accord.data.parts import (
    CHOICE,
    LABELS,
    Parts,
    Ranking,
    Shape,
    Verdict,
    category,
    chosen_of_two,
    probability,
    renamed,
    severity,
)

# what a pair may say besides its order
SAID = ("margin", "probability", "tie", "all_bad")
_SAFETY = tuple(
    f"{a}{i}{b}"
    for a, b in (("is_response_", "_safe"), ("response_", "_harm_category"), ("response_", "_severity_level"))
    for i in (0, 1)
)


def _pair(cells: Fields, sides: tuple[tuple[Turns, str], ...], verdicts: tuple[Verdict, ...] = ()) -> Parts:
    strength = float(cells.number("margin")) if cells.has("margin") else 0.0
    (first_prompt, first), (second_prompt, second) = sides
    tied = cells.has("tie") and cells.flag("tie")
    all_bad = cells.has("all_bad") and cells.flag("all_bad")
    chance = 0.5 if tied else probability(cells)
    return chosen_of_two((first_prompt, second_prompt), (first, second), chance, strength, all_bad, verdicts)


def _hh(cells: Fields) -> Parts:
    return _pair(cells, (split_transcript(cells.text("chosen")), split_transcript(cells.text("rejected"))))


def _preference(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    strip = is_transcript(cells.values["prompt"])
    return _pair(cells, tuple(cells.side(name, cells.get(name), prompt, strip) for name in ("chosen", "rejected")))


def _implicit(cells: Fields) -> Parts:
    return _pair(cells, tuple(cells.side(name, cells.get(name), ()) for name in ("chosen", "rejected")))


def _safe_unsafe(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    sides = tuple(cells.side(name, cells.get(name), prompt) for name in ("safe", "unsafe"))
    unsafe = Verdict(1, "", "safe", 0.0, category(cells, "category"), severity(cells))
    return _pair(cells, sides, (Verdict(0, "", "safe", 1.0), unsafe))


def _safe_rlhf(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    replies = (cells.text("response_0"), cells.text("response_1"))
    rankings = tuple(
        Ranking(criterion, (1, 2) if cells.index(name) == 0 else (2, 1))
        for criterion, name in (("helpful", "better_response_id"), ("harmless", "safer_response_id"))
        if cells.has(name)
    )
    verdicts = tuple(
        Verdict(
            i,
            "harmless",
            "safe",
            float(cells.flag(f"is_response_{i}_safe")),
            category(cells, f"response_{i}_harm_category"),
            severity(cells, f"response_{i}_severity_level"),
        )
        for i in (0, 1)
        if cells.has(f"is_response_{i}_safe")
    )
    return Parts(prompts=(prompt, prompt), replies=replies, rankings=rankings, verdicts=verdicts)


def _are_transcripts(row: Mapping[str, Any]) -> bool:
    """Text on both sides that says who speaks; a column `prompt` beside it is a copy."""
    chosen, rejected = row["chosen"], row["rejected"]
    return is_transcript(chosen) or (isinstance(rejected, str) and is_transcript(rejected))


def _are_sides(row: Mapping[str, Any]) -> bool:
    """One reply a side: text or messages, and no list of replies."""
    return all(isinstance(row[side], str) or _is_conversation(row[side]) for side in ("chosen", "rejected"))


def _are_conversations(row: Mapping[str, Any]) -> bool:
    return all(_is_conversation(row[side]) for side in ("chosen", "rejected"))


def _is_conversation(value: Any) -> bool:
    return isinstance(value, dict) or value == [] or holds_messages(unpack(value))


def _pairs(prompt: str, better: str, worse: str) -> Shape:
    """A pair under the column names of a published set."""
    parse = renamed(_preference, prompt=prompt, chosen=better, rejected=worse)
    return Shape((prompt, better, worse), SAID, CHOICE, parse)


PAIRS: dict[str, Shape] = {
    "safe rlhf": Shape(
        ("prompt", "response_0", "response_1"),
        ("better_response_id", "safer_response_id", *_SAFETY),
        ("prompt", "comparison", "judgement"),
        _safe_rlhf,
    ),
    "safe and unsafe": Shape(("prompt", "safe", "unsafe"), (*SAID, *LABELS), (*CHOICE, "judgement"), _safe_unsafe),
    "hh transcripts": Shape(("chosen", "rejected"), SAID, CHOICE, _hh, _are_transcripts),
    # the same behind a choice of two letters, which `prompt`, `corrects` and `incorrects` ask for
    "hhh transcripts": Shape(
        ("text_correct", "text_incorrect"),
        (),
        CHOICE,
        renamed(_hh, chosen="text_correct", rejected="text_incorrect"),
        lambda row: is_transcript(row["text_correct"]),
    ),
    "preference": Shape(("prompt", "chosen", "rejected"), SAID, CHOICE, _preference, _are_sides),
    "sharegpt pairs": _pairs("conversations", "chosen", "rejected"),
    "question and pair": _pairs("question", "chosen", "rejected"),
    "preference, implicit prompt": Shape(("chosen", "rejected"), SAID, CHOICE, _implicit, _are_conversations),
    "stack exchange": _pairs("question", "response_j", "response_k"),
}
