"""The questions of online rounds on the page: taken in as they come, once each, for people who do one thing."""

import threading
import time

import pytest
from pydantic import ValidationError

from accord.errors import BadInput
from accord.feedback.store.questions import Item
from accord.stages.collect import rounds
from accord.stages.collect.config import Collect
from accord.stages.collect.rounds import JUDGING, TRAINING, follow, read_questions, take_in, write_questions
from accord.stages.collect.run import greeting
from tests.fixtures.feedback import comparison_item


def test_questions_come_back_as_they_were_written(tmp_path):
    items = [
        comparison_item("q", tag=JUDGING, overlap=3, harmful=True),
        Item("safety", comparison_item("r").prompt, ("a",), ("b",)),
    ]
    write_questions(tmp_path / "round-1" / "questions.jsonl", items)
    assert read_questions(tmp_path / "round-1" / "questions.jsonl") == items


def test_what_nobody_could_answer_is_not_written(tmp_path):
    with pytest.raises(BadInput, match="empty or equal replies"):
        write_questions(tmp_path / "questions.jsonl", [comparison_item("q", replies=("one", "one"))])
    assert not (tmp_path / "questions.jsonl").exists()


def test_files_are_taken_in_once_and_new_ones_as_they_come(tmp_path, desk):
    known = set()
    write_questions(tmp_path / "round-1" / "annotate" / "questions.jsonl", [comparison_item("q", tag=TRAINING)])
    assert take_in(tmp_path, desk, known) == 1
    write_questions(tmp_path / "round-1" / "judge" / "first" / "questions.jsonl", [comparison_item("r", tag=JUDGING)])
    assert take_in(tmp_path, desk, known) == 1 and take_in(tmp_path, desk, known) == 0
    assert take_in(tmp_path, desk, set()) == 0, "a page that starts again asks nothing twice"


def test_who_labels_does_not_judge(tmp_path, desk, join):
    write_questions(tmp_path / "round-1" / "questions.jsonl", [comparison_item("q", tag=JUDGING)])
    take_in(tmp_path, desk, set())
    assert desk.next(join("ann", tags=(TRAINING,)).id) is None
    assert desk.next(join("ben", tags=(JUDGING,)).id) is not None


class App:
    """What of the page is asked for."""

    def __init__(self, desk, people):
        self.state = self.page = self
        self.desk, self.people = desk, people


def test_the_page_follows_a_run_until_it_ends(tmp_path, desk, people, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "EVERY", 0.01)
    stopped = threading.Event()
    thread = threading.Thread(target=follow, args=(tmp_path, App(desk, people), stopped))
    thread.start()
    write_questions(tmp_path / "round-1" / "questions.jsonl", [comparison_item("q"), comparison_item("r")])
    deadline = time.monotonic() + 30
    while "2 new questions" not in capsys.readouterr().out and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.set()
    thread.join(30)
    assert not thread.is_alive() and desk.progress(0)["wanted"] == 2


def test_a_broken_file_is_said_and_the_page_stays(tmp_path, desk, people, capsys):
    (tmp_path / "round-1").mkdir()
    (tmp_path / "round-1" / "questions.jsonl").write_text("{")
    follow(tmp_path, App(desk, people), threading.Event())
    assert "questions.jsonl:1: not valid JSON" in capsys.readouterr().out


def test_there_is_a_link_for_each_of_the_two_things(desk, people):
    app = App(desk, people)
    lines = greeting(Collect(rounds="runs/rounds"), app, 80)
    for tag in (TRAINING, JUDGING):
        (line,) = [line for line in lines if f"20 people for {tag}" in line]
        session = people.join(line.rpartition("/")[2], tag, "long enough for all")
        assert people.of_session(session).tags == (tag,)
    assert not any(line.startswith("to invite 20 people:") for line in lines)


def test_a_run_draws_its_replies_itself():
    with pytest.raises(ValidationError, match="leave --snapshots out"):
        Collect(rounds="runs/rounds", snapshots=["x"], criterion=["helpful"])
