"""Shapes of votes: two replies, and which of them somebody or a judge took, or that neither will do."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accord.data.columns import Fields
from accord.data.conversations import Dropped, Turns, is_null, parse_text
from accord.data.parts import CHOICE, NAMED, Parts, Ranking, Shape, Verdict, chosen_of_two
from accord.records import Turn, as_messages

BOTH_BAD = re.compile(r"(tie\s*)?\(?both[ _-]?bad\)?")


def _named(parts: Parts, cells: Fields, first: str, second: str, judge: str) -> Parts:
    """The same with the snapshots that wrote the replies and with who judged, where the row has columns for them."""
    if cells.has(first) and cells.has(second):
        parts = replace(parts, snapshots=(_text_of(cells, first), _text_of(cells, second)))
    return replace(parts, labeler=_person(_text_of(cells, judge))) if cells.has(judge) else parts


def _side_by_side(parts: Parts) -> Parts:
    """An arena shows A on the left."""
    return replace(parts, rankings=tuple(ranking._replace(order=(0, 1)) for ranking in parts.rankings))


def _text_of(cells: Fields, name: str) -> str:
    return str(cells.get(name))


def _person(judge: str) -> str:
    """`arena_user_973` is number 973 of the arena's users: who is one of many has a colon before the number."""
    return re.sub(r"_(\d+)$", r":\1", judge)


def _choice(cells: Fields, turns: Turns, sides: tuple[str, str], first: float | None) -> Parts:
    """`first` is P(the first is better), ½ for a tie, None if nobody chose."""
    if first is None:
        raise Dropped("no choice")
    a, b = map(cells.text, sides)
    return chosen_of_two((turns, turns), (a, b), first)


def _alpaca_eval(cells: Fields) -> Parts:
    """`preference` is 1 plus the probability that the second output is better; 0 where the judge gave no answer."""
    said = cells.number("preference")
    if said and not 1 <= said <= 2:
        raise cells.wrong("preference", "a number from 1 (the first output is better) to 2 (the second), or 0 for none")
    parts = _choice(cells, cells.turns("instruction"), ("output_1", "output_2"), 2 - said if said else None)
    return _named(parts, cells, "generator_1", "generator_2", "annotator")


def _llm_bar(cells: Fields) -> Parts:
    said = cells.number("label")
    if said not in (1, 2):
        raise cells.wrong("label", "1 (the first output is better) or 2 (the second)")
    return _choice(cells, cells.turns("input"), ("output_1", "output_2"), 2 - said)


def _auto_j(cells: Fields) -> Parts:
    chances = {0: 1.0, 1: 0.0, 2: 0.5}
    said = cells.number("label")
    if said not in chances:
        raise cells.wrong("label", "0 (the first response is better), 1 (the second) or 2 (a tie)")
    return _choice(cells, cells.turns("prompt"), ("response 1", "response 2"), chances[int(said)])


def _tldr_judged(cells: Fields) -> Parts:
    chances = {"ours": 1.0, "reference": 0.0, "": None}
    said = cells.text("preferred")
    if said not in chances:
        raise cells.wrong("preferred", "ours, reference, or nothing where the judge gave no answer")
    return _choice(cells, cells.turns("query"), ("postprocessed_response", "reference_responses"), chances[said])


def _pandalm(cells: Fields) -> Parts:
    """Three people, each 1, 2 or 0 for a tie; the share of votes for the first is a soft label."""
    said = _three(cells)
    more = f"\n\n{cells.text('input')}" if cells.has("input") else ""
    turns = (Turn("user", cells.text("instruction") + more),)
    return _choice(cells, turns, ("response1", "response2"), sum((0.5, 1.0, 0.0)[int(vote)] for vote in said) / 3)


def _pandalm_votes(cells: Fields) -> Parts:
    """The same three people as three votes; `cmp_key` names both models with an underscore between."""
    names = cells.text("cmp_key").split("_")
    if len(names) != 2:
        raise cells.wrong("cmp_key", "two names with an underscore between")
    votes = tuple(
        Ranking("", ((1, 1), (1, 2), (2, 1))[int(vote)], labeler=f"annotator:{i}")
        for i, vote in enumerate(_three(cells), 1)
    )
    return replace(_pandalm(cells), snapshots=(names[0], names[1]), rankings=votes)


def _three(cells: Fields) -> list[float]:
    said = [cells.number(f"annotator{i}") for i in (1, 2, 3)]
    if not set(said) <= {0, 1, 2}:
        raise cells.wrong("annotator1", "0 (a tie), 1 or 2, as annotator2 and annotator3 must")
    return said


_PANDALM = ("instruction", "response1", "response2", "annotator1", "annotator2", "annotator3")


_GRADES = {
    "a-is-better": (1.0, 2.0),
    "a-is-slightly-better": (1.0, 1.0),
    "tie": (0.5, 0.0),
    "b-is-slightly-better": (0.0, 1.0),
    "b-is-better": (0.0, 2.0),
}


