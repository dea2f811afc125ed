"""A real browser, and the page served to it from the test's own store. Skipped without Playwright or Chromium."""

import socket
import threading

import pytest
import uvicorn

from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.talks import Talks
from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from accord.feedback.web.guard import RequestRates
from accord.feedback.web.replies import ReplyQueue
from tests.feedback.test_live import QUESTIONS, Parrot
from tests.fixtures.chromium import chromium, open_page, pictures
from tests.fixtures.feedback import PASSWORD

__all__ = ["chromium", "open_page", "pictures"]


@pytest.fixture
def address(tmp_path):
    """SQLite alone: the store has its own tests on PostgreSQL."""
    return str(tmp_path / "feedback.db")


@pytest.fixture
def page(open_page):
    return open_page()


class Site:
    """A page that is served while a test runs; its clocks and people are those of the test."""

    def __init__(self, desk, people, responder, **settings):
        self.desk, self.people, self.responder = desk, people, responder
        replies = ReplyQueue(Talks(desk, QUESTIONS), responder)
        self.app = make_page(desk, people, Settings(secret=b"s" * 32, **settings), replies)
        self.app.state.doors = self.app.state.clicks = RequestRates(10_000, 0.001)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", ws="none"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def join(self, page, name="Ada", role="annotator"):
        """Join in a browser, by the form."""
        page.goto(f"{self.base}/join/{self.people.invite(role, by=None)}")
        page.fill("[name=name]", name)
        page.fill("[name=password]", PASSWORD)
        page.click("button.main")
        page.wait_for_selector("nav a")
        page.wait_for_load_state()

    def person(self, name):
        """The number of somebody who joins without a browser."""
        return self.people.of_session(self.people.join(self.people.invite("annotator", by=None), name, PASSWORD)).id

    def records(self):
        with self.desk.database.read() as connection:
            return [record for _, record in read_records(connection, last_event(connection))]

    def close(self):
        self.responder.may.set()
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def serve(desk, people):
    """`serve(…)`: a site over the test's store, with settings."""
    sites = []

    def make(responder=None, **settings):
        desk.lease, desk.clock.now = 1e6, 1e9
        sites.append(Site(desk, people, responder or Parrot(), **settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()
