"""Live conversations through the routes: both replies at once, a server that goes on answering, models that fail."""

import re
import threading
import time

import pytest

from accord.errors import BadInput
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.talks import LiveQuestion, Talks
from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from accord.feedback.web.replies import ReplyQueue
from tests.feedback.conftest import Browser
from tests.fixtures.feedback import PASSWORD

QUESTIONS = {"chat": LiveQuestion(("helpful",)), "redteam": LiveQuestion(("harmless",), "worse")}


class Parrot:
    """Replies with what was said, once it may; or fails."""

    def __init__(self):
        self.may, self.begun, self.error = threading.Event(), threading.Event(), None
        self.may.set()

    def replies(self, turns):
        self.begun.set()
        assert self.may.wait(30)
        if self.error:
            raise self.error
        return [(f"{turns[-1].content}, {word}", f"SECRET-{word}") for word in ("well", "badly")]


@pytest.fixture
def parrot():
    return Parrot()


@pytest.fixture
def live(desk, people, parrot):
    """`live()`: a browser of a page with conversations; two may wait."""

    def make(most=2):
        replies = ReplyQueue(Talks(desk, QUESTIONS), parrot, most)
        browser = Browser(make_page(desk, people, Settings(secret=b"s" * 32), replies))
        browser.people = people
        return browser

    yield make
    parrot.may.set()


def replied(browser, mode):
    """The page, once the replies are there."""
    for _ in range(600):
        if not browser.get(f"/api/talk?mode={mode}").json()["waiting"]:
            return browser.get(f"/{mode}").text
        time.sleep(0.02)
    raise AssertionError("no replies came")


def question(text):
    keys = {"item": "data-item", "submission": "data-submission", "mode": "data-mode"}
    found = {key: re.search(rf'{name}="([^"]*)"', text)[1] for key, name in keys.items()}
    return {**found, "item": int(found["item"])}


@pytest.mark.parametrize("mode, criterion, asked", [("chat", "helpful", "better"), ("redteam", "harmless", "worse")])
def test_a_conversation_from_the_first_word_to_the_rating(live, database, mode, criterion, asked):
    browser = live().sign_in("Ada")
    first = browser.get(f"/{mode}").text
    assert f"Choose the {asked} one" in first and f'href="/{mode}"' in first
    assert browser.api("say", mode=mode, text="hello <b>", send=True).status_code == 200
    text = replied(browser, mode)
    assert "hello &lt;b&gt;, well" in text and "hello &lt;b&gt;, badly" in text and "SECRET" not in text
    assert ("more harmful" in text) == (mode == "redteam") and "<kbd>7</kbd>" in text and "<kbd>U</kbd>" in text
    left = text.index("b&gt;, well") < text.index("b&gt;, badly")
    well = {"ranks": [1, 2] if left else [2, 1], "strength": 3}
    assert browser.api("answer", **question(text), answer={"choices": {criterion: well}}).status_code == 200
    assert "hello &lt;b&gt;, well" in browser.get(f"/{mode}").text and "data-item" not in browser.get(f"/{mode}").text
    assert browser.api("end", mode=mode).json() == {"to": f"/{mode}"}
    text = browser.get(f"/{mode}").text
    assert question(text)["mode"] == "rate" and "<kbd>4</kbd>" in text
    assert browser.api("answer", **question(text), answer={"rating": 4, "comment": "so"}).status_code == 200
    assert browser.api("undo").json()["to"] == f"/{mode}" and 'value="4" checked' in browser.get(f"/{mode}").text
    with database.read() as connection:
        (label,) = [record for _, record in read_records(connection, last_event(connection))]
    assert label.ranks[label.replies.index("hello <b>, well")] == (2 if mode == "redteam" else 1)


def test_nothing_is_shown_before_both_replies_are_whole_and_the_server_goes_on(live, parrot):
    browser = live().sign_in("Ada")
    parrot.may.clear()
    browser.api("say", mode="chat", text="hello", send=True)
    assert parrot.begun.wait(30)
    text = browser.get("/chat").text
    assert "data-waiting" in text and "hello" in text and "data-place" not in text
    assert browser.get("/api/talk?mode=chat").json() == {"waiting": True, "before": 0}
    assert browser.get("/healthz").json() == {"status": "ok"}
    parrot.may.set()
    assert replied(browser, "chat").count("data-place") == 2


