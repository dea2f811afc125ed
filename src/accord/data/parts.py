"""What one row of preference data says, whatever its columns are called, and what a shape of columns is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from accord.data.columns import Fields
from accord.data.conversations import Turns
from accord.records import JudgementKind

# a battle is a comparison whose replies name the snapshots that wrote them: it rates them, and trains nothing
Kind = Literal["document", "prompt", "demonstration", "comparison", "judgement", "battle"]
RECORD_KINDS: tuple[Kind, ...] = ("document", "prompt", "demonstration", "comparison", "judgement")


class Ranking(NamedTuple):
    """Ranks of all replies (1 best). The criterion "" is the one that the reader asks for, the labeler "" the row's."""

    criterion: str
    ranks: tuple[int, ...]
    strength: float = 0.0
    order: tuple[int, ...] = ()
    probability: float = 1.0
    all_bad: bool = False
    labeler: str = ""


class Verdict(NamedTuple):
    """A judgement of reply `reply`; the criterion "" is the one that the reader asks for, the labeler "" the row's."""

    reply: int
    criterion: str
    kind: JudgementKind
    value: float
    category: str = ""
    severity: float = 0.0
    labeler: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """What one row says. `prompts[i]` is the prompt as `replies[i]` has it, so that a difference can be seen;
    `snapshots[i]` names what wrote `replies[i]`, where that is said; `first` are the places of
    replies that stand there for the first time, empty for all; `ideal` is the reply to imitate, -1 for none;
    `notes` are what was seen and does no harm."""

    text: str = ""
    prompts: tuple[Turns, ...] = ()
    replies: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    first: tuple[int, ...] = ()
    ideal: int = -1
    rankings: tuple[Ranking, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    slice: str = ""
    source: str = ""
    labeler: str = "human"
    stored: tuple[str, str] = ("", "")  # kind and id of a row that Accord wrote
    notes: tuple[str, ...] = ()


class Shape(NamedTuple):
    """`columns` must be there and `fits` a row; `optional` may be; `gives`: the kinds of record."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    gives: tuple[Kind, ...]
    parse: Callable[[Fields], Parts]
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True


CHOICE: tuple[Kind, ...] = ("prompt", "demonstration", "comparison")
NAMED: tuple[Kind, ...] = (*CHOICE, "battle")
SHOWN: tuple[Kind, ...] = ("prompt", "demonstration")
JUDGED: tuple[Kind, ...] = ("prompt", "judgement")
# what a judgement may say besides its value
LABELS = ("category", "severity")


def renamed(parse: Callable[[Fields], Parts], **names: str) -> Callable[[Fields], Parts]:
    """A shape's reader for columns of other names: `names[field]` is the column that holds the field."""
    return lambda cells: parse(cells.renamed(names))


def holds_text(*columns: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the cells of the columns are text."""
    return lambda row: all(isinstance(row[column], str) for column in columns)


def chosen_of_two(
    prompts: tuple[Turns, Turns],
    replies: tuple[str, str],
    first: float,
    strength: float = 0.0,
    all_bad: bool = False,
    verdicts: tuple[Verdict, ...] = (),
) -> Parts:
    """Two replies of which someone chose one: `first` is P(the first is better), ½ for a tie."""
    tied = first == 0.5
    ranks = (1, 1) if tied else (1, 2) if first > 0.5 else (2, 1)
    ranking = Ranking("", ranks, strength, (), 1.0 if tied else max(first, 1 - first), all_bad)
    ideal = -1 if tied or all_bad else int(first < 0.5)
    return Parts(prompts=prompts, replies=replies, ideal=ideal, rankings=(ranking,), verdicts=verdicts)


def category(cells: Fields, name: str) -> str:
    """The category of a judgement: text, or as PKU-SafeRLHF has it an object of those that may apply."""
    if not cells.has(name):
        return ""
    value = cells.get(name)
    if isinstance(value, dict):
        return "; ".join(str(key) for key, applies in value.items() if applies is True)
    return cells.text(name)


def severity(cells: Fields, name: str = "severity") -> float:
    return float(cells.number(name)) if cells.has(name) else 0.0


def probability(cells: Fields) -> float:
    """P(the first reply is better); 1 where none is given."""
    if not cells.has("probability"):
        return 1.0
    value = float(cells.number("probability"))
    if not 0 <= value <= 1:
        raise cells.wrong("probability", "a number from 0 to 1")
    return value
