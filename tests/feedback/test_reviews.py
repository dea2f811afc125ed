"""Disagreements, what was said, and decisions: which items come, who sees what, what training reads."""

import re
from dataclasses import replace

import pytest

from accord.cli import main
from accord.data.sources import read_comparisons, read_judgements
from accord.feedback.store.answers import CompareAnswer, SafetyAnswer
from accord.feedback.store.assignments import Declined
from accord.feedback.store.checks import checked
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.quality import quality
from accord.feedback.store.questions import Item
from accord.feedback.store.reviews import Reviews, disagree, order_of
from tests.fixtures.feedback import comparison_item, prompt

PAIR = comparison_item("q", ("x", "y"), overlap=2)
SAFETY = Item("safety", prompt("s"), ("bad",), ("harmless",), ("m",), overlap=2)


def ranked(held, best, *, tie=False):
    """An answer in which the reply `best` is best, wherever the page shows it."""
    left = held.item.replies[held.shown[0]] == best
    ranks = [1, 1] if tie else [1, 2] if left else [2, 1]
    return CompareAnswer(choices={"helpful": {"ranks": ranks, "strength": 0 if tie else 2}})


def say(desk, person, answer_of):
    held = desk.next(person)
    return desk.submit(person, held.number, f"{person}-{held.number}", answer_of(held))


@pytest.fixture
def reviews(desk):
    return Reviews(desk)


@pytest.fixture
def two(join):
    return join("Ada", group="careful").id, join("Bea").id


@pytest.mark.parametrize(
    "ranks, found",
    [
        ([(1, 2), (2, 1)], True),
        ([(1, 2), (1, 2)], False),
        ([(1, 2), (1, 1)], False),
        ([(1, 2, 3), (1, 3, 2)], True),
        ([(1, 1, 2), (1, 2, 3)], False),
    ],
)
def test_opposite_orders_contradict_each_other(ranks, found):
    item = comparison_item("q", ("x", "y", "z")[: len(ranks[0])])
    assert disagree(item, [{"choices": {"helpful": {"ranks": list(given)}}} for given in ranks]) is found


def test_what_people_agree_on_is_not_shown_and_what_they_contradict_is(desk, reviews, two, database):
    desk.add([PAIR, comparison_item("same", ("x", "y"), overlap=2), SAFETY, comparison_item("alone", ("x", "y"))])
    for person, best, safe in zip(two, "xy", (True, False), strict=True):
        say(desk, person, lambda held, best=best: ranked(held, best))
        say(desk, person, lambda held: ranked(held, "x"))
        say(desk, person, lambda held, safe=safe: SafetyAnswer(safe=safe))
    first = reviews.next()
    assert first.held.item.prompt == PAIR.prompt
    assert [said.labeler for said in first.said] == [f"human:careful:{two[0]}", f"human:{two[1]}"]
    shown = [first.held.item.replies[number] for number in first.held.shown]
    best = [shown[said.answer["choices"]["helpful"]["ranks"].index(1)] for said in first.said]
    assert best == ["x", "y"], "ranks are those of the replies as the reviewer sees them"
    second = reviews.next(first.held.number)
    assert second.held.item.mode == "safety" and reviews.next(second.held.number) is None


def test_a_decision_is_read_in_place_of_the_answers(desk, reviews, two, join, address, tmp_path):
    desk.add([PAIR, comparison_item("same", ("x", "y"))])
    for person, best in zip(two, "xy", strict=True):
        say(desk, person, lambda held, best=best: ranked(held, best))
    say(desk, two[0], lambda held: ranked(held, "x"))
    boss = join("Boss", role="reviewer").id
    held = reviews.next().held
    event = reviews.decide(boss, held.number, "decided-once", ranked(held, "y"))
    assert reviews.decide(boss, held.number, "decided-once", ranked(held, "y")) == event
    assert reviews.next() is None
    source = f"feedback:{address}"
    found = {(record.labeler, record.ranks) for record in read_comparisons(source, "helpful").records}
    assert found == {(f"human:careful:{two[0]}", (1, 2)), (f"human:{boss}", (2, 1))}
    assert len(read_comparisons(f"{source}@{event - 1}", "helpful").records) == 3, "what a run has read stays"
    out = tmp_path / "answers.jsonl"
    words = ["--database", address, "--criterion", "helpful", "--decisions", "False", "--out", str(out)]
    assert main(["collect", "export", *words]) == 0
    assert {record.labeler for record in read_comparisons(str(out), "helpful").records} == {
        f"human:careful:{two[0]}",
        f"human:{two[1]}",
    }
    reviews.decide(boss, held.number, "decided-anew", ranked(held, "x"))
    found = {record.ranks for record in read_comparisons(source, "helpful").records}
    assert found == {(1, 2)}, "the last decision counts"


