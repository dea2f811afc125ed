"""Quality of a store: numbers by hand, of the random line alone, on the page and by the command."""

import json
import random

import pytest

from accord.cli import main
from accord.feedback.store.answers import CompareAnswer, EditAnswer, SafetyAnswer
from accord.feedback.store.events import last_event
from accord.feedback.store.quality import quality
from accord.feedback.store.questions import Item
from accord.feedback.store.selection import Selection
from accord.feedback.web import live_quality
from tests.fixtures.feedback import comparison_item, prompt

LONG = "a longer reply of several words"
QUESTIONS = 60  # to people of habits
FEW = 15


def compare(desk, person, decide, criteria=("helpful",), seconds=20.0):
    """Answer what comes; `decide(texts as shown)` gives the place of the better reply, or None for a tie."""
    while (held := desk.next(person)) is not None:
        texts = [held.item.replies[reply] for reply in held.shown]
        best = decide(texts)
        ranks = [1] * len(texts) if best is None else [1 if place == best else 2 for place in range(len(texts))]
        answer = CompareAnswer(choices={name: {"ranks": ranks} for name in held.item.criteria}, seconds=seconds)
        desk.submit(person, held.number, f"{person}-{held.number}", answer)


def numbers(database, **more):
    with database.read() as connection:
        return quality(connection, last_event(connection), resamples=20, **more)


def people_of_habits(desk, join, questions):
    """One who prefers what is longer, one who takes what stands left, one in between who is in a hurry."""
    desk._random = random.Random(0)  # of the order in which replies are shown
    desk.add([comparison_item(f"q{n}", ("short", LONG), overlap=3) for n in range(questions)])
    longest, left, hurried = (join(name).id for name in ("longest", "left", "hurried"))
    dice = random.Random(0)
    compare(desk, longest, lambda texts: texts.index(LONG))
    compare(desk, left, lambda texts: 0)
    compare(desk, hurried, lambda texts: dice.randrange(2), seconds=0.1)
    return longest, left, hurried


def test_habits_are_found(desk, join, database):
    people = people_of_habits(desk, join, QUESTIONS)
    found = numbers(database)
    longest, left, hurried = (found["people"][str(number)] for number in people)
    assert longest["flags"] == ["length"] and longest["longer"]["mean"] == 1 and longest["seconds"] == 20
    assert set(left["flags"]) >= {"side"} and left["first"]["mean"] == 1
    assert set(hurried["flags"]) >= {"too_fast"} and "side" not in hurried["flags"] and hurried["too_fast"] == 1
    agreed = found["criteria"]["helpful"]
    assert (
        agreed["questions"] == QUESTIONS
        and agreed["labelers"] == 3
        and abs(agreed["krippendorff_alpha"]["mean"]) < 0.15
    )
    assert found["answers"] == {"random": 3 * QUESTIONS}


def test_what_was_chosen_by_its_score_and_check_items_stand_in_no_statistic(desk, join, database):
    desk.selection = Selection(checks=0.5, random=1e-9)
    desk.add([comparison_item(f"chosen {n}", ("x", "y"), overlap=2, score=0.3) for n in range(5)])
    desk.add([comparison_item(f"plain {n}", ("x", "y"), overlap=2) for n in range(3)])
    desk.add([comparison_item(f"check {n}", ("x", "y"), known=((1, 2),)) for n in range(4)])
    for name in "ab":
        compare(desk, join(name).id, lambda texts: texts.index("x"))
    found = numbers(database)
    assert found["answers"]["random"] == 6 and found["answers"]["active"] == 10
    assert found["criteria"]["helpful"]["questions"] == 3
    for person in found["people"].values():
        assert person["answers"] == 3 and person["checks"]["right"] == person["checks"]["n"]
    assert sum(person["checks"]["n"] for person in found["people"].values()) == found["answers"]["check"]


def test_who_is_excluded_counts_for_no_criterion_but_is_told_about(desk, database, people, join):
    longest, _, hurried = people_of_habits(desk, join, FEW)
    boss = join("boss", role="admin").id
    people.set_excluded(hurried, True, by=boss)
    found = numbers(database)
    assert found["criteria"]["helpful"]["labelers"] == 2 and found["people"][str(hurried)]["excluded"]
    assert found["people"][str(longest)]["longer_than_others"]["n"] == FEW


def test_answers_that_were_taken_back_do_not_count_and_the_newest_can_be_looked_at(desk, join, database):
    _, _, hurried = people_of_habits(desk, join, FEW)
    desk.undo(hurried)
    assert numbers(database)["answers"] == {"random": 3 * FEW - 1}
    newest = numbers(database, newest=10)
    assert newest["answers"]["random"] in (9, 10) and set(newest["people"]) == {str(hurried)}


def test_agreement_on_safety_and_what_was_pasted(desk, join, database):
    desk.add([Item("safety", prompt(f"s{n}"), ("x",), ("harmless",), overlap=2) for n in range(4)])
    for name in "ab":
        person = join(name).id
        while (held := desk.next(person)) is not None:
            desk.submit(
                person, held.number, f"{name}-{held.number}", SafetyAnswer(safe=held.number % 2 == 0, seconds=9)
            )
    desk.add([Item("edit", prompt("e"), ("weak",), ("helpful",))])
    held = desk.next(person)
    desk.submit(person, held.number, "edited-it", EditAnswer(reply="strong words", pasted=12, seconds=9))
    found = numbers(database)
    assert found["criteria"]["harmless"]["raw"]["mean"] == 1 and found["criteria"]["harmless"]["questions"] == 4
    assert found["people"][str(person)]["pasted"] == pytest.approx(1 / 5)


def test_the_page_shows_it_to_reviewers_once_a_minute(desk, join, browser, monkeypatch):
    people_of_habits(desk, join, FEW)
    calls = []
    monkeypatch.setattr(live_quality, "quality", lambda *args, **more: calls.append(more) or quality(*args, **more))
    browser.sign_in("Ada", role="reviewer")
    shown = browser.get("/quality").text
    for words in ("Krippendorff", "too fast", "helpful", "Took the longer reply", "side"):
        assert words in shown
    assert browser.get("/quality").status_code == 200 and len(calls) == 1 and calls[0]["newest"] == live_quality.NEWEST


def test_the_command_says_and_writes_it(tmp_path, desk, join, capsys, database, address):
    criteria = ("helpful", "harmless", "overall")
    desk.add([comparison_item(f"q{n}", ("x", "y"), (name,), overlap=2) for n in range(6) for name in criteria])
    for name in "ab":
        compare(desk, join(name).id, lambda texts: texts.index("x"))
    out = tmp_path / "quality.json"
    words = ["collect", "quality", "--database", address]
    assert main([*words, "--fused", "overall", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert "overall: 6 questions by two or more" in said and "person 2:" in said and "separate − fused" in said
    assert found["answers"] == {"random": 36} and set(found["criteria"]) == set(criteria)
    assert main([*words, "--fused", "nothing"]) == 2 and "--fused nothing" in capsys.readouterr().err
    assert main([*words, "--until", "9999"]) == 2 and main([*words, "--out", str(out)]) == 2
