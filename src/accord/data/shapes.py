"""Shapes of preference data: which columns make a shape, and what one row of it says.

Every shape is one function from the cells of a row to `Parts`; readers make records from the parts.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from accord.data.columns import Dropped, Fields, Turns, is_transcript, list_columns, split_transcript
from accord.errors import BadInput
from accord.records import JudgementKind, Turn

Kind = Literal["document", "prompt", "demonstration", "comparison", "judgement"]
RECORD_KINDS: tuple[Kind, ...] = get_args(Kind)
JUDGEMENT_KINDS: tuple[JudgementKind, ...] = get_args(JudgementKind)

# Fields that every shape takes; the last three only when `columns` names them, because columns that are
# called so by chance should not change the prompt.
COMMON = {
    "slice": "the slice of the prompt",
    "labeler": "who said so",
    "source": "where the row comes from",
    "system": "a system turn put before the prompt",
    "context": "text added to the last turn of the prompt, after a blank line",
}
ONLY_WHEN_NAMED = ("source", "system", "context")


class Ranking(NamedTuple):
    """Ranks of all replies (1 best). The criterion "" means the one that the reader asks for."""

    criterion: str
    ranks: tuple[int, ...]
    strength: float = 0.0
    order: tuple[int, ...] = ()
    probability: float = 1.0
    all_bad: bool = False


class Verdict(NamedTuple):
    """A judgement of reply number `reply`; the criterion "" means the one that the reader asks for."""

    reply: int
    criterion: str
    kind: JudgementKind
    value: float
    category: str = ""
    severity: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What one row says. `prompts[i]` is the prompt as `replies[i]` has it, so that a difference can be seen;
    `ideal` is the reply to imitate, -1 for none."""

    text: str = ""
    prompts: tuple[Turns, ...] = ()
    replies: tuple[str, ...] = ()
    ideal: int = -1
    rankings: tuple[Ranking, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    slice: str = ""
    source: str = ""
    labeler: str = "human"
    stored: tuple[str, str] = ("", "")  # kind and id of a row that Accord wrote


# The shapes


def _pair(cells: Fields, sides: tuple[tuple[Turns, str], ...]) -> Parts:
    strength = float(cells.number("margin")) if cells.has("margin") else 0.0
    prompts, replies = zip(*sides, strict=True)
    all_bad = cells.has("all_bad") and cells.flag("all_bad")
    first = _probability(cells)
    tied = cells.has("tie") and cells.flag("tie")
    ranks = (1, 1) if tied else (1, 2) if first >= 0.5 else (2, 1)
    ranking = Ranking("", ranks, strength, (), 1.0 if tied else max(first, 1 - first), all_bad)
    ideal = -1 if tied or all_bad else int(first < 0.5)
    return Parts(prompts=prompts, replies=replies, ideal=ideal, rankings=(ranking,))


def _probability(cells: Fields) -> float:
    """P(the first reply is better); 1 where none is given."""
    if not cells.has("probability"):
        return 1.0
    value = float(cells.number("probability"))
    if not 0 <= value <= 1:
        raise cells.wrong("probability", "a number from 0 to 1")
    return value


def _hh(cells: Fields) -> Parts:
    return _pair(cells, (split_transcript(cells.text("chosen")), split_transcript(cells.text("rejected"))))


def _preference(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    strip = is_transcript(cells.values["prompt"])
    return _pair(cells, tuple(cells.side(name, cells.get(name), prompt, strip) for name in ("chosen", "rejected")))


def _implicit(cells: Fields) -> Parts:
    return _pair(cells, tuple(cells.side(name, cells.get(name), ()) for name in ("chosen", "rejected")))


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
            _category(cells, f"response_{i}_harm_category"),
            float(cells.number(f"response_{i}_severity_level")) if cells.has(f"response_{i}_severity_level") else 0.0,
        )
        for i in (0, 1)
        if cells.has(f"is_response_{i}_safe")
    )
    return Parts(prompts=(prompt, prompt), replies=replies, rankings=rankings, verdicts=verdicts)


def _category(cells: Fields, name: str) -> str:
    if not cells.has(name):
        return ""
    value = cells.get(name)
    if isinstance(value, dict):  # PKU-SafeRLHF: category -> whether it applies
        return "; ".join(str(key) for key, applies in value.items() if applies is True)
    return cells.text(name)