def test_what_cannot_be_decided_is_declined(desk, reviews, two, join):
    desk.add([PAIR, Item("demonstrate", prompt("d"))])
    boss = join("Boss", role="reviewer").id
    held = desk.next(two[0])
    with pytest.raises(Declined, match="nobody has answered"):
        reviews.decide(boss, held.number, "decided-once", ranked(held, "x"))
    desk.submit(two[0], held.number, "answered", ranked(held, "x"))
    with pytest.raises(Declined, match="other mode"):
        reviews.decide(boss, held.number, "decided-once", SafetyAnswer(safe=True))
    with pytest.raises(Declined, match="under each"):
        reviews.decide(boss, held.number, "decided-once", CompareAnswer(choices={}))
    with pytest.raises(Declined, match="nobody has answered"):
        reviews.decide(boss, 99, "decided-once", ranked(held, "x"))


def test_an_answer_that_is_taken_back_is_under_no_review(desk, reviews, two):
    desk.add([PAIR])
    for person, best in zip(two, "xy", strict=True):
        say(desk, person, lambda held, best=best: ranked(held, best))
    assert reviews.next() is not None
    desk.undo(two[1])
    assert reviews.next() is None


def test_a_reviewer_decides_on_the_page(desk, two, browser, address):
    desk.add([SAFETY])
    for person, safe in zip(two, (True, False), strict=True):
        more = {} if safe else {"category": "weapons <b>", "severity": 3}
        say(desk, person, lambda held, safe=safe, more=more: SafetyAnswer(safe=safe, **more))
    browser.sign_in("Boss", role="reviewer")
    text = browser.get("/review").text
    assert f"human:careful:{two[0]}" in text and "weapons &lt;b&gt;" in text and "severe" in text
    assert "Ada" not in text and "Bea" not in text and "<kbd>⌫</kbd>" in text
    item = int(re.search(r'data-item="(\d+)"', text)[1])
    assert f"/review?after={item}" in text and "Nothing is left" in browser.get(f"/review?after={item}").text
    said = {"item": item, "submission": "decided-once", "mode": "safety"}
    assert browser.api("decide", **said, answer={"safe": True, "severity": 2}).status_code == 409
    assert browser.api("decide", **said, answer={"safe": False, "severity": 2}).status_code == 200
    assert "Nothing is left" in browser.get("/review").text
    (label,) = read_judgements(f"feedback:{address}", "harmless").records
    assert (label.value, label.severity) == (0.0, 2.0)


def test_a_pair_shows_what_each_said_in_words(desk, two, browser):
    desk.add([PAIR, comparison_item("three", overlap=2)])
    for person, best in zip(two, "xy", strict=True):
        say(desk, person, lambda held, best=best: ranked(held, best))
        flip = (1, 2, 3) if best == "x" else (3, 2, 1)
        say(
            desk,
            person,
            lambda held, flip=flip: CompareAnswer(
                choices={"helpful": {"ranks": [flip[number] for number in held.shown]}}
            ),
        )
    browser.sign_in("Boss", role="reviewer")
    text = browser.get("/review").text
    table = text[text.index("<table") : text.index("</table")]
    assert "A clearly" in table and "B clearly" in table
    item = int(re.search(r'data-item="(\d+)"', text)[1])
    table = browser.get(f"/review?after={item}").text
    order = order_of(comparison_item("three"))
    told = " · ".join(f"{letter} {(1, 2, 3)[number]}" for letter, number in zip("ABC", order, strict=True))
    assert told in table[table.index("<table") : table.index("</table")]


def test_a_check_item_that_somebody_got_wrong_comes_with_the_known_answer(desk, reviews, two, join, browser, database):
    items = [comparison_item(text, ("x", "y"), known=((1, 2),)) for text in ("right", "wrong")]
    desk.add(items)
    desk.selection = replace(desk.selection, checks=1.0)
    for person, wrong in zip(two, "xy", strict=True):
        while held := desk.next(person):
            best = wrong if held.item.prompt.turns[0].content == "wrong" else "x"
            desk.submit(person, held.number, f"{person}-{held.number:06}", ranked(held, best))
    case = reviews.next()
    assert case.held.item.prompt.turns[0].content == "wrong" and len(case.said) == 2
    assert reviews.next(case.held.number) is None
    browser.sign_in("Boss", role="reviewer")
    text = browser.get("/review").text
    order = order_of(case.held.item)
    assert "known answer" in text and ("A 1 · B 2" if order[0] == 0 else "A 2 · B 1") in text
    boss = join("Bea2", role="reviewer").id
    with database.read() as connection:
        assert [checked(connection, person) for person in two] == [(2, 2), (1, 2)]
    reviews.decide(boss, case.held.number, "decided-once", ranked(case.held, "y"))
    with database.read() as connection:
        assert [checked(connection, person) for person in two] == [(1, 2), (2, 2)], "the decision is the answer now"
        people = quality(connection, last_event(connection))["people"]
    assert reviews.next() is None
    assert [people[str(person)]["checks"]["right"] for person in two] == [1, 2]
    with database.read() as connection:
        assert list(read_records(connection, last_event(connection))) == [], "check items are no labels"
