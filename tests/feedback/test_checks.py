"""Check items: asked of everybody now and then, never read as labels; and who answers them wrongly is excluded."""

import json
from dataclasses import replace
from random import Random

import pytest
from sqlalchemy import func, select

from accord.cli import main
from accord.errors import BadInput
from accord.evaluation.checks import CheckRule, is_right
from accord.feedback.store.answers import CompareAnswer, SafetyAnswer
from accord.feedback.store.assignments import Declined
from accord.feedback.store.database import Database
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.questions import Item
from accord.feedback.store.reviews import Reviews, order_of
from accord.feedback.store.schema import EVENTS, ITEMS
from accord.feedback.store.selection import Selection
from tests.fixtures.feedback import comparison_item, prompt


def check_item(n):
    return comparison_item(f"check {n}", ("good", "bad"), known=((1, 2),))


def records(database, until=None):
    with database.read() as connection:
        found = read_records(connection, last_event(connection) if until is None else until)
        return [record for _, record in found]


def choose(desk, person, held, best):
    ranks = [1 if held.item.replies[reply] == best else 2 for reply in held.shown]
    answer = CompareAnswer(choices={"helpful": {"ranks": ranks}})
    return desk.submit(person, held.number, f"{person}-{held.number}", answer)


def answer_all(desk, person, right=lambda item: True):
    """Everything that comes; the better reply of a check item is the first, and of others too."""
    numbers = []
    while (held := desk.next(person)) is not None:
        choose(desk, person, held, held.item.replies[0 if right(held.item) else 1])
        numbers.append(held.item)
    return numbers


@pytest.fixture
def often(desk):
    """A desk on which every second question is a check item, and three decide."""
    desk.selection = Selection(checks=0.5, rule=CheckRule(least=3, right=0.7))
    desk._random = Random(0)
    return desk


@pytest.mark.parametrize(
    "known, said, right",
    [
        (((1, 2),), ((1, 2),), True),
        (((1, 2),), ((2, 1),), False),
        (((1, 2),), ((1, 1),), False),
        (((1, 2), (2, 1)), ((1, 2), (1, 2)), False),
        (((1, 2, 2),), ((1, 3, 2),), True),
        (((1, 2, 2),), ((2, 3, 1),), False),
        (((0,),), ((0,),), True),
        (((0,),), ((1,),), False),
    ],
)
def test_what_is_right(known, said, right):
    assert is_right(known, said) is right


def test_the_rule_asks_for_enough_check_items_first():
    rule = CheckRule(10, 0.7)
    assert not rule.excludes(0, 9) and rule.excludes(6, 10) and not rule.excludes(7, 10)


def test_check_items_come_in_their_share_to_everybody_once(often, join, database):
    ids = [join(name).id for name in "ab"]
    often.add([comparison_item(f"q{n}", ("x", "y"), overlap=2) for n in range(12)])
    often.add([check_item(n) for n in range(6)])
    for person in ids:
        seen = [item.prompt.turns[0].content for item in answer_all(often, person)]
        assert sum(text.startswith("check") for text in seen) == len({t for t in seen if t.startswith("check")}) > 0
    assert often.progress(ids[0])["wanted"] == often.progress(ids[0])["done"] == 24, (
        "check items are no work to be done"
    )
    assert {record.prompt.turns[0].content[0] for record in records(database)} == {"q"}, "and no answer is a label"


def test_nothing_is_handed_out_that_says_which_items_are_checks(often, join, browser):
    """A page of a check item has the same words and attributes as any other one."""
    import re

    texts = {}
    for n in range(40):
        often.add([comparison_item(f"q{n}", ("good", "bad"))])
    often.add([check_item(n) for n in range(6)])
    browser.sign_in("Ada")
    while len(texts) < 2:
        page = browser.get("/").text
        kind = "check" in page
        number = int(re.search(r'data-item="(\d+)"', page)[1])
        texts[kind] = re.sub(
            r"check \d|q\d+|data-(item|submission|csrf)=\S+|\bvalue=\"\w{64}\"|\d+ of \d+|good|bad", "", page
        )
        texts[kind] = re.sub(r'(value|max)="\d+"|\d+ answers of yours; ', "", texts[kind])
        browser.api("skip", item=number, submission=f"skipped-{number}", reason="other")
    assert texts[True] == texts[False]
    assert "known" not in json.dumps(browser.get("/me/export").json())


def test_who_answers_them_wrongly_is_excluded_and_others_are_asked(often, join, database):
    good, bad, third = (join(name).id for name in ("good", "bad", "third"))
    often.add([comparison_item(f"q{n}", ("x", "y")) for n in range(30)])
    often.add([check_item(n) for n in range(6)])
    answered = answer_all(often, bad, right=lambda item: False)
    checks = [item for item in answered if item.known]
    assert len(checks) == 3 and len(answered) > 3, "after the third one nothing more came"
    with database.read() as connection:
        before = last_event(connection)
        body = connection.execute(select(EVENTS.c.body).where(EVENTS.c.number == before)).scalar()
    assert body == {"did": "exclude", "of": bad, "right": 0, "answered": 3}
    assert records(database) == [] and often.next(bad) is None
    assert len(records(database, until=before - 1)) == len(answered) - 3, "a run that read them then reads them again"
    with pytest.raises(Declined, match="excluded"):
        often.undo(bad)
    answer_all(often, good)
    assert len(records(database)) == 30 and {r.labeler for r in records(database)} == {f"human:{good}"}
    assert often.progress(good)["done"] == 30
    with database.read() as connection:
        assert set(connection.execute(select(ITEMS.c.taken).where(ITEMS.c.queue == "random")).scalars()) == {1}
    assert often.next(third) is None or often.next(third).item.known