def _safe_unsafe(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    sides = tuple(cells.side(name, cells.get(name), prompt) for name in ("safe", "unsafe"))
    verdicts = (
        Verdict(0, "", "safe", 1.0),
        Verdict(1, "", "safe", 0.0, _category(cells, "category"), _severity(cells)),
    )
    return replace(_pair(cells, sides), verdicts=verdicts)


def _rankings(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    sides = [cells.side("responses", reply, prompt) for reply in cells.items("responses")]
    ranks = cells.whole_numbers("ranks")
    if len(ranks) != len(sides) or any(rank < 1 for rank in ranks):
        raise cells.wrong("ranks", "one rank for each response, 1 for the best, equal ranks for a tie")
    if len(sides) < 2:
        raise Dropped("fewer than two replies")
    best = [index for index, rank in enumerate(ranks) if rank == min(ranks)]
    prompts, replies = zip(*sides, strict=True)
    all_bad = cells.has("all_bad") and cells.flag("all_bad")
    return Parts(
        prompts=prompts,
        replies=replies,
        ideal=best[0] if len(best) == 1 and not all_bad else -1,
        rankings=(Ranking("", ranks, all_bad=all_bad),),
    )


def _choice(cells: Fields, prompt: str, sides: tuple[str, str], first: float | None) -> Parts:
    """Two replies of which someone, or a judge, chose one; `first` is P(the first is better), None if nobody chose."""
    if first is None:
        raise Dropped("no choice")
    turns = cells.turns(prompt)
    ranks = (1, 1) if first == 0.5 else (1, 2) if first > 0.5 else (2, 1)
    ranking = Ranking("", ranks, probability=1.0 if first == 0.5 else max(first, 1 - first))
    ideal = -1 if first == 0.5 else int(first < 0.5)
    return Parts(prompts=(turns, turns), replies=tuple(map(cells.text, sides)), ideal=ideal, rankings=(ranking,))


def _alpaca_eval(cells: Fields) -> Parts:
    """`preference` is 1 plus the probability that the second output is better; 0 where the judge gave no answer."""
    said = cells.number("preference")
    if said and not 1 <= said <= 2:
        raise cells.wrong("preference", "a number from 1 (the first output is better) to 2 (the second), or 0 for none")
    return _choice(cells, "instruction", ("output_1", "output_2"), 2 - said if said else None)


def _auto_j(cells: Fields) -> Parts:
    chances = {0: 1.0, 1: 0.0, 2: 0.5}
    said = cells.number("label")
    if said not in chances:
        raise cells.wrong("label", "0 (the first response is better), 1 (the second) or 2 (a tie)")
    return _choice(cells, "prompt", ("response 1", "response 2"), chances[int(said)])


def _tldr_judged(cells: Fields) -> Parts:
    chances = {"ours": 1.0, "reference": 0.0, "": None}
    said = cells.text("preferred")
    if said not in chances:
        raise cells.wrong("preferred", "ours, reference, or nothing where the judge gave no answer")
    return _choice(cells, "query", ("postprocessed_response", "reference_responses"), chances[said])


def _completion(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    turns, reply = cells.side("completion", cells.get("completion"), prompt, is_transcript(cells.values["prompt"]))
    return Parts(prompts=(turns,), replies=(reply,), ideal=0)


def _severity(cells: Fields) -> float:
    return float(cells.number("severity")) if cells.has("severity") else 0.0


def _judged(cells: Fields, kind: JudgementKind, value: float) -> Parts:
    verdict = Verdict(0, "", kind, value, _category(cells, "category"), _severity(cells))
    return replace(_completion(cells), ideal=-1, verdicts=(verdict,))


def _unpaired(cells: Fields) -> Parts:
    return _judged(cells, "good", float(cells.flag("label")))


def _safety_label(cells: Fields) -> Parts:
    return _judged(cells, "safe", float(cells.flag("is_safe")))


def _rating(cells: Fields) -> Parts:
    return _judged(cells, "rating", float(cells.number("rating")))


def _conversation(cells: Fields) -> Parts:
    turns = cells.turns("messages")
    if turns and turns[-1].role == "assistant":
        return Parts(prompts=(turns[:-1],), replies=(turns[-1].content,), ideal=0)
    return Parts(prompts=(turns,))


def _text(cells: Fields) -> Parts:
    return Parts(text=cells.text("text"))


def _prompt(cells: Fields) -> Parts:
    return Parts(prompts=(cells.turns("prompt"),))


def _stored(cells: Fields) -> Parts:
    kind = cells.text("record")
    if kind not in RECORD_KINDS:
        raise cells.wrong("record", f"one of {', '.join(RECORD_KINDS)}")
    parts = Parts(source=cells.text("source"), stored=(kind, cells.text("id") if cells.has("id") else ""))
    if kind == "document":
        return replace(parts, text=cells.text("text"))
    prompt = cells.turns("prompt")
    parts = replace(parts, slice=cells.text("slice"), prompts=(prompt,))
    if kind == "prompt":
        return parts
    if kind == "demonstration":
        return replace(parts, replies=(cells.text("reply"),), ideal=0)
    parts = replace(parts, labeler=cells.text("labeler"))
    if kind == "judgement":
        verdict = Verdict(
            0,
            cells.text("criterion"),
            _judgement_kind(cells),
            cells.number("value"),
            cells.text("category"),
            cells.number("severity"),
        )
        return replace(parts, replies=(cells.text("reply"),), verdicts=(verdict,))
    ranked = _rankings(
        Fields({**cells.values, "responses": cells.items("replies")}, cells.where, {"responses": "replies"})
    )
    order = cells.whole_numbers("order")
    ranking = Ranking(
        cells.text("criterion"),
        ranked.rankings[0].ranks,
        cells.number("strength"),
        order,
        _probability(cells),
        cells.has("all_bad") and cells.flag("all_bad"),
    )
    return replace(
        ranked,
        rankings=(ranking,),
        slice=parts.slice,
        source=parts.source,
        labeler=parts.labeler,
        stored=parts.stored,
    )


def _judgement_kind(cells: Fields) -> JudgementKind:
    kind = cells.text("kind")
    for known in JUDGEMENT_KINDS:
        if kind == known:
            return known
    raise cells.wrong("kind", "safe, good or rating")


class Shape(NamedTuple):
    """`columns` must be there and `fits` the first row; `optional` may be; `gives`: the kinds of record."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    gives: tuple[Kind, ...]
    parse: Callable[[Fields], Parts]
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True


_LABELS = ("category", "severity")
# what a pair may say besides its order
_SAID = ("margin", "probability", "tie", "all_bad")
_SAFETY = tuple(
    f"{a}{i}{b}"
    for a, b in (("is_response_", "_safe"), ("response_", "_harm_category"), ("response_", "_severity_level"))
    for i in (0, 1)
)
_CHOICE: tuple[Kind, ...] = ("prompt", "demonstration", "comparison")

# Asked in this order; the first that fits is taken.
SHAPES: dict[str, Shape] = {
    "accord records": Shape(
        ("record",),
        (),
        RECORD_KINDS,
        _stored,
        lambda row: isinstance(row["record"], str) and row["record"] in RECORD_KINDS,
    ),
    "safe rlhf": Shape(
        ("prompt", "response_0", "response_1"),
        ("better_response_id", "safer_response_id", *_SAFETY),
        ("prompt", "comparison", "judgement"),
        _safe_rlhf,
    ),
    "safe and unsafe": Shape(("prompt", "safe", "unsafe"), (*_SAID, *_LABELS), (*_CHOICE, "judgement"), _safe_unsafe),
    "rankings": Shape(("prompt", "responses", "ranks"), ("all_bad",), _CHOICE, _rankings),
    "hh transcripts": Shape(
        ("chosen", "rejected"),
        _SAID,
        _CHOICE,
        _hh,
        lambda row: isinstance(row["chosen"], str) and (is_transcript(row["chosen"]) or row.get("prompt") is None),
    ),
    "preference": Shape(("prompt", "chosen", "rejected"), _SAID, _CHOICE, _preference),
    "preference, implicit prompt": Shape(("chosen", "rejected"), _SAID, _CHOICE, _implicit),
    "auto-j": Shape(("prompt", "response 1", "response 2", "label"), (), _CHOICE, _auto_j),
    "alpaca eval": Shape(("instruction", "output_1", "output_2", "preference"), (), _CHOICE, _alpaca_eval),
    "tldr judged": Shape(
        ("query", "postprocessed_response", "reference_responses", "preferred"), (), _CHOICE, _tldr_judged
    ),
    "unpaired": Shape(("prompt", "completion", "label"), _LABELS, ("prompt", "judgement"), _unpaired),
    "safety labels": Shape(("prompt", "completion", "is_safe"), _LABELS, ("prompt", "judgement"), _safety_label),
    "ratings": Shape(("prompt", "completion", "rating"), _LABELS, ("prompt", "judgement"), _rating),
    "prompt and completion": Shape(("prompt", "completion"), (), ("prompt", "demonstration"), _completion),
    "messages": Shape(("messages",), (), ("prompt", "demonstration"), _conversation),
    "text": Shape(("text",), (), ("document",), _text),
    "prompt": Shape(("prompt",), (), ("prompt",), _prompt),
}


def recognise(row: Mapping[str, Any], columns: Mapping[str, str], kind: Kind | None, where: str) -> str:
    """The shape of a file, from its first row; `kind` None takes any. Raises BadInput with what is there."""
    known = sorted({name for shape in SHAPES.values() for name in (*shape.columns, *shape.optional)} | set(COMMON))
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'" if near else f"; known are {', '.join(known)}"
            raise BadInput(f"--columns.{name}: there is no field '{name}'{hint}.")
    cells = map_columns(row, columns, where)
    fitting = [
        name
        for name, shape in SHAPES.items()
        if all(cells.has(column) for column in shape.columns)
        and set(columns) <= {*shape.columns, *shape.optional, *COMMON}
        and shape.fits(cells.values)
    ]
    for name in fitting:
        if kind is None or kind in SHAPES[name].gives:
            return name
    shapes = "; ".join(
        f"{name} ({', '.join(shape.columns)})" for name, shape in SHAPES.items() if kind is None or kind in shape.gives
    )
    wanted = f"{kind}s" if kind else "records"
    found = (
        f"; they look like '{fitting[0]}', which gives {', '.join(f'{k}s' for k in SHAPES[fitting[0]].gives)}"
        if fitting
        else ""
    )
    raise BadInput(
        f"{where}: no {wanted} can be read from the columns {list_columns(row)}{found}. "
        f"Shapes that give {wanted}: {shapes}. "
        "Name other columns with --columns.FIELD NAME, for example --columns.prompt question."
    )


def map_columns(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Fields:
    """The row with each mapped field put in; NAME may be a path into objects and lists: `response.0`."""
    values = {name: value for name, value in row.items() if name not in ONLY_WHEN_NAMED or "record" in row}
    for name, path in columns.items():
        values[name] = _follow(row, path, where)
    return Fields(values, where, columns)


def _follow(row: Mapping[str, Any], path: str, where: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise BadInput(
                f"{where}: there is no column '{path}'; there are {list_columns(row)}. Columns of only one "
                "of several sources are named in that source: PATH?FIELD=NAME,FIELD=NAME"
            )
    return value


def parse_row(shape: str, row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Parts:
    """What a row of that shape says, with the fields that every shape takes. Raises BadInput or Dropped."""
    cells = map_columns(row, columns, where)
    parts = SHAPES[shape].parse(cells)
    if shape == "accord records":
        return parts
    if "context" in columns and cells.has("context") and cells.text("context").strip():
        extra = cells.text("context")
        parts = replace(parts, prompts=tuple(_with_context(turns, extra) for turns in parts.prompts))
    if "system" in columns and cells.has("system") and cells.text("system").strip():
        system = (Turn("system", cells.text("system")),)
        parts = replace(parts, prompts=tuple(system + turns for turns in parts.prompts))
    given = {name: cells.text(name) for name in ("slice", "labeler", "source") if cells.has(name)}
    return replace(
        parts,
        slice=given.get("slice", parts.slice),
        labeler=given.get("labeler", parts.labeler),
        source=given.get("source", parts.source),
    )


def _with_context(turns: Turns, extra: str) -> Turns:
    return (*turns[:-1], Turn(turns[-1].role, f"{turns[-1].content}\n\n{extra}")) if turns else turns
