"""The page through its routes: signing in, every mode, keys on the buttons, drafts, undo, words, progress."""

import json
import re

import pytest

from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.questions import Item
from accord.feedback.web.context import HERE, languages, pieces
from tests.fixtures.feedback import PASSWORD, comparison_item, prompt

CRITERIA = ("helpful", "kind to cats")
TEMPLATES = sorted((HERE / "templates").glob("*.html"))


def attribute(text, name):
    return re.search(rf'{name}="([^"]*)"', text)[1]


def held(browser):
    """The question on the page, as the script reads it."""
    text = browser.get("/").text
    return {
        "item": int(attribute(text, "data-item")),
        "submission": attribute(text, "data-submission"),
        "mode": attribute(text, "data-mode"),
    }, text


def records(database):
    with database.read() as connection:
        return [record for _, record in read_records(connection, last_event(connection))]


def test_somebody_joins_by_a_link_answers_and_leaves(browser, people, desk, database):
    desk.add([comparison_item("q", ("x", "y"), CRITERIA)])
    assert browser.get("/", follow_redirects=False).headers["location"] == "/login"
    browser.sign_in("Ada")
    question, text = held(browser)
    assert "Which is more helpful?" in text and "kind to cats" in text
    left = text.index('<p class="said" dir="auto">x') < text.index('<p class="said" dir="auto">y')
    choice = {"ranks": [1, 2] if left else [2, 1], "strength": 3, "all_bad": False}
    tie = {"ranks": [1, 1], "strength": 0, "all_bad": True}
    said = {"choices": {CRITERIA[0]: choice, CRITERIA[1]: tie}, "seconds": 4}
    assert browser.api("answer", **question, answer=said).status_code == 200
    first, second = records(database)
    assert (first.ranks, first.strength, second.all_bad) == ((1, 2), 3.0, True)
    assert "No question is waiting" in browser.get("/").text and "1 answers of yours" in browser.get("/").text
    browser.post("/logout", data={"csrf": browser.token()})
    assert browser.get("/", follow_redirects=False).status_code == 303
    browser.post("/login", data={"csrf": browser.token("/login"), "name": "Ada", "password": PASSWORD})
    assert browser.get("/").status_code == 200


MODES = [
    (Item("demonstrate", prompt("q")), {"reply": "so"}),
    (Item("edit", prompt("q"), ("weak",), ("helpful",), ("m",)), {"reply": "strong"}),
    (
        Item("safety", prompt("q"), ("bad",), ("harmless",), ("m",)),
        {"safe": False, "category": "weapons", "severity": 2},
    ),
    (comparison_item("q"), {"choices": {"helpful": {"ranks": [1, 2, 2]}}}),
]


def test_every_mode_shows_its_keys_and_takes_its_answer(browser, desk, database):
    browser.sign_in("Ada")
    for count, (item, said) in enumerate(MODES, start=1):
        desk.add([item])
        question, text = held(browser)
        assert question["mode"] == item.mode
        for key in ("Enter", "Ctrl S", "U", "⌫", "G"):
            assert f"<kbd>{key}</kbd>" in text, (item.mode, key)
        assert browser.api("answer", **question, answer=said).json() == {"event": 1 + count}
        assert len(records(database)) >= count, item.mode


def test_an_answer_of_another_mode_or_form_is_refused_and_the_question_stays(browser, desk, database):
    desk.add([comparison_item("q")])
    browser.sign_in("Ada")
    question, _ = held(browser)
    wrong = browser.api("answer", **{**question, "mode": "demonstrate"}, answer={"reply": "x"})
    assert wrong.status_code == 409 and "other mode" in wrong.json()["problem"]
    assert browser.api("answer", **question, answer={"choices": 3}).status_code == 422
    assert browser.api("answer", **question, answer={"choices": {}}).status_code == 409
    assert browser.api("answer", **{**question, "item": 77}, answer={"choices": {}}).status_code == 409
    assert not records(database) and held(browser)[0]["item"] == question["item"]


