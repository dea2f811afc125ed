"""How good the labels of a store are: who agrees with whom, who leans to what, who is too fast.

Numbers about criteria and people rest on the random line of items alone (`store/selection.py`); who is excluded counts
for neither, but is told about.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from accord.evaluation.agreement import Answer, agreement, fused_and_separate
from accord.evaluation.checks import is_right
from accord.evaluation.raters import Leaning, Pace, Rater, beside_others, count_words, pairs_of
from accord.feedback.store.checks import right_answer, said_under
from accord.feedback.store.events import ANSWERED, standing
from accord.feedback.store.questions import Item, item_from_json
from accord.feedback.store.schema import EVENTS, ITEMS
from accord.feedback.store.selection import CHECK, RANDOM
from accord.records import content_hash

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

ANSWERABLE = ("compare", "safety")  # modes whose answers two people can agree on


@dataclass
class Collected:
    """What is known of one person so far."""

    paces: list[Pace] = field(default_factory=list)
    choices: list[Leaning] = field(default_factory=list)
    checks: list[bool] = field(default_factory=list)


def quality(connection: "Connection", until: int, *, newest: int = 0, fused: str = "", resamples: int = 500) -> Any:
    """All numbers at event `until`, for JSON; of the `newest` answers alone, 0 for all of them.

    `fused` names the criterion that asks for everything at once, to set it beside the others.
    """
    people: dict[int, Collected] = defaultdict(Collected)
    lines: dict[str, int] = defaultdict(int)
    answers: dict[str, list[Answer]] = defaultdict(list)
    about: dict[str, list[Answer]] = defaultdict(list)
    first = select(EVENTS.c.number).where(EVENTS.c.kind == ANSWERED, EVENTS.c.number <= until)
    older = first.order_by(EVENTS.c.number.desc()).offset(newest).limit(1)
    holds = standing(connection, until, (connection.execute(older).scalar() or 0) if newest else 0)
    for item, queue, event in _answers(connection, holds.events.values()):
        lines[queue] += 1
        person = people[event.person]
        if queue == CHECK:
            decision = holds.decided.get(event.item)
            right = right_answer(item, None if decision is None else holds.events[decision].body)
            person.checks.append(is_right(right, said_under(item, event.body)))
        elif queue == RANDOM:
            person.paces.append(_pace(item, event.body))
            person.choices += _choices(event.item, item, event.body)
            if event.person not in holds.excluded and item.mode in ANSWERABLE:
                texts = content_hash(item.mode, item.prompt.turns, item.replies)
                for criterion, said in zip(item.criteria, said_under(item, event.body), strict=True):
                    answers[criterion].append(Answer(event.item, str(event.person), said))
                    about[criterion].append(Answer(texts, str(event.person), said))
    agreed = _agreements(answers)
    lengths = _lengths({number: person for number, person in people.items() if number not in holds.excluded})
    report: dict[str, Any] = {
        "event": until,
        "answers": dict(lines),
        "criteria": {name: agreement(given, resamples=resamples) for name, given in answers.items()},
        "people": {},
    }
    for number in sorted(people):
        who, person = str(number), people[number]
        rater = Rater(person.paces, person.choices, agreed.get(who, ()), lengths.get(who, ()), person.checks)
        report["people"][who] = {"excluded": number in holds.excluded, **rater.report()}
    if fused:
        report["fused"] = fused_and_separate(about, fused, resamples=resamples) if fused in about else {}
    return report


def _answers(connection: "Connection", events: "Iterable[Row[Any]]") -> "Iterator[tuple[Item, str, Row[Any]]]":
    """The answers with their items and lines, in their order."""
    items: dict[int, tuple[Item, str]] = {}
    for event in (event for event in events if event.kind == ANSWERED):
        if event.item not in items:
            row = connection.execute(
                select(ITEMS.c.mode, ITEMS.c.body, ITEMS.c.queue).where(ITEMS.c.id == event.item)
            ).one()
            items[event.item] = item_from_json(row.mode, row.body), row.queue
        yield *items[event.item], event


def _pace(item: Item, body: Mapping[str, Any]) -> Pace:
    """What was new to a reader is the last turn and the replies."""
    texts = (item.prompt.turns[-1].content, *item.replies)
    words = sum(count_words(text) for text in texts)
    return Pace(words, body["seconds"], len(body.get("reply", "")), body.get("pasted", 0))


def _choices(number: int, item: Item, body: Mapping[str, Any]) -> list[Leaning]:
    lengths = [len(reply) for reply in item.replies]
    return [
        Leaning(number, criterion, *pair)
        for criterion, choice in body.get("choices", {}).items()
        for pair in pairs_of(body["order"], lengths, choice["ranks"])
    ]


def _agreements(answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[tuple[Hashable, float]]]:
    """Of every person and question: the share of the others who said the same."""
    table: dict[tuple[Hashable, str], dict[str, Hashable]] = defaultdict(dict)
    for criterion, given in answers.items():
        for one in given:
            table[one.question, criterion][one.labeler] = one.answer
    found: dict[str, list[tuple[Hashable, float]]] = defaultdict(list)
    for (question, _), said in table.items():
        for who, answer in said.items() if len(said) > 1 else ():
            same = sum(other == answer for other in said.values()) - 1
            found[who].append((question, same / (len(said) - 1)))
    return found


def _lengths(people: Mapping[int, Collected]) -> dict[str, list[tuple[Hashable, float]]]:
    """Of every person and question: how much more often than others they chose the longer reply."""
    said = {
        str(number): {choice[:3]: choice.longer for choice in person.choices if choice.longer is not None}
        for number, person in people.items()
    }
    return {who: [(question, gap) for (question, *_), gap in gaps] for who, gaps in beside_others(said).items()}