def test_an_admin_excludes_and_readmits_and_the_rule_begins_anew(often, join, database, people):
    boss, bad = join("boss", role="admin").id, join("bad").id
    often.add([comparison_item(f"q{n}", ("x", "y"), overlap=2) for n in range(30)])
    often.add([check_item(n) for n in range(4)])
    answered = answer_all(often, bad, right=lambda item: False)
    assert people.all()[1].excluded
    people.set_excluded(bad, False, by=boss)
    kept = [record for record in records(database) if record.labeler == f"human:{bad}"]
    assert len(kept) == len(answered) - 3 == often.progress(boss)["done"]
    while (held := often.next(bad)) is not None and not held.item.known:
        choose(often, bad, held, "x")
    if held is not None:
        choose(often, bad, held, "bad")
    assert not people.all()[1].excluded, "one more is too few to exclude again"
    people.set_excluded(bad, True, by=boss)
    assert records(database) == [] and often.progress(boss)["done"] == 0
    with pytest.raises(Declined, match="so already"):
        people.set_excluded(bad, True, by=boss)
    with pytest.raises(Declined, match="no such person"):
        people.set_excluded(99, True, by=boss)
    with database.read() as connection:
        said = select(EVENTS.c.body["did"].as_string()).where(
            EVENTS.c.kind == "administration", EVENTS.c.person == boss
        )
        assert list(connection.execute(said).scalars())[-2:] == ["readmit", "exclude"]


def test_undo_of_an_answer_to_a_check_item_takes_it_back(often, join, database):
    person = join("a").id
    often.add([check_item(n) for n in range(2)])
    often.selection = replace(often.selection, checks=1.0)
    held = often.next(person)
    choose(often, person, held, "bad")
    assert often.undo(person).number == held.number and often.progress(person) == {"mine": 0, "done": 0, "wanted": 0}
    again = often.next(person)
    often.submit(person, again.number, "again", CompareAnswer(choices={"helpful": {"ranks": [1, 1]}}))
    assert often.progress(person)["mine"] == 1


def test_reviewers_see_a_check_item_once_somebody_got_it_wrong(often, join):
    a, b = join("a").id, join("b").id
    often.selection = replace(often.selection, checks=1.0)
    often.add([check_item(0)])
    choose(often, a, often.next(a), "good")
    assert Reviews(often).next() is None
    choose(often, b, often.next(b), "bad")
    assert Reviews(often).next().known == {
        "choices": {"helpful": {"ranks": [1, 2] if order_of(check_item(0))[0] == 0 else [2, 1]}}
    }


def test_an_excluded_person_is_told(often, join, browser, people):
    often.add([comparison_item("q", ("x", "y"))])
    browser.sign_in("Ada")
    people.set_excluded(1, True, by=1)
    shown = browser.get("/")
    assert shown.status_code == 403 and "asked no more questions" in shown.text
    assert browser.get("/me").status_code == 200, "what is stored about them is theirs still"


@pytest.mark.parametrize(
    "item, why",
    [
        (replace(check_item(0), known=((1, 2, 3),)), "cannot be a check"),
        (replace(check_item(0), known=((1, 1),)), "cannot be a check"),
        (replace(check_item(0), known=((1, 2), (1, 2))), "cannot be a check"),
        (Item("edit", prompt("e"), ("weak",), ("helpful",), known=((1,),)), "cannot be a check"),
        (Item("safety", prompt("s"), ("x",), ("harmless",), known=((2,),)), "cannot be a check"),
        (comparison_item("q", score=float("nan")), "not finite"),
    ],
)
def test_what_has_no_known_answer_is_refused(desk, item, why):
    with pytest.raises(BadInput, match=why):
        desk.add([item])


def test_labels_of_a_source_become_known_answers(tmp_path, capsys):
    store, pairs, safe = tmp_path / "f.db", tmp_path / "pairs.jsonl", tmp_path / "safe.jsonl"
    rows = [{"prompt": f"p{n}", "chosen": "x", "rejected": "y"} for n in range(3)]
    rows.append({"prompt": "p2", "chosen": "y", "rejected": "x"})
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = [{"prompt": "s", "completion": "z", "is_safe": False}, {"prompt": "t", "completion": "z", "is_safe": True}]
    safe.write_text("".join(json.dumps(row) + "\n" for row in labels))
    words = ["collect", "import", "--database", str(store), "--known", "True"]
    assert main([*words, "--data", str(pairs), "--criterion", "helpful"]) == 0
    assert "2 new check items" in capsys.readouterr().out
    assert main([*words, "--data", str(safe), "--mode", "safety", "--criterion", "harmless"]) == 0
    database = Database(str(store), writes=False)
    with database.read() as connection:
        kept = connection.execute(select(ITEMS.c.queue, ITEMS.c.body)).all()
        assert connection.execute(select(func.count()).where(ITEMS.c.queue == "check")).scalar() == len(kept) == 4
    database.close()
    assert [row.body["known"] for row in kept] == [[[1, 2]], [[1, 2]], [[0]], [[1]]]
    wrong = {
        "two criteria": ["--criterion", "a", "--criterion", "b"],
        "overlap": ["--criterion", "a", "--overlap", "2"],
    }
    for more in wrong.values():
        assert main([*words, "--data", str(pairs), *more]) == 2


def test_a_judgement_can_be_checked(often, join):
    person = join("a").id
    often.selection = replace(often.selection, checks=1.0, rule=CheckRule(1, 0.5))
    often.add([Item("safety", prompt("s"), ("x",), ("harmless",), known=((0,),))])
    often.submit(person, often.next(person).number, "said-safe", SafetyAnswer(safe=True))
    with pytest.raises(Declined, match="excluded"):
        often.undo(person)
