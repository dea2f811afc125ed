"""Every mode in a real browser, by keyboard and by mouse: drafts, undo, conversations, reviews."""

import re
import subprocess
import sys

import pytest

from accord.feedback.store.database import Database
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.questions import Item
from accord.records import Comparison, Demonstration, Judgement, Turn
from tests.fixtures.browsing import after, contradict, preferring
from tests.fixtures.feedback import PASSWORD, comparison_item, prompt

pytestmark = pytest.mark.slow
QUESTION = "#question[data-mode]"


def test_every_mode_of_the_desk_by_keyboard(page, serve):
    site = serve()
    site.desk.add(
        [
            comparison_item("pair", ("x", "y"), ("helpful", "harmless")),
            comparison_item("three"),
            Item("demonstrate", prompt("write")),
            Item("safety", prompt("safe?"), ("bad",), ("harmless",), ("m",)),
            Item("edit", prompt("edit"), ("weak",), ("helpful",), ("m",)),
        ]
    )
    site.join(page)
    press = page.keyboard.press
    press("Enter")
    page.wait_for_selector("text=missing")
    press("d")
    assert page.get_attribute("#differences", "open") is not None and page.locator("mark").count() == 2
    press("g")
    assert page.get_attribute("#guidelines", "open") is not None
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
    press("Escape")
    after(page, lambda: press("Enter"))
    after(page, lambda: press("Backspace"))
    assert "No question" in page.text_content("main")
    after(page, lambda: press("u"))
    assert page.noted == []
    kinds = [type(record) for record in site.records()]
    assert kinds == [Comparison, Comparison, Comparison, Demonstration, Judgement]


def test_every_mode_of_the_desk_by_mouse(page, serve):
    site = serve(categories=("weapons",))
    site.desk.add(
        [
            comparison_item("pair", ("x", "y")),
            comparison_item("three"),
            Item("demonstrate", prompt("write")),
            Item("safety", prompt("safe?"), ("bad",), ("harmless",), ("m",)),
            Item("edit", prompt("edit"), ("weak",), ("helpful",), ("m",)),
        ]
    )
    site.join(page)
    page.click("#guidelines summary")
    page.click("text=A by far")
    page.click("#draft")
    page.wait_for_selector("text=Draft kept.")
    after(page, lambda: page.click("#submit"))
    for place, rank in enumerate("123"):
        page.select_option(f"[name=rank-0-{place}]", rank)
    after(page, lambda: page.click("#submit"))
    after(page, lambda: page.click("#undo"))
    after(page, lambda: page.click("#submit"))
    page.click("textarea")
    page.keyboard.type("ideal")
    after(page, lambda: page.click("#submit"))
    page.click("text=2 unsafe")
    page.select_option("[name=category]", "weapons")
    after(page, lambda: page.click("#submit"))
    page.fill("textarea", "strong")
    after(page, lambda: page.click("#submit"))
    page.click("text=Ada")
    page.click("text=I answer such questions")
    after(page, lambda: page.click("form[action$='/me/harmful'] button"))
    assert page.noted == []
    pair, three, ideal, judged, better, edited = site.records()
    assert pair.strength == 3.0 and sorted(three.ranks) == [1, 2, 3] and ideal.reply == "ideal"
    assert judged.category == "weapons" and better.reply == "strong" and edited.replies == ("strong", "weak")
    assert site.people.all()[0].opted_out


def test_a_question_that_comes_later_appears_by_itself(page, serve):
    site = serve()
    site.join(page)
    assert "No question" in page.text_content("main")
    after(page, lambda: site.desk.add([comparison_item("late", ("x", "y"))]))
    assert page.locator(".reply").count() >= 2 and page.noted == []


