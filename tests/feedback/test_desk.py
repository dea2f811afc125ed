"""Handing out and taking in: exact overlap, leases, repeated requests, undo, and the history as records."""

import random
import threading

import pytest
from sqlalchemy import func, select

from accord.errors import BadInput
from accord.feedback.store.answers import CompareAnswer, DemonstrateAnswer, EditAnswer, SafetyAnswer
from accord.feedback.store.assignments import Declined
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.questions import Item
from accord.feedback.store.schema import ASSIGNMENTS, EVENTS, ITEMS
from accord.feedback.store.submissions import Submission
from accord.records import Comparison, Demonstration, Judgement
from tests.fixtures.feedback import audit, comparison_item, prompt


def ranked(*ranks, criterion="helpful", **more):
    return CompareAnswer(choices={criterion: {"ranks": list(ranks), **more}})


def records(database, until=None):
    with database.read() as connection:
        found = read_records(connection, last_event(connection) if until is None else until)
        return [record for _, record in found]


def test_an_item_goes_to_as_many_people_as_it_asks_for(desk, join):
    a, b, c = (join(name).id for name in "abc")
    assert desk.add([comparison_item("q", overlap=2)]) == 1
    first, second = desk.next(a), desk.next(b)
    assert first.number == second.number
    assert desk.next(c) is None
    assert desk.next(a) == first, "who has it gets it again, in the same order"


def test_a_lease_that_ended_goes_to_somebody_else_and_its_answer_is_declined(desk, join, clock):
    a, b = join("a").id, join("b").id
    desk.add([comparison_item("q")])
    number = desk.next(a).number
    assert desk.next(b) is None
    clock.now += 101
    assert desk.next(b).number == number
    with pytest.raises(Declined, match="not yours"):
        desk.submit(a, number, "s1", ranked(1, 2, 3))
    desk.submit(b, number, "s2", ranked(1, 2, 3))
    assert desk.next(a) is None


def test_a_lease_that_ended_unnoticed_is_still_good(desk, join, clock):
    a = join("a").id
    desk.add([comparison_item("q")])
    number = desk.next(a).number
    clock.now += 101
    assert desk.submit(a, number, "s1", ranked(1, 2, 3))


def test_of_answers_that_come_at_one_time_each_gets_its_own(desk, join, database):
    """As if one after the other, though they are asked for and written together."""
    a, b = join("a", group="careful").id, join("b").id
    desk.add([comparison_item(name, overlap=2) for name in "pq"])
    one, two = desk.next(a), desk.next(b)
    assert one.number == two.number
    given = [
        Submission(a, one.number, "from-a", ranked(1, 2, 3)),
        Submission(b, one.number, "from-b-too-short", ranked(1, 2)),
        Submission(a, one.number, "from-a", ranked(1, 2, 3)),
        Submission(b, two.number, "from-b", ranked(3, 1, 2)),
        Submission(a, one.number, "from-a-again", ranked(2, 1, 3)),
        Submission(b, two.number, "from-a", ranked(3, 1, 2)),
        Submission(a, 2**31 - 1, "no-such-item", ranked(1, 2, 3)),
    ]
    told = database.write(lambda connection: desk._take_in(connection, given))
    first, second = told[0], told[3]
    assert (told[2], second) == (first, first + 1)
    refused = [str(told[place]) for place in (1, 4, 5, 6)]
    for found, why in zip(refused, ("3 ranks", "have answered", "used for something else", "not yours"), strict=True):
        assert why in found
    with database.read() as connection:
        audit(connection)
        kept = connection.execute(select(EVENTS).where(EVENTS.c.kind == "answer").order_by(EVENTS.c.number)).all()
    assert [(row.person, row.submission, row.body["group"]) for row in kept] == [
        (a, "from-a", "careful"),
        (b, "from-b", ""),
    ]
    for person, held, event in ((a, one, kept[0]), (b, two, kept[1])):
        places = {a: [1, 2, 3], b: [3, 1, 2]}[person]
        shown = event.body["order"]
        assert tuple(shown) == held.shown
        assert [event.body["choices"]["helpful"]["ranks"][reply] for reply in shown] == places


