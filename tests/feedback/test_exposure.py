"""Harmful items: who gets none, caps for a day, breaks after several in a row; and the time that people spent."""

import json
from dataclasses import replace

import pytest

from accord.cli import main
from accord.feedback.store.answers import DemonstrateAnswer
from accord.feedback.store.assignments import Declined
from accord.feedback.store.desk import Desk
from accord.feedback.store.exposure import DAY, Caps
from accord.feedback.store.questions import Item
from accord.feedback.store.talks import LiveQuestion, Talks
from accord.stages.collect.config import Collect, CollectImport
from tests.fixtures.feedback import prompt

HOUR = 3600.0


@pytest.fixture
def capped(database, clock):
    return Desk(database, lease=100.0, clock=clock, caps=Caps(a_day=5, in_a_row=2, pause=900.0))


def add(desk, harmful=20, harmless=0):
    desk.add(Item("demonstrate", prompt(f"bad {n}"), harmful=True) for n in range(harmful))
    desk.add(Item("demonstrate", prompt(f"good {n}")) for n in range(harmless))


def answer(desk, person):
    """Whether there was a harmful item, another or none; answered."""
    held = desk.next(person)
    if held is None:
        return None
    desk.submit(person, held.number, f"{person}-{held.number}", DemonstrateAnswer(reply="so", seconds=7))
    return held.item.prompt.turns[0].content.split()[0]


def test_who_wants_no_harmful_texts_gets_none(desk, join, people):
    ada = join("Ada").id
    add(desk, 1, 1)
    people.opt_out(ada, True)
    assert [answer(desk, ada) for _ in range(2)] == ["good", None]
    people.opt_out(ada, False)
    assert answer(desk, ada) == "bad"


def test_a_break_comes_after_several_in_a_row_and_other_questions_go_on(capped, join, clock):
    ada, bea = join("Ada").id, join("Bea").id
    add(capped, 6, 1)
    assert [answer(capped, ada) for _ in range(4)] == ["bad", "bad", "good", None]
    assert capped.exposure(ada).until == clock.now + 900
    assert answer(capped, bea) == "bad", "a break is each one's own"
    clock.now += 899
    assert answer(capped, ada) is None
    clock.now += 1
    assert answer(capped, ada) == "bad" and capped.exposure(ada).until == 0


def test_items_far_apart_are_in_no_row(capped, join, clock):
    ada = join("Ada").id
    add(capped)
    for _ in range(3):
        assert answer(capped, ada) == "bad"
        clock.now += 900


def test_a_day_has_its_cap(capped, join, clock):
    ada = join("Ada").id
    add(capped)
    first = clock.now
    for _ in range(5):
        assert answer(capped, ada) == "bad"
        clock.now += HOUR
    assert answer(capped, ada) is None and capped.exposure(ada).until == first + DAY
    clock.now = first + DAY
    assert answer(capped, ada) == "bad"


def test_what_was_skipped_or_taken_back_was_seen(capped, join):
    ada = join("Ada").id
    add(capped)
    held = capped.next(ada)
    capped.skip(ada, held.number, "skipped-it", "harmful")
    assert answer(capped, ada) == "bad"
    assert answer(capped, ada) is None
    capped.undo(ada)
    assert capped.next(ada) is not None, "what somebody holds they may finish"


def test_red_teaming_takes_breaks_too_and_loses_nothing(capped, join, clock, people):
    ada = join("Ada").id
    talks = Talks(capped, {"redteam": LiveQuestion(("harmless",), "worse"), "chat": LiveQuestion(("helpful",))})
    add(capped)
    answer(capped, ada), answer(capped, ada)
    talks.write(ada, "redteam", "attack", send=False)
    with pytest.raises(Declined, match="a_break"):
        talks.write(ada, "redteam", "attack", send=True)
    assert talks.look(ada, "redteam").text == "attack" and talks.write(ada, "chat", "hello", send=True)
    clock.now += 900
    number = talks.write(ada, "redteam", "attack", send=True)
    talks.put(number, talks.asked(number), (("a", ""), ("b", "")))
    people.opt_out(ada, True)
    assert talks.look(ada, "redteam").held.item.replies == ("a", "b")


def test_the_page_says_when_they_come_again_and_takes_the_choice(make_browser, people, capped, clock):
    from accord.feedback.web.app import make_page
    from accord.feedback.web.context import Settings
    from tests.feedback.conftest import Browser

    browser = Browser(make_page(capped, people, Settings(secret=b"s" * 32, help_line="call 1")))
    browser.people = people
    browser.sign_in("Ada")
    ada = people.all()[0].id
    add(capped)
    answer(capped, ada), answer(capped, ada)
    clock.now += 60
    assert "They come again in 14 minutes" in browser.get("/").text
    assert "checked" in browser.get("/me").text and "call 1" in browser.get("/me").text
    assert browser.post("/me/harmful", data={"csrf": browser.token()}).status_code == 200
    assert people.all()[0].opted_out and 'value="true" checked' not in browser.get("/me").text
    browser.post("/me/harmful", data={"csrf": browser.token(), "wanted": "true"})
    assert not people.all()[0].opted_out


@pytest.mark.parametrize(
    "slices, expected", [("harmful,red-team", True), ("", False), ("benign", False), ("harmful/fraud", False)]
)
def test_prompts_weigh_by_their_slice(slices, expected):
    for config in (
        CollectImport(data="d", criterion=["helpful"], harmful=slices),
        Collect.model_construct(harmful=slices),
    ):
        assert config.weighs(replace(prompt("q"), slice="harmful/theft")) is expected
        assert not config.weighs(replace(prompt("q"), slice="harmfully"))


def test_time_is_added_up_for_each_person_and_day(desk, join, clock, address, tmp_path):
    ada, bea = join("Ada").id, join("Bea").id
    add(desk, 4)
    answer(desk, ada), answer(desk, ada)
    held = desk.next(bea)
    desk.skip(bea, held.number, "skipped-it", "other", 5.5)
    clock.now += DAY
    answer(desk, ada)
    desk.undo(ada)
    out = tmp_path / "time.jsonl"
    assert main(["collect", "export", "--database", address, "--shape", "time", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    spent = [(row["person"], row["day"], row["seconds"], row["answers"], row["skips"]) for row in rows]
    assert spent == [(ada, "1970-01-01", 14.0, 2, 0), (ada, "1970-01-02", 7.0, 1, 0), (bea, "1970-01-01", 5.5, 0, 1)]
    assert "Ada" not in out.read_text(encoding="utf-8")
