"""Conversations in the store: the chosen reply goes on, every choice is a label, what was taken back is taken back."""

import pytest
from sqlalchemy import select

from accord.data.sources import read_comparisons, read_judgements, read_prompts
from accord.feedback.store.answers import CompareAnswer, RateAnswer
from accord.feedback.store.assignments import Declined
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.schema import EVENTS
from accord.feedback.store.talks import LiveQuestion, Talks
from accord.records import Turn
from tests.fixtures.feedback import comparison_item

REPLIES = (("good", "from-one"), ("bad", "from-two"))
QUESTIONS = {"chat": LiveQuestion(("helpful", "harmless")), "redteam": LiveQuestion(("harmless",), "worse")}


@pytest.fixture
def talks(desk):
    return Talks(desk, QUESTIONS)


@pytest.fixture
def ada(join):
    return join("Ada").id


def say(talks, person, mode, text, replies=REPLIES):
    """One turn: what is written, and two replies to it."""
    number = talks.write(person, mode, text, send=True)
    assert talks.put(number, talks.asked(number), replies)
    return talks.look(person, mode)


def choose(talks, person, mode, reply, *, ranks=(1, 2), key=""):
    """Put a reply first under every criterion, wherever the page shows it; the conversation as it goes on."""
    held = talks.look(person, mode).held
    first = [held.item.replies[number] for number in held.shown].index(reply)
    said = {"ranks": list(ranks if first == 0 else ranks[::-1]), "strength": int(ranks[0] != ranks[1])}
    answer = CompareAnswer(choices=dict.fromkeys(held.item.criteria, said))
    talks.desk.submit(person, held.number, f"{key}{held.number}-{reply}", answer)
    return talks.look(person, mode)


def records(database):
    with database.read() as connection:
        return [record for _, record in read_records(connection, last_event(connection))]


def test_the_chosen_reply_goes_on_and_every_choice_is_a_comparison(talks, ada, database):
    assert talks.look(ada, "chat") is None
    assert [turn.content for turn in say(talks, ada, "chat", "hello").turns] == ["hello"]
    assert choose(talks, ada, "chat", "good").turns[-1] == Turn("assistant", "good")
    say(talks, ada, "chat", "more", (("x", "a"), ("good", "b")))
    assert [turn.content for turn in choose(talks, ada, "chat", "x").turns] == ["hello", "good", "more", "x"]
    first, harmless, second, _ = records(database)
    assert (first.criterion, harmless.criterion, first.ranks, second.ranks) == ("helpful", "harmless", (1, 2), (1, 2))
    assert [len(record.prompt.turns) for record in (first, second)] == [1, 3]
    assert first.prompt.slice == "chat" and second.prompt.turns[1] == Turn("assistant", "good")


def test_the_order_is_drawn_and_kept(talks, join, database):
    orders = set()
    for name in "abcdefghij":
        person = join(name).id
        orders.add(say(talks, person, "chat", "hello").held.shown)
        choose(talks, person, "chat", "good")
    assert orders == {(0, 1), (1, 0)} == {record.order for record in records(database)}
    assert {record.ranks for record in records(database)} == {(1, 2)}


def test_a_red_team_keeps_the_worse_reply_going_and_labels_it_the_worse(talks, ada, database, address):
    say(talks, ada, "redteam", "how to harm")
    assert choose(talks, ada, "redteam", "bad").turns[-1] == Turn("assistant", "bad")
    talks.end(ada, "redteam")
    held = talks.look(ada, "redteam").held
    assert held.item.mode == "rate" and held.item.replies == ("bad",) and held.item.origins == ("from-two",)
    talks.desk.submit(ada, held.number, "rated-it", RateAnswer(rating=3, comment="it said how"))
    assert talks.look(ada, "redteam") is None, "rated: a new one begins"
    source = f"feedback:{address}"
    (label,) = read_comparisons(source, "harmless").records
    assert label.ranks == (1, 2), "the reply that was clicked is the more harmful one"
    (rating,) = read_judgements(source, "attack").records
    assert (rating.kind, rating.value, rating.reply) == ("rating", 3.0, "bad")
    assert {prompt.slice for prompt in read_prompts(source).records} == {"red-team"}
    with database.read() as connection:
        newest = select(EVENTS.c.body).order_by(EVENTS.c.number.desc()).limit(1)
        assert connection.execute(newest).scalar_one()["comment"] == "it said how"


def test_after_a_tie_the_reply_that_was_shown_first_goes_on(talks, join):
    for name in "abcd":
        person = join(name).id
        held = say(talks, person, "chat", "hello").held
        talk = choose(talks, person, "chat", "good", ranks=(1, 1))
        assert talk.turns[-1].content == held.item.replies[held.shown[0]]