def test_a_repeated_submission_is_taken_once(desk, join, database):
    a, b = join("a").id, join("b").id
    desk.add([comparison_item("q", overlap=2)])
    number = desk.next(a).number
    desk.next(b)
    first = desk.submit(a, number, "s1", ranked(1, 2, 3))
    assert desk.submit(a, number, "s1", ranked(1, 2, 3)) == first
    with pytest.raises(Declined, match="something else"):
        desk.submit(b, number, "s1", ranked(1, 2, 3))
    with pytest.raises(Declined, match="take the answer back"):
        desk.submit(a, number, "s3", ranked(3, 2, 1))
    assert len(records(database)) == 1


def test_ranks_are_kept_in_the_order_of_the_item(desk, join, database):
    """Whatever order the page shows, who ranks `one` best has said so."""
    orders = set()
    for n in range(12):
        person = join(f"p{n}", group="careful").id
        desk.add([comparison_item(f"q{n}")])
        held = desk.next(person)
        orders.add(held.shown)
        shown = [held.item.replies[i] for i in held.shown]
        places = [1 + ["one", "three", "two"].index(reply) for reply in shown]
        desk.submit(person, held.number, f"s{n}", ranked(*places, strength=2))
    said = records(database)
    assert {r.ranks for r in said} == {(1, 3, 2)} and {r.strength for r in said} == {2.0}
    assert {r.order for r in said} == orders and len(orders) > 1
    assert said[0].labeler == f"human:careful:{1}" and said[0].prompt == prompt("q0")


@pytest.mark.parametrize(
    "answer, why",
    [
        (ranked(1, 2), "3 ranks"),
        (ranked(1, 3, 3), "without gaps"),
        (ranked(1, 1, 1, strength=1), "no strength"),
        (ranked(1, 2, 3, criterion="harmless"), "under each of helpful"),
    ],
)
def test_what_is_no_answer_is_declined(desk, join, answer, why, database):
    a = join("a").id
    desk.add([comparison_item("q")])
    with pytest.raises(Declined, match=why):
        desk.submit(a, desk.next(a).number, "s1", answer)
    assert not records(database)


def test_every_mode_gives_its_records(desk, join, database):
    a = join("a").id
    criteria = ("helpful", "harmless")
    desk.add(
        [
            comparison_item("c", ("x", "y"), criteria),
            Item("demonstrate", prompt("d")),
            Item("safety", prompt("s"), ("bad",), ("harmless",), ("m",)),
            Item("edit", prompt("e"), ("weak",), ("helpful",), ("m",)),
        ]
    )
    both = {"ranks": [1, 1], "all_bad": True}
    answers = {
        "compare": CompareAnswer(choices={"helpful": {"ranks": [1, 1]}, "harmless": both}),
        "demonstrate": DemonstrateAnswer(reply="like this"),
        "safety": SafetyAnswer(safe=False, category="weapons", severity=3),
        "edit": EditAnswer(reply="strong"),
    }
    for n in range(4):
        held = desk.next(a)
        desk.submit(a, held.number, f"s{n}", answers[held.item.mode])
    helpful, harmless, shown, judged, better, edited = records(database)
    assert (helpful.ranks, helpful.all_bad, harmless.all_bad) == ((1, 1), False, True)
    assert shown == Demonstration(prompt("d"), "like this")
    assert judged == Judgement(prompt("s"), "bad", "harmless", "safe", 0.0, "human:1", "weapons", 3.0)
    assert better == Demonstration(prompt("e"), "strong")
    assert edited == Comparison(prompt("e"), ("strong", "weak"), (1, 2), "helpful", "human:1", 0.0, (0, 1))


