"""What a model says beside the replies: who sees it, that the answer says so, where it comes from; and differences."""

import json

import pytest
from sqlalchemy import select

from accord.cli import main
from accord.data.rows import reply_row
from accord.errors import BadInput
from accord.feedback.store.answers import CompareAnswer
from accord.feedback.store.database import Database
from accord.feedback.store.events import ANSWERED
from accord.feedback.store.questions import WHOLE, Aid, Item, is_aided, item_from_json, item_to_json
from accord.feedback.store.schema import EVENTS, ITEMS
from accord.feedback.web.differences import differences
from accord.feedback.web.guard import RequestRates
from tests.feedback.test_threats import harmless
from tests.fixtures.feedback import comparison_item, prompt

AIDS = (Aid(1, "y is <b>wrong"), Aid(WHOLE, "both are short"))


def aided_item(text="q"):
    return comparison_item(text, ("x", "y"), overlap=50, aids=AIDS)


def test_half_of_the_people_see_it_and_every_answer_says_who(desk, join, database):
    items = [aided_item(f"q{n}") for n in range(40)]
    desk.add([*items, comparison_item("without", ("x", "y"))])
    people = [join(f"p{n}").id for n in range(10)]
    share = sum(is_aided(item, person) for item in items for person in people) / 400
    assert 0.4 < share < 0.6, "within four standard errors"
    assert all(0 < sum(is_aided(item, person) for item in items) < 40 for person in people)
    for person in people[:4]:
        held = desk.next(person)
        desk.submit(person, held.number, f"s-{person}", CompareAnswer(choices={"helpful": {"ranks": [1, 1]}}))
    with database.read() as connection:
        said = connection.execute(select(EVENTS.c.person, EVENTS.c.body).where(EVENTS.c.kind == ANSWERED)).all()
    assert [body["aided"] for _, body in said] == [is_aided(items[0], person) for person, _ in said]


def test_an_item_without_aids_says_nothing_of_them(desk, join, database):
    ada = join("Ada").id
    desk.add([comparison_item("q", ("x", "y"))])
    held = desk.next(ada)
    desk.submit(ada, held.number, "answered", CompareAnswer(choices={"helpful": {"ranks": [1, 1]}}))
    with database.read() as connection:
        assert "aided" not in connection.execute(select(EVENTS.c.body).where(EVENTS.c.kind == ANSWERED)).scalar_one()


def test_aids_travel_and_do_not_make_another_question():
    item = aided_item()
    assert item_from_json("compare", item_to_json(item)).aids == AIDS
    assert item.id == comparison_item("q", ("x", "y")).id
    for aid in (Aid(2, "of none"), Aid(0, " ")):
        with pytest.raises(BadInput, match="aid"):
            Item("compare", prompt("q"), ("x", "y"), ("helpful",), aids=(aid,)).check()


def test_the_page_shows_it_beside_the_reply_that_it_is_about(make_browser, desk, people, app):
    app.state.doors = RequestRates(1000, 1.0)
    item = aided_item()
    desk.add([item])
    seen = set()
    for n in range(6):
        browser = make_browser().sign_in(f"p{n}")
        text = browser.get("/").text
        shown = is_aided(item, people.all()[-1].id)
        seen.add(shown)
        assert ("It can be wrong" in text) is ("both are short" in text) is shown
        if shown:
            assert harmless(text, "y is <b>wrong")
            letter = "A" if text.index('auto">y</p>') < text.index('auto">x</p>') else "B"
            assert f"Written by a model: Reply {letter}</h2>" in text
    assert seen == {True, False}


def test_aids_come_from_rows_and_from_a_run_of_constitution(tmp_path, capsys):
    pairs, aids = tmp_path / "pairs.jsonl", tmp_path / "aids.jsonl"
    pairs.write_text(json.dumps({"prompt": "q", "chosen": "x", "rejected": "y"}) + "\n", encoding="utf-8")
    critique = reply_row(prompt("q"), "z", step=1, revised="y", critique="y is rude")
    rows = [{"prompt": "q", "aid": "check both"}, critique, {"prompt": "q", "reply": "other", "aid": "of another"}]
    rows += [{"prompt": "p", "aid": "of no question"}, {"prompt": "q", "reply": "x"}]
    aids.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store = tmp_path / "f.db"
    words = ["--database", str(store), "--data", str(pairs), "--criterion", "helpful", "--aids", str(aids)]
    assert main(["collect", "import", *words]) == 0
    assert "aids for 1 questions; 1 rows left out: no aid" in capsys.readouterr().out
    database = Database(str(store), writes=False)
    with database.read() as connection:
        body = connection.execute(select(ITEMS.c.body)).scalar_one()
    database.close()
    assert body["aids"] == [[WHOLE, "check both"], [body["replies"].index("y"), "y is rude"]]
    aids.write_text(json.dumps({"prompt": "q"}) + "\n", encoding="utf-8")
    words[1] = str(tmp_path / "other.db")
    assert main(["collect", "import", *words]) == 2 and "no row has a prompt with an aid" in capsys.readouterr().err


@pytest.mark.parametrize(
    "first, second, marked",
    [
        ("a cat sat", "a dog sat", (["cat "], ["dog "])),
        ("same", "same", ([], [])),
        ("", "new words", ([], ["new words"])),
        ("one  two", "one two", ([], [])),
    ],
)
def test_differences_are_marked_word_by_word(first, second, marked):
    found = differences(first, second)
    assert tuple("".join(piece for _, piece in pieces) for pieces in found) == (first, second), "nothing is lost"
    assert tuple([piece for changed, piece in pieces if changed] for pieces in found) == marked


def test_long_and_repetitive_replies_are_compared_in_time():
    long = "word " * 4000
    assert differences(long, long + "end")[1][-1] == (True, "end")


def test_differences_stand_on_the_page_escaped(browser, desk):
    desk.add([comparison_item("q", ("a <b>cat</b> sat", "a <i>dog</i> sat"))])
    browser.sign_in("Ada")
    text = browser.get("/").text
    assert "<mark>&lt;b&gt;cat&lt;/b&gt; </mark>" in text and "<kbd>D</kbd>" in text
