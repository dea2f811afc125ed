"""Hostile text in a real browser: every payload in every place that shows text of models or people."""

import pytest

from accord.feedback.store.answers import CompareAnswer, SafetyAnswer
from accord.feedback.store.questions import Aid, Item, is_aided
from accord.records import Prompt, Turn
from tests.feedback.test_live import Parrot
from tests.fixtures.payloads import PAYLOADS

pytestmark = pytest.mark.slow
QUESTION = "#question[data-mode]"


class Hostile(Parrot):
    """Replies with payloads."""

    def replies(self, turns):
        return [("\n".join(PAYLOADS), "m"), ("\n\n".join(reversed(PAYLOADS)), "n")]


def test_hostile_text_opens_no_dialog_and_sends_nothing(page, serve):
    """Every payload in every place that shows text of models or people."""
    assert len(PAYLOADS) >= 200 and len(set(PAYLOADS)) == len(PAYLOADS)
    everything = "\n".join(PAYLOADS)
    site = serve(Hostile(), guidelines=everything, help_line=everything, title=PAYLOADS[0], categories=tuple(PAYLOADS))
    roles = ("system", "user", "assistant", "tool")
    turns = tuple(Turn(roles[n % 4], payload) for n, payload in enumerate(PAYLOADS))
    asked = Prompt((*turns, Turn("user", everything)), "", "")
    aids = tuple(Aid(n % 2, payload) for n, payload in enumerate(PAYLOADS))
    pair = Item(
        "compare", asked, (everything, everything + "!"), tuple(PAYLOADS[:40]), ("m", "n"), overlap=99, aids=aids
    )
    while not is_aided(pair, len(site.people.all()) + 1):
        site.person(f"P{len(site.people.all())}")
    site.desk.add([pair])
    site.join(page, "' onmouseover=alert(1) <img src=x onerror=alert(1)>", role="admin")
    ada = site.people.all()[-1].id

    def look(path):
        page.goto(site.base + path)
        for height in range(100, 900, 100):
            page.mouse.move(300, height)
        for _ in range(12):
            page.keyboard.press("Tab")
        page.wait_for_timeout(100)
        assert page.noted == [], path

    look("/")
    assert page.locator(".turn").count() == len(PAYLOADS) + 1 and page.locator(".aid").count() == len(PAYLOADS)
    held = site.desk.next(ada)
    site.desk.keep_draft(ada, held.number, {"choices": {PAYLOADS[0]: {"ranks": [1, 2]}}, "reply": everything})
    look("/")
    site.desk.skip(ada, held.number, "skip-this-one", "other")
    for n, mode in enumerate(("edit", "safety", "demonstrate")):
        replies = () if mode == "demonstrate" else (everything,)
        site.desk.add([Item(mode, asked, replies, ("helpful",) if replies else (), ("m",) * len(replies))])
        held = site.desk.next(ada)
        look("/")
        site.desk.keep_draft(ada, held.number, {"reply": everything, "category": everything})
        look("/")
        site.desk.skip(ada, held.number, f"skip-{n}-{mode}", "other")
    for name, (verdict, category) in {"Yes": (True, ""), "No": (False, PAYLOADS[0][:80])}.items():
        site.desk.add([Item("safety", asked, ("so\n" + everything,), ("harmless",), ("m",), overlap=2)])
        person = site.person(name)
        while held := site.desk.next(person, ("safety",)):
            said = SafetyAnswer(safe=verdict, category=category)
            site.desk.submit(person, held.number, f"by-{name}-{held.number:05}", said)
    look("/review")
    assert page.locator("#said").count() == 1
    talks = site.app.state.page.replies.talks
    for mode in ("chat", "redteam"):
        talks.write(ada, mode, everything[:20_000], send=False)
        look(f"/{mode}")
        talks.fail(talks.write(ada, mode, everything[:20_000], send=True), everything)
        number = talks.write(ada, mode, everything[:20_000], send=True)
        talks.fail(number, everything)
        look(f"/{mode}")
        talks.write(ada, mode, everything[:20_000], send=True)
        page.goto(f"{site.base}/{mode}")
        page.wait_for_selector(QUESTION)
        look(f"/{mode}")
        page.keyboard.press("Escape")
        held = talks.look(ada, mode).held
        ranks = {"ranks": [1, 2], "strength": 1}
        site.desk.submit(
            ada, held.number, f"chose-{mode}", CompareAnswer(choices=dict.fromkeys(held.item.criteria, ranks))
        )
        look(f"/{mode}")
        talks.end(ada, mode)
        held = talks.look(ada, mode).held
        site.desk.keep_draft(ada, held.number, {"rating": 1, "comment": everything})
        look(f"/{mode}")
    for path in ("/people", "/me", f"/join/{'x' * 10}%3Cscript%3Ealert(1)%3E", "/login"):
        look(path)