def test_undo_hands_the_item_out_again_and_the_history_keeps_both(desk, join, database):
    a = join("a").id
    desk.add([comparison_item("q"), comparison_item("r")])
    held = desk.next(a)
    answer = ranked(*[1 + place for place in range(3)], strength=3)
    event = desk.submit(a, held.number, "s1", answer)
    desk.next(a)
    again = desk.undo(a)
    assert (again.number, again.shown) == (held.number, held.shown)
    assert again.draft["choices"]["helpful"]["ranks"] == [1, 2, 3], "as the page showed it"
    assert records(database) == [] and len(records(database, until=event)) == 1
    desk.submit(a, held.number, "s2", ranked(1, 1, 1))
    assert [r.ranks for r in records(database)] == [(1, 1, 1)]
    assert len(records(database, until=event)) == 1, "what a run has read never changes"
    with database.read() as connection:
        assert connection.execute(select(func.sum(ITEMS.c.taken))).scalar() == 1, "the other one was given back"


def test_undo_of_nothing_and_of_a_skip(desk, join):
    a, b = join("a").id, join("b").id
    with pytest.raises(Declined, match="nothing"):
        desk.undo(a)
    desk.add([comparison_item("q")])
    number = desk.next(a).number
    desk.skip(a, number, "s1", "unclear")
    assert desk.skip(a, number, "s1", "unclear") and desk.next(a) is None
    assert desk.next(b).number == number
    with pytest.raises(Declined, match="others"):
        desk.undo(a)
    desk.skip(b, number, "s2", "unclear")
    assert desk.undo(a).number == number


def test_a_draft_lasts_and_renews_the_lease(desk, join, clock):
    a, b = join("a").id, join("b").id
    desk.add([Item("demonstrate", prompt("q"))])
    number = desk.next(a).number
    clock.now += 90
    desk.keep_draft(a, number, {"reply": "half"})
    clock.now += 90
    assert desk.next(b) is None and desk.next(a).draft == {"reply": "half"}


def test_expertise_is_asked_of_those_who_have_it(desk, join):
    doctor, other = join("a", tags=("medicine",)).id, join("b").id
    desk.add([comparison_item("q", tag="medicine")])
    assert desk.next(other) is None and desk.next(doctor) is not None


def test_the_same_question_is_added_once_and_an_unanswerable_one_is_refused(desk):
    assert desk.add([comparison_item("q"), comparison_item("q")]) == 1
    assert desk.add([comparison_item("q"), comparison_item("r")]) == 1
    for replies, why in (((" ", "two"), "empty or equal"), (("one",), "2 to 8")):
        with pytest.raises(BadInput, match=why):
            desk.add([comparison_item("z", replies)])
    with pytest.raises(BadInput, match="criterion"):
        desk.add([comparison_item("z", criteria=())])


def test_overlap_is_exact_with_many_people_at_once_and_some_who_leave(desk, join, database, clock):
    """10 people on 16 items for 3 each; one answer in five is never given."""
    ids = [join(f"p{n}").id for n in range(10)]
    desk.add([comparison_item(f"q{n}", overlap=3) for n in range(16)])

    def work(person, leaves):
        dice = random.Random(person)
        while (held := desk.next(person)) is not None:
            if leaves and dice.random() < 0.2:
                return
            desk.submit(person, held.number, f"{person}-{held.number}", ranked(1, 2, 3))

    for leaves in (True, False):
        threads = [threading.Thread(target=work, args=(person, leaves)) for person in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now += 1000
    with database.read() as connection:
        answered = select(func.count()).where(EVENTS.c.kind == "answer").group_by(EVENTS.c.item)
        assert list(connection.execute(answered).scalars()) == [3] * 16
        assert connection.execute(select(func.count()).select_from(ASSIGNMENTS)).scalar() == 48
        assert set(connection.execute(select(ITEMS.c.taken)).scalars()) == {3}
        numbers = list(connection.execute(select(EVENTS.c.number).order_by(EVENTS.c.number)).scalars())
    assert numbers == list(range(1, len(numbers) + 1)), "numbers have no gaps"


def test_progress_counts_mine_and_all(desk, join):
    a, b = join("a").id, join("b").id
    desk.add([comparison_item("q", overlap=2), comparison_item("r")])
    desk.submit(a, desk.next(a).number, "s1", ranked(1, 2, 3))
    desk.submit(b, desk.next(b).number, "s2", ranked(1, 2, 3))
    assert desk.progress(a) == {"mine": 1, "done": 2, "wanted": 3}
