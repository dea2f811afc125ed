"""How every page looks, wide and narrow, light and dark: nothing sticks out, and axe-core finds nothing serious.

Pictures go to $ACCORD_SCREENSHOTS, else to pytest's folder.
"""

import pytest

from accord.feedback.store.answers import SafetyAnswer
from accord.feedback.store.questions import WHOLE, Aid, Item, is_aided
from tests.fixtures.browsing import after, contradict, preferring
from tests.fixtures.chromium import LOOKS, serious_faults
from tests.fixtures.feedback import comparison_item, prompt

pytestmark = pytest.mark.slow
CODE = "```python\nprint('a line of code that is too long for any phone', 1 + 1)\n```"


def stations(site, page):
    """Every kind of page in turn, by its name."""
    item = comparison_item(
        f"Explain to me why the sky is blue.\n{CODE}",
        ("It is blue because of " + "short waves " * 30, "Light of short waves is scattered most. שלום"),
        ("helpful", "harmless"),
        overlap=9,
        aids=(Aid(0, "The first reply repeats itself."), Aid(WHOLE, "Neither names Rayleigh.")),
    )
    contradict(site, Item("safety", prompt("r"), ("bad",), ("harmless",), ("m",), overlap=2), [safe, unsafe])
    contradicted = comparison_item("q", ("one reply here", "another reply here"), overlap=2)
    others = [site.person(name) for name in ("Dee", "Eve")]
    site.desk.add([contradicted])
    for person, reply in zip(others, contradicted.replies, strict=True):
        held = site.desk.next(person)
        site.desk.submit(person, held.number, f"by-{person}-{held.number}", preferring(reply)(held))
    site.desk.add([item])
    page.goto(f"{site.base}/login")
    yield "sign"
    names = iter(f"A{n}" for n in range(100))
    while not is_aided(item, len(site.people.all()) + 1):
        site.person(next(names))
    site.join(page, "Ada", role="admin")
    page.wait_for_selector(".aid")
    page.click("#differences summary")
    yield "pair"
    for mode_item in (
        comparison_item("three", ("one", "two " * 40, "three")),
        Item("demonstrate", prompt("write")),
        Item("safety", prompt("safe?"), ("bad",), ("harmless",), ("m",)),
        Item("edit", prompt("edit"), ("weak",), ("helpful",), ("m",)),
    ):
        after(page, lambda: page.click("#skip"))
        after(page, lambda new=mode_item: site.desk.add([new]))  # which the page shows by itself
        yield mode_item.mode if mode_item.mode != "compare" else "three"
    after(page, lambda: page.click("#skip"))
    yield "done"
    for mode in ("chat", "redteam"):
        site.responder.may.set()
        page.goto(f"{site.base}/{mode}")
        yield f"{mode}-begin"
        page.fill("textarea", "hello, what can you do for me?")
        site.responder.may.clear()
        after(page, lambda: page.click("#send"))
        page.wait_for_selector("text=are being written")
        yield f"{mode}-waiting"
        site.responder.may.set()
        page.wait_for_selector("#question[data-mode]")
        yield f"{mode}-choice"
        page.click("text=A by far")
        after(page, lambda: page.click("#submit"))
        yield f"{mode}-next"
        after(page, lambda: page.click("#end"))
        yield f"{mode}-rating"
    page.goto(f"{site.base}/review")
    yield "review-safety"
    after(page, lambda: page.click("#later"))
    yield "review-pair"
    for name in ("people", "me", "nowhere"):
        page.goto(f"{site.base}/{name}")
        yield name


def safe(held):
    return SafetyAnswer(safe=True)


def unsafe(held):
    return SafetyAnswer(safe=False, category="weapons", severity=3)


@pytest.mark.parametrize("width, theme", LOOKS, ids=[f"{width}-{theme}" for width, theme in LOOKS])
def test_every_page_is_accessible_and_fits(open_page, serve, pictures, width, theme):
    """axe-core finds nothing serious, nothing is wider than the screen, and there is a picture of each."""
    page = open_page(width, theme)
    site = serve(guidelines="Read *everything*.", help_line="call 1", categories=("weapons", "fraud"))
    found = {}
    for name in stations(site, page):
        page.screenshot(path=pictures / f"{name}-{width}-{theme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if serious := serious_faults(page):
            found[name] = serious
    assert found == {}
    assert [note for note in page.noted if "404" not in note] == []
