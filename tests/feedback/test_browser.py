"""The page in a real browser, by keyboard: every mode, drafts, undo, hostile text; skipped without Chromium."""

import re
import shutil
import subprocess
import sys

import pytest

from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.questions import Item
from accord.records import Comparison, Demonstration, Judgement
from tests.feedback.test_threats import PAYLOADS
from tests.fixtures.feedback import PASSWORD, comparison_item, prompt

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUESTION = "#question[data-mode]"


@pytest.fixture
def serve(tmp_path):
    """`serve(items)`: an invitation to a page that asks them, in a process of its own; `serve.said()`: the records."""
    store, running = str(tmp_path / "feedback.db"), []

    def start(items):
        database = Database(store, writes=True)
        Desk(database).add(items)
        database.close()
        command = [sys.executable, "-m", "accord", "collect", "--database", store, "--port", "0"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return [re.search(r"http://\S+/join/\S+|$", running[0].stdout.readline())[0] for _ in range(3)][2]

    def said():
        database = Database(store, writes=False)
        with database.read() as connection:
            found = [record for _, record in read_records(connection, last_event(connection))]
        database.close()
        return found

    start.said = said
    yield start
    for process in running:
        process.terminate()
        process.communicate()


@pytest.fixture
def page():
    """A page of Chromium that notes what it should not do: dialogs, errors, requests to others."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.noted = []
        opened.on("dialog", lambda dialog: (opened.noted.append("dialog"), dialog.dismiss()))
        opened.on("pageerror", lambda error: opened.noted.append(str(error)))
        opened.on("console", lambda message: opened.noted.append(message.text))
        opened.on(
            "request", lambda request: opened.noted.append(request.url) if "127.0.0.1" not in request.url else None
        )
        yield opened
        browser.close()


def join(page, link):
    page.goto(link)
    page.fill("[name=name]", "Ada")
    page.fill("[name=password]", PASSWORD)
    page.click("button.main")
    page.wait_for_selector(QUESTION)


def after(page, act):
    """Do something that ends with another page."""
    with page.expect_navigation():
        act()


def test_every_mode_by_keyboard(page, serve):
    items = [
        comparison_item("pair", ("x", "y"), ("helpful", "harmless")),
        comparison_item("three"),
        Item("demonstrate", prompt("write")),
        Item("safety", prompt("safe?"), ("bad",), ("harmless",), ("m",)),
        Item("edit", prompt("edit"), ("weak",), ("helpful",), ("m",)),
    ]
    join(page, serve(items))
    press = page.keyboard.press
    press("Enter")
    assert "missing" in page.text_content("#status")
    press("2")
    press("b")
    page.wait_for_selector("text=Draft kept.")
    page.reload()
    checked = page.eval_on_selector_all("input:checked", "all => all.map(one => one.value)")
    assert checked == ["2", "bad"], "a draft survives a reload"
    after(page, lambda: press("Enter"))
    for key in "213":
        press(key)
    after(page, lambda: press("Enter"))
    after(page, lambda: press("u"))
    ranks = page.eval_on_selector_all("select[data-rank]", "all => all.map(one => one.value)")
    assert ranks == ["2", "1", "3"], "undo brings it back as it was"
    after(page, lambda: press("Enter"))
    page.fill("textarea", "ideal")
    after(page, lambda: press("Control+Enter"))
    press("2")
    page.select_option("[name=severity]", "3")
    page.keyboard.press("Escape")
    after(page, lambda: press("Enter"))
    after(page, lambda: press("Backspace"))
    assert "No question" in page.text_content("main")
    after(page, lambda: press("u"))
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.noted == []
    kinds = [type(record) for record in serve.said()]
    assert kinds == [Comparison, Comparison, Comparison, Demonstration, Judgement]


def test_hostile_text_opens_no_dialog_and_sends_nothing(page, serve):
    payloads = [f"{payload}{end}" for payload in PAYLOADS for end in ("", " x", "\n", "\n\n```\nc\n```")]
    link = serve([Item("edit", prompt(payload), (payload,), ("helpful",), ("m",)) for payload in payloads])
    join(page, link)
    while page.query_selector(QUESTION):
        page.mouse.move(200, 300)
        after(page, lambda: page.click("#skip"))
    assert page.noted == []