def _tulu(cells: Fields) -> Parts:
    """A graded choice, and of each completion whether it will do: those are judgements of their own."""
    said = cells.text("preference")
    if said not in _GRADES:
        raise cells.wrong("preference", f"one of {', '.join(_GRADES)}")
    first, strength = _GRADES[said]
    turns, replies = cells.turns("prompt"), (cells.text("completion_a"), cells.text("completion_b"))
    verdicts = tuple(
        Verdict(i, "", "good", float(cells.flag(name))) for i, name in enumerate(_ACCEPTABLE) if cells.has(name)
    )
    all_bad = len(verdicts) == 2 and not any(verdict.value for verdict in verdicts)
    return chosen_of_two((turns, turns), replies, first, strength, all_bad, verdicts)


_ACCEPTABLE = ("completion_a_is_acceptable", "completion_b_is_acceptable")


def _shp(cells: Fields) -> Parts:
    first = cells.flag("labels")
    return _choice(cells, cells.turns("history"), ("human_ref_A", "human_ref_B"), float(first))


# Votes of an arena


def _chance(cells: Fields, name: str) -> tuple[float, bool]:
    """(P(the first is better), both bad) from `winner`."""
    said = cells.text(name).strip().lower()
    if BOTH_BAD.fullmatch(said):
        return 0.5, True
    chances = {"model_a": 1.0, "model_b": 0.0, "a": 1.0, "b": 0.0, "tie": 0.5}
    if said not in chances:
        raise cells.wrong(name, "model_a, model_b, tie or tie (bothbad)")
    return chances[said], False


def _arena(cells: Fields) -> Parts:
    """Two conversations, and who won; where `turn` says how many questions were judged, what follows is left out."""
    first, all_bad = _chance(cells, "winner")
    sides = [cells.side(name, _judged(cells, name), ()) for name in ("conversation_a", "conversation_b")]
    (prompt_a, a), (prompt_b, b) = sides
    parts = chosen_of_two((prompt_a, prompt_b), (a, b), first, all_bad=all_bad)
    return _named(_side_by_side(parts), cells, "model_a", "model_b", "judge")


def _judged(cells: Fields, name: str) -> list[dict[str, str]]:
    turns = cells.turns(name)
    count = int(cells.number("turn")) if cells.has("turn") else 0
    asked = [place for place, turn in enumerate(turns) if turn.role == "user"]
    if 0 < count < len(asked):
        turns = turns[: asked[count]]
    return as_messages(turns)


def _arena_columns(cells: Fields) -> Parts:
    """`prompt`, `response_a` and `response_b` as JSON lists of a text a turn; a column of 0 or 1 for an outcome."""
    wins = [cells.flag(name) for name in _OUTCOMES]
    if sum(wins) != 1:
        raise cells.wrong(_OUTCOMES[0], "1 in exactly one of " + ", ".join(_OUTCOMES))
    asked, a, b = (_texts(cells, name) for name in ("prompt", "response_a", "response_b"))
    if not len(asked) == len(a) == len(b) or not asked:
        raise Dropped("sides of other length than the prompt")
    prompts = tuple(_woven(asked, said) for said in (a, b))
    parts = chosen_of_two((prompts[0], prompts[1]), (a[-1], b[-1]), (1.0, 0.0, 0.5)[wins.index(True)])
    return _named(_side_by_side(parts), cells, "model_a", "model_b", "judge")


_OUTCOMES = ("winner_model_a", "winner_model_b", "winner_tie")


def _texts(cells: Fields, name: str) -> list[str]:
    value = cells.get(name)
    texts = parse_text(value) if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) or is_null(text) for text in texts):
        raise cells.wrong(name, "a list of texts, or JSON of one")
    return ["" if is_null(text) else text for text in texts]


def _woven(asked: list[str], said: list[str]) -> Turns:
    earlier = zip(asked[:-1], said[:-1], strict=True)
    return (*(turn for a, b in earlier for turn in (Turn("user", a), Turn("assistant", b))), Turn("user", asked[-1]))


def _grades_of_tulu(row: Mapping[str, Any]) -> bool:
    return row["preference"] in _GRADES


_MODELS = ("model_a", "model_b", "judge")

VOTES: dict[str, Shape] = {
    "arena votes": Shape(("conversation_a", "conversation_b", "winner"), ("turn", *_MODELS), NAMED, _arena),
    "arena votes in columns": Shape(("prompt", "response_a", "response_b", *_OUTCOMES), _MODELS, NAMED, _arena_columns),
    "auto-j": Shape(("prompt", "response 1", "response 2", "label"), (), CHOICE, _auto_j),
    "alpaca eval": Shape(
        ("instruction", "output_1", "output_2", "preference"),
        ("generator_1", "generator_2", "annotator"),
        NAMED,
        _alpaca_eval,
    ),
    "llmbar": Shape(("input", "output_1", "output_2", "label"), (), CHOICE, _llm_bar),
    "pandalm": Shape(_PANDALM, ("input",), CHOICE, _pandalm),
    "pandalm votes": Shape((*_PANDALM, "cmp_key"), ("input",), ("battle",), _pandalm_votes),
    "tulu judged": Shape(
        ("prompt", "completion_a", "completion_b", "preference"),
        _ACCEPTABLE,
        (*CHOICE, "judgement"),
        _tulu,
        _grades_of_tulu,
    ),
    "shp": Shape(("history", "human_ref_A", "human_ref_B", "labels"), (), CHOICE, _shp),
    "tldr judged": Shape(
        ("query", "postprocessed_response", "reference_responses", "preferred"), (), CHOICE, _tldr_judged
    ),
}