def test_a_request_that_is_sent_again_is_answered_the_same(browser, desk, database):
    desk.add([Item("demonstrate", prompt("q"))])
    browser.sign_in("Ada")
    question, _ = held(browser)
    answers = [browser.api("answer", **question, answer={"reply": "so"}).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] and len(records(database)) == 1


def test_a_draft_is_on_the_page_after_a_reload(browser, desk):
    desk.add([Item("demonstrate", prompt("q"))])
    browser.sign_in("Ada")
    question, _ = held(browser)
    assert browser.api("draft", item=question["item"], draft={"reply": "half a <b>"}).status_code == 200
    assert "half a &lt;b&gt;</textarea>" in held(browser)[1]


def test_a_draft_of_another_form_breaks_no_page(browser, desk):
    desk.add([comparison_item("q", ("x", "y"))])
    browser.sign_in("Ada")
    question, _ = held(browser)
    for draft in ({"choices": 1}, {"choices": {"helpful": {"ranks": ["a", 2]}}}, {"reply": []}, {"x": {}}):
        assert browser.api("draft", item=question["item"], draft=draft).status_code == 200, draft
        assert held(browser)[0]["item"] == question["item"], draft


def test_undo_brings_the_question_back_with_what_was_chosen(browser, desk, database):
    desk.add([comparison_item("q", ("x", "y"))])
    browser.sign_in("Ada")
    assert browser.api("undo").status_code == 409
    question, _ = held(browser)
    browser.api("answer", **question, answer={"choices": {"helpful": {"ranks": [2, 1], "strength": 2}}})
    assert browser.api("undo").json() == {"item": question["item"], "to": "/"}
    again, text = held(browser)
    assert again["item"] == question["item"] and again["submission"] != question["submission"]
    assert re.search(r'value="6" checked', text) and not records(database)


def test_a_skip_needs_a_reason_that_is_known(browser, desk):
    desk.add([comparison_item("q")])
    browser.sign_in("Ada")
    question, _ = held(browser)
    del question["mode"]
    assert browser.api("skip", **question, reason="bored").status_code == 422
    assert browser.api("skip", **question, reason="unclear").status_code == 200
    assert "No question is waiting" in browser.get("/").text


def test_a_page_without_questions_hears_of_new_ones(browser, make_browser, desk, clock):
    browser.sign_in("Ada")
    assert "data-empty" in browser.get("/").text and browser.get("/api/next").json() == {"found": False}
    desk.add([comparison_item("q", ("x", "y"))])
    assert browser.get("/api/next").json() == {"found": True}
    other = make_browser().sign_in("Ben")
    assert "data-item" in other.get("/").text, "who looks holds nothing"
    assert browser.get("/api/next").json() == {"found": False}
    clock.now += 1000
    assert browser.get("/api/next").json() == {"found": True}, "the lease has ended"
    assert "data-item" in browser.get("/").text and browser.get("/api/next").json() == {"found": True}


def test_nothing_on_the_page_says_which_snapshot_a_reply_is_of(browser, desk):
    item = Item("compare", prompt("q"), ("x", "y"), ("helpful",), ("SECRET-A", "SECRET-B"))
    desk.add([item])
    browser.sign_in("Ada")
    assert "SECRET" not in browser.get("/").text


def test_code_stands_as_code_and_every_text_in_its_own_direction(browser, desk):
    desk.add([Item("safety", prompt("q"), ("so:\n```python\nif a < b:\n    c\n```\nשלום",), ("harmless",), ("m",))])
    browser.sign_in("Ada")
    text = browser.get("/").text
    assert (
        '<pre dir="ltr" tabindex="0"><code>if a &lt; b:\n    c\n</code></pre>' in text and 'dir="auto">שלום</p>' in text
    )


@pytest.mark.parametrize(
    "text, found",
    [
        ("plain", [("prose", "plain")]),
        ("```\nx\n```", [("code", "x\n")]),
        ("a\n```\nx", [("prose", "a\n"), ("code", "x")]),
        ("", []),
        ("a ``` b", [("prose", "a ``` b")]),
    ],
)
def test_a_text_is_prose_and_code_in_turn(text, found):
    assert pieces(text) == found