@pytest.mark.parametrize("mode", ["chat", "redteam"])
@pytest.mark.parametrize("by", ["keyboard", "mouse"])
def test_a_conversation(page, serve, mode, by):
    """Two turns, a draft, an undo, the end and its rating."""
    site = serve()
    site.join(page)
    press = page.keyboard.press

    def do(key, selector):
        after(page, lambda: press(key) if by == "keyboard" else page.click(selector))

    after(page, lambda: page.click(f"nav a[href$='/{mode}']"))
    page.keyboard.type("hello")
    page.wait_for_selector("text=Draft kept.")
    page.reload()
    assert page.input_value("textarea") == "hello"
    do("Control+Enter", "#send")
    page.wait_for_selector(QUESTION)
    shown = page.locator(".reply .said").all_text_contents()[:2]
    assert sorted(shown) == ["hello, badly", "hello, well"]
    if by == "keyboard":
        press("1")
    else:
        page.click("text=A by far")
    do("Enter", "#submit")
    assert page.locator(".turn.assistant .said").all_text_contents() == [shown[0]]
    page.fill("textarea", "more")
    if by == "keyboard":
        press("Escape")
        assert page.evaluate("document.activeElement.tagName") == "BODY"
    do("u", "#undo")
    assert page.locator("input:checked").input_value() == "1"
    do("Enter", "#submit")
    page.fill("textarea", "more")
    do("Control+Enter", "#send")
    page.wait_for_selector(QUESTION)
    if by == "keyboard":
        press("7")
    else:
        page.click("text=B by far")
    do("Enter", "#submit")
    if by == "keyboard":
        press("Escape")
    do("e", "#end")
    if by == "keyboard":
        press("3")
    else:
        page.click("text=3 mostly")
    page.fill("textarea", "because")
    do("Control+Enter", "#submit")
    assert page.input_value("textarea") == "" and page.noted == []
    first, second, rating = site.records()
    better = (1, 2) if mode == "chat" else (2, 1)
    assert first.ranks[first.replies.index(shown[0])] == better[0]
    assert [len(record.prompt.turns) for record in (first, second)] == [1, 3]
    assert (rating.criterion, rating.value) == ("attack" if mode == "redteam" else "conversation", 3.0)


@pytest.mark.parametrize("by", ["keyboard", "mouse"])
def test_a_review(page, serve, by):
    site = serve()
    contradict(site, comparison_item("q", ("x", "y"), overlap=2), [preferring("x"), preferring("y")])
    site.join(page, "Boss", role="reviewer")
    after(page, lambda: page.click("nav a[href$='/review']"))
    assert page.locator("#said tbody tr").count() == 2 and "Bea" not in page.text_content("main")
    press = page.keyboard.press
    after(page, lambda: press("Backspace") if by == "keyboard" else page.click("#later"))
    assert "Nothing is left" in page.text_content("main")
    after(page, lambda: page.click("main a"))
    if by == "keyboard":
        press("1")
    else:
        page.click("text=A by far")
    after(page, lambda: press("Enter") if by == "keyboard" else page.click("#submit"))
    (label,) = site.records()
    assert label.strength == 3.0 and page.noted == []


def test_a_conversation_with_snapshots_in_a_server_of_its_own(page, snapshots, tmp_path):
    """The program as people start it: two live replies, a choice, and the label in the store."""
    store = tmp_path / "feedback.db"
    command = [sys.executable, "-m", "accord", "collect", "--database", str(store), "--port", "0", "--mode", "chat"]
    command += ["--criterion", "helpful", "--snapshots", str(snapshots / "policy"), str(snapshots / "other")]
    with subprocess.Popen([*command, "--max_new_tokens", "8"], stdout=subprocess.PIPE, text=True) as served:
        try:
            link = [re.search(r"http://\S+/join/\S+|$", served.stdout.readline())[0] for _ in range(3)][2]
            page.goto(link)
            page.fill("[name=name]", "Ada")
            page.fill("[name=password]", PASSWORD)
            page.click("button.main")
            after(page, lambda: page.click("nav a[href$='/chat']"))
            page.keyboard.type("why the cat runs")
            after(page, lambda: page.keyboard.press("Control+Enter"))
            page.wait_for_selector(QUESTION, timeout=60_000)
            page.keyboard.press("1")
            after(page, lambda: page.keyboard.press("Enter"))
        finally:
            served.terminate()
    database = Database(str(store), writes=False)
    with database.read() as connection:
        ((_, label),) = read_records(connection, last_event(connection))
    database.close()
    assert label.strength == 3.0 and label.prompt.turns == (Turn("user", "why the cat runs"),)