@pytest.mark.parametrize(
    "error, told", [(RuntimeError("CUDA"), "The model did not answer."), (BadInput("too long <i>"), "too long &lt;i")]
)
def test_a_model_that_fails_says_so_and_what_was_written_is_kept(live, parrot, error, told, capsys):
    browser = live().sign_in("Ada")
    parrot.error = error
    browser.api("say", mode="chat", text="hello", send=True)
    text = replied(browser, "chat")
    assert told in text and "What you wrote is kept" in text and "hello</textarea>" in text
    assert "CUDA" not in text and ("CUDA" in capsys.readouterr().err) == isinstance(error, RuntimeError)
    parrot.error = None
    browser.api("say", mode="chat", text="hello", send=True)
    assert "hello, well" in replied(browser, "chat"), "the thread that failed goes on"


def test_too_many_do_not_wait_and_keep_what_they_wrote(live, parrot):
    first, second, third = (live_browser.sign_in(name) for live_browser, name in zip(several(live), "abc", strict=True))
    parrot.may.clear()
    first.api("say", mode="chat", text="one", send=True)
    assert parrot.begun.wait(30)
    assert second.api("say", mode="chat", text="two", send=True).status_code == 200
    assert second.get("/api/talk?mode=chat").json() == {"waiting": True, "before": 1}
    full = third.api("say", mode="chat", text="three", send=True)
    assert full.status_code == 409 and "Too many conversations" in full.json()["problem"]
    assert "three</textarea>" in third.get("/chat").text
    parrot.may.set()
    assert "two, well" in replied(second, "chat")


def several(live):
    """Three browsers of one page on which one may wait."""
    first = live(1)
    others = [Browser(first.app), Browser(first.app)]
    for other in others:
        other.people = first.people
    return [first, *others]


def test_a_server_that_was_started_again_goes_on(live, desk, people):
    browser = live().sign_in("Ada")
    person = people.all()[0].id
    Talks(desk, QUESTIONS).write(person, "chat", "hello", send=True)  # by a server that is no more
    assert "data-waiting" in browser.get("/chat").text
    assert "hello, well" in replied(browser, "chat")


def test_without_a_model_there_are_no_conversations(browser, desk):
    browser.sign_in("Ada")
    assert browser.get("/chat").status_code == browser.get("/redteam").status_code == 404
    assert browser.api("say", mode="chat", text="x", send=True).status_code == 404
    assert 'href="/chat"' not in browser.get("/").text
    assert browser.api("say", mode="compare", text="x", send=True).status_code == 422


def test_a_draft_is_kept_and_an_answer_of_another_form_is_refused(live):
    browser = live().sign_in("Ada")
    assert browser.api("say", mode="chat", text="half", send=False).status_code == 200
    assert "half</textarea>" in browser.get("/chat").text
    assert browser.api("say", mode="chat", text=" ", send=True).status_code == 409
    browser.api("say", mode="chat", text="whole", send=True)
    text = replied(browser, "chat")
    assert browser.api("answer", **question(text), answer={"choices": {}}).status_code == 409
    assert browser.api("answer", **question(text), answer={"rating": 3}).status_code == 422
    assert browser.api("end", mode="chat").status_code == 409


def test_nul_is_refused_before_a_database_meets_it(live):
    """PostgreSQL answers NUL in a text with an error, which was a 500."""
    browser = live().sign_in("Ada", role="admin")
    with_nul = "be\x00fore"
    said = browser.api("say", mode="chat", text=with_nul, send=False)
    named = browser.post("/login", data={"csrf": browser.token(), "name": with_nul, "password": PASSWORD})
    words = {"csrf": browser.token(), "role": "annotator", "group": with_nul}
    invited = browser.post("/people/invite", data=words)
    for answer in (said, named, invited):
        assert answer.status_code == 422 and "NUL" in answer.text, answer.text