def test_every_language_has_the_same_words_and_the_templates_use_no_other():
    english = languages()["en"]
    assert set(languages()) >= {"en", "de"}
    for name, words in languages().items():
        assert words.keys() == english.keys(), name
        for key, word in words.items():
            assert word and sorted(re.findall(r"%\(\w+\)\w", word)) == sorted(re.findall(r"%\(\w+\)\w", english[key]))
    used = {key for path in TEMPLATES for key in re.findall(r"\bt\.(\w+)", path.read_text(encoding="utf-8"))}
    assert used <= english.keys()
    made = re.compile(r"(role|ask|how|live|turn|criterion|worse|scale|severity|rate|rating|reason|flag)_\w+")
    said = {"sign_in_first", "not_allowed", "forged", "too_often", "no_replies", "too_many_wait", "excluded"}
    assert {key for key in english if not made.fullmatch(key)} - used == said, "words that nobody sees"


def test_the_language_is_the_browsers_or_the_one_chosen(browser):
    german = {"accept-language": "de-CH,fr;q=0.8"}
    assert "Anmelden" in browser.get("/login", headers=german).text
    assert "Sign in" in browser.get("/login", headers={"accept-language": "fr"}).text
    browser.post("/language", data={"csrf": browser.token("/login"), "language": "de"})
    page = browser.get("/login").text
    assert '<html lang="de"' in page and "Passwort" in page


def test_every_control_has_a_name(browser, desk):
    """Inputs stand in a label or have one; buttons have words; the page has a language, a title and one main part."""
    desk.add([item for item, _ in MODES])
    browser.sign_in("Ada", role="admin")
    for path in ("/", "/people", "/me", "/login"):
        text = browser.get(path).text
        assert text.count("<main") == 1 and "<title>" in text and re.search(r'<html lang="\w+"', text)
        bare = re.sub(r"<label.*?</label>", "", text, flags=re.DOTALL)
        for control in re.findall(r"<(?:input|select|textarea)[^>]*>", bare):
            assert 'type="hidden"' in control or "aria-label" in control, control
        for button in re.findall(r"<button[^>]*>(.*?)</button>", text, flags=re.DOTALL):
            assert button.strip(), text


def test_the_page_stands_under_a_path_and_answers_a_health_check(make_browser, desk):
    browser = make_browser(prefix="/accord")
    assert browser.get("/healthz").json() == {"status": "ok"}
    assert browser.get("/", follow_redirects=False).headers["location"] == "/accord/login"
    text = browser.get("/login").text
    found = re.findall(r'(?:href|src|action)="([^"]*)"', text)
    assert found and all(link.startswith(("/accord/", "#")) for link in found)
    assert browser.get("/static/page.css").status_code == 200


def test_an_admin_invites_and_a_reviewer_only_looks(browser, people, make_browser):
    browser.sign_in("Ada", role="admin")
    form = {
        "csrf": browser.token("/people"),
        "role": "reviewer",
        "group": "careful",
        "tags": "law medicine",
        "uses": "2",
    }
    text = browser.post("/people/invite", data=form).text
    link = re.search(r"<code>(/join/[\w-]+)</code>", text)[1]
    other = make_browser()
    token = other.token(link)
    other.post(link, data={"csrf": token, "name": "Bea", "password": PASSWORD})
    bea = people.all()[1]
    assert (bea.role, bea.value_group, bea.tags) == ("reviewer", "careful", ("law", "medicine"))
    assert "Bea" in other.get("/people").text and "/people/forget" not in other.get("/people").text
    form = {"csrf": browser.token("/people"), "of": str(bea.id)}
    assert browser.post("/people/role", data={**form, "role": "annotator"}).status_code == 200
    assert other.get("/people").status_code == 403
    browser.post("/people/forget", data=form)
    assert "Bea" not in browser.get("/people").text and other.get("/", follow_redirects=False).status_code == 303


def test_people_download_and_delete_what_is_stored_about_them(browser, people):
    browser.sign_in("Ada")
    assert json.loads(browser.get("/me/export").text)["person"]["name"] == "Ada"
    browser.post("/me/forget", data={"csrf": browser.token("/me")})
    assert people.all()[0].name == "" and browser.get("/", follow_redirects=False).status_code == 303
