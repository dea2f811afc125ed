"""The table of shapes: which columns make one, how a file's is told, and what one row of it says."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

from accord.data.columns import Fields
from accord.data.conversations import Dropped, Turns, is_null, list_columns
from accord.data.lists import LISTS, rankings
from accord.data.pairs import PAIRS
from accord.data.parts import RECORD_KINDS, Kind, Parts, Ranking, Shape, Verdict, probability
from accord.data.singles import SINGLES
from accord.data.suites import SUITES
from accord.data.votes import VOTES
from accord.errors import BadInput
from accord.records import JudgementKind, Turn

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
NEAREST = 5  # shapes that are named to whoever has none
# Columns of other media: a row that has something there is not its text alone.
MEDIA = ("images", "image", "videos", "video", "audios", "audio")


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
    ranked = rankings(cells.renamed({"responses": "replies"}))
    ranking = Ranking(
        cells.text("criterion"),
        ranked.rankings[0].ranks,
        cells.number("strength"),
        cells.whole_numbers("order"),
        probability(cells),
        cells.has("all_bad") and cells.flag("all_bad"),
    )
    named = cells.names("snapshots", len(ranked.replies)) if cells.has("snapshots") else ()
    return replace(
        parts,
        prompts=ranked.prompts,
        replies=ranked.replies,
        snapshots=named,
        ideal=ranked.ideal,
        rankings=(ranking,),
    )


def _judgement_kind(cells: Fields) -> JudgementKind:
    kind = cells.text("kind")
    for known in JUDGEMENT_KINDS:
        if kind == known:
            return known
    raise cells.wrong("kind", "safe, good or rating")


def _are_records(row: Mapping[str, Any]) -> bool:
    return isinstance(row["record"], str) and row["record"] in RECORD_KINDS


# Asked in this order; the first that fits is taken.
SHAPES: dict[str, Shape] = {
    "accord records": Shape(("record",), (), (*RECORD_KINDS, "battle"), _stored, _are_records),
    **PAIRS,
    **LISTS,
    **VOTES,
    **SUITES,
    **SINGLES,
}


class Head(NamedTuple):
    """A row that tells the shape of its file, and its columns that hold something."""

    cells: Fields
    filled: frozenset[str]


def _filled(cells: Fields) -> frozenset[str]:
    return frozenset(name for name, value in cells.values.items() if not is_null(value))


def recognise(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], kind: Kind | None, where: str) -> str:
    """The shape of a file, from its first rows; `kind` None takes any. Raises BadInput with what is there.

    A column counts where one of the rows has something in it: loaders fill a column that a row lacks with nulls.
    """
    _refuse_unknown(columns)
    heads = [Head(cells, _filled(cells)) for cells in (map_columns(row, columns, where) for row in rows)]
    fitting = [name for name, shape in SHAPES.items() if _fits(shape, heads, set(columns))]
    for name in fitting:
        if kind is None or kind in SHAPES[name].gives:
            return name
    wanted = f"{kind}s" if kind else "records"
    found = (
        f"; they look like '{fitting[0]}', which gives {', '.join(f'{k}s' for k in SHAPES[fitting[0]].gives)}"
        if fitting
        else ""
    )
    raise BadInput(
        f"{where}: no {wanted} can be read from the columns {list_columns(_names(rows))}{found}. "
        "Name other columns with --columns.FIELD NAME, for example --columns.prompt question. "
        f"Nearest shapes: {_nearest(heads, kind)}. docs/data.md has them all."
    )


def _nearest(heads: Sequence[Head], kind: Kind | None) -> str:
    """A few shapes that have more of their columns here than they lack, if any; each with those that it lacks."""
    there = set[str]().union(*(head.filled for head in heads))
    lacks = {
        name: [column for column in shape.columns if column not in there]
        for name, shape in reversed(SHAPES.items())  # of equals the plainer ones, which stand last
        if kind is None or kind in shape.gives
    }

    def far(name: str) -> tuple[int, int]:
        has = len(SHAPES[name].columns) - len(lacks[name])
        return len(lacks[name]) - has, -has

    near = sorted((name for name in lacks if lacks[name]), key=far)[:NEAREST]
    return "; ".join(f"{name} (lacks {', '.join(lacks[name])})" for name in near)


def _refuse_unknown(columns: Mapping[str, str]) -> None:
    known = sorted({name for shape in SHAPES.values() for name in (*shape.columns, *shape.optional)} | set(COMMON))
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'" if near else f"; known are {', '.join(known)}"
            raise BadInput(f"--columns.{name}: there is no field '{name}'{hint}.")


def _fits(shape: Shape, heads: Iterable[Head], named: set[str]) -> bool:
    """Whether a row has every column of the shape, which uses every column that was `named`."""
    return named <= {*shape.columns, *shape.optional, *COMMON} and any(
        head.filled.issuperset(shape.columns) and shape.fits(head.cells.values) for head in heads
    )


def _names(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    return {str(name): None for row in rows for name in row}


def map_columns(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Fields:
    """The row with each mapped field put in; NAME may be a path into objects and lists: `response.0`."""
    return Fields({**row, **{name: _follow(row, path, where) for name, path in columns.items()}}, where, columns)


def _follow(row: Mapping[str, Any], path: str, where: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        if is_null(value):  # a null on the way is a null at its end
            return None
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
    for name in MEDIA:
        if isinstance(row.get(name), list | dict | bytes) and row[name]:
            raise Dropped(f"column {name}")
    parts = SHAPES[shape].parse(cells)
    if row.get("tools"):
        cells.note("tools beside the conversation, left out")
    if "system" not in {*columns, *SHAPES[shape].optional} and isinstance(row.get("system"), str) and row["system"]:
        cells.note("column system, left out (--columns.system system puts it first)")
    parts = replace(parts, notes=(*cells.notes, *_seen(parts)))
    if shape == "accord records":
        return parts
    named = set(columns) - set(SHAPES[shape].optional)
    if "context" in named and cells.has("context") and cells.text("context").strip():
        extra = cells.text("context")
        parts = replace(parts, prompts=tuple(_with_context(turns, extra) for turns in parts.prompts))
    if "system" in named and cells.has("system") and cells.text("system").strip():
        system = (Turn("system", cells.text("system")),)
        parts = replace(parts, prompts=tuple(system + turns for turns in parts.prompts))
    said = {"slice", "labeler"} | ({"source"} & named)
    given = {name: cells.text(name) for name in said if cells.has(name)}
    return replace(
        parts,
        slice=given.get("slice", parts.slice),
        labeler=given.get("labeler", parts.labeler),
        source=given.get("source", parts.source),
    )


def _seen(parts: Parts) -> list[str]:
    turns = [turn for prompt in parts.prompts for turn in prompt]
    seen = {
        "tool turn": any(turn.role == "tool" for turn in turns),
        "empty assistant turn inside (not trained on)": any(
            turn.role == "assistant" and not turn.content.strip() for turn in turns
        ),
    }
    return [note for note, found in seen.items() if found]


def _with_context(turns: Turns, extra: str) -> Turns:
    return (*turns[:-1], Turn(turns[-1].role, f"{turns[-1].content}\n\n{extra}")) if turns else turns
