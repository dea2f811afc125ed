"""A real browser, and the page served to it from the test's own store. Skipped without Playwright or Chromium."""

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
import uvicorn

from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.talks import Talks
from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from accord.feedback.web.guard import RequestRates
from accord.feedback.web.replies import ReplyQueue
from tests.feedback.test_live import QUESTIONS, Parrot
from tests.fixtures.feedback import PASSWORD

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def address(tmp_path):
    """SQLite alone: the store has its own tests on PostgreSQL."""
    return str(tmp_path / "feedback.db")


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """`open_page(width, theme)`: a page of Chromium that notes what it should not do: dialogs, errors, other hosts."""
    contexts = []

    def make(width=1200, theme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        context.set_default_timeout(20_000)
        opened = context.new_page()
        opened.noted = []
        opened.on("dialog", lambda dialog: (opened.noted.append("dialog"), dialog.dismiss()))
        opened.on("pageerror", lambda error: opened.noted.append(str(error)))
        opened.on("console", lambda message: opened.noted.append(message.text))
        opened.on(
            "request", lambda request: opened.noted.append(request.url) if "127.0.0.1" not in request.url else None
        )
        return opened

    yield make
    for context in contexts:
        context.close()


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
def serve(desk, cheap_people):
    """`serve(…)`: a site over the test's store, with settings."""
    sites = []

    def make(responder=None, **settings):
        desk.lease, desk.clock.now = 1e6, 1e9
        sites.append(Site(desk, cheap_people, responder or Parrot(), **settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = os.environ.get("ACCORD_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(exist_ok=True)
    return path