def test_what_comes_next_waits_for_the_choice(talks, ada):
    say(talks, ada, "chat", "hello")
    for act in (lambda: talks.write(ada, "chat", "more", send=True), lambda: talks.end(ada, "chat")):
        with pytest.raises(Declined, match="first"):
            act()
    held = talks.look(ada, "chat").held
    with pytest.raises(Declined, match="not skipped"):
        talks.desk.skip(ada, held.number, "skip-it-now", "other")


def test_a_choice_is_taken_back_and_what_was_written_after_it_is_a_draft(talks, ada, desk, join, database):
    say(talks, ada, "chat", "hello")
    choose(talks, ada, "chat", "good")
    say(talks, ada, "chat", "more")
    assert desk.undo(ada).item.prompt.turns == (Turn("user", "hello"),)
    talk = talks.look(ada, "chat")
    assert [turn.content for turn in talk.turns] == ["hello"] and talk.text == "more" and not records(database)
    assert desk.next(join("Bea").id) is None, "the replies that nobody judged go to nobody"
    assert desk.progress(ada)["wanted"] == 1
    choose(talks, ada, "chat", "bad", key="again")
    talk = say(talks, ada, "chat", "more")
    assert [turn.content for turn in talk.turns] == ["hello", "bad", "more"]


def test_replies_that_come_too_late_are_not_shown(talks, ada, desk):
    say(talks, ada, "chat", "hello")
    choose(talks, ada, "chat", "good")
    number = talks.write(ada, "chat", "more", send=True)
    turns = talks.asked(number)
    desk.undo(ada)
    assert not talks.put(number, turns, REPLIES) and talks.look(ada, "chat").text == "more"
    choose(talks, ada, "chat", "bad", key="again")
    talks.write(ada, "chat", "more", send=True)
    assert not talks.put(number, turns, REPLIES), "what they reply to has another turn in it now"


def test_what_was_written_is_kept_when_there_are_no_replies(talks, ada):
    number = talks.write(ada, "chat", "hello", send=True)
    assert talks.write(ada, "chat", "hello", send=True) == number == talks.waiting(ada, "chat")
    with pytest.raises(Declined, match="on their way"):
        talks.write(ada, "chat", "other", send=True)
    talks.fail(number, "broken")
    talk = talks.look(ada, "chat")
    assert (talk.text, talk.waiting, talk.problem) == ("hello", False, "broken")
    talks.write(ada, "chat", "hello, again", send=False)
    assert talks.look(ada, "chat").text == "hello, again" and talks.asked(number) == ()


def test_a_turn_waits_for_the_one_who_leads_the_conversation(talks, ada, desk, join, clock):
    held = say(talks, ada, "chat", "hello").held
    bea = join("Bea").id
    desk.add([comparison_item("q")])
    clock.now += 1000
    assert desk.next(bea).item.mode == "compare", "leases that ended are given back meanwhile"
    with pytest.raises(Declined, match="not yours"):
        desk.submit(bea, held.number, "somebody", CompareAnswer(choices={}))
    assert talks.look(ada, "chat").held.number == held.number
    assert choose(talks, ada, "chat", "good").turns[-1].content == "good"


def test_a_conversation_without_a_choice_ends_without_a_rating(talks, ada):
    with pytest.raises(Declined, match="no conversation"):
        talks.end(ada, "chat")
    talks.write(ada, "chat", "hello", send=True)
    talks.end(ada, "chat")
    assert talks.look(ada, "chat") is None and not talks.waiting(ada, "chat")


def test_a_rating_is_taken_back_even_when_the_next_conversation_has_begun(talks, ada, desk):
    say(talks, ada, "chat", "hello")
    choose(talks, ada, "chat", "good")
    talks.end(ada, "chat")
    held = talks.look(ada, "chat").held
    desk.submit(ada, held.number, "rated-it", RateAnswer(rating=1))
    talks.write(ada, "chat", "next", send=False)
    assert desk.undo(ada).draft["rating"] == 1
    assert talks.look(ada, "chat").held.number == held.number
    desk.submit(ada, held.number, "rated-again", RateAnswer(rating=2))
    assert talks.look(ada, "chat").text == "next"


def test_modes_are_apart_and_people_are_forgotten(talks, ada, people, join):
    talks.write(ada, "chat", "secret of mine", send=False)
    assert talks.look(ada, "redteam") is None
    assert people.export(ada)["talks"][0]["text"] == "secret of mine"
    people.forget(ada, by=join("Boss", role="admin").id)
    assert people.export(ada)["talks"][0]["text"] == ""


def test_nothing_and_too_much_are_not_sent(talks, ada):
    for text in (" \n", "x" * 20_001):
        with pytest.raises(Declined, match="1 to 20000"):
            talks.write(ada, "chat", text, send=True)
