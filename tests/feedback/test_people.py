"""Joining, coming back, roles, and being forgotten."""

import json
import re
from contextlib import nullcontext

import pytest
from sqlalchemy import select, text

from accord.feedback.store.answers import CompareAnswer
from accord.feedback.store.assignments import Declined
from accord.feedback.store.events import last_event, read_records
from accord.feedback.store.schema import EVENTS, INVITES, PEOPLE, SESSIONS
from tests.fixtures.feedback import PASSWORD, comparison_item


def test_an_invite_is_for_so_many_people_and_for_two_weeks(people, join, clock):
    join("somebody")
    token = people.invite("annotator", by=None, uses=1)
    assert people.of_session(people.join(token, "  Ada  L. ", PASSWORD)).name == "Ada L."
    with pytest.raises(Declined, match="used up"):
        people.join(token, "Bea", PASSWORD)
    late = people.invite("annotator", by=None)
    clock.now += 15 * 86_400
    with pytest.raises(Declined, match="too old"):
        people.join(late, "Bea", PASSWORD)


@pytest.mark.parametrize(
    "name, password", [("", PASSWORD), ("a\x00b", PASSWORD), ("x" * 81, PASSWORD), ("Ada", "short")]
)
def test_names_and_passwords_have_a_form(people, name, password):
    token = people.invite("annotator", by=None)
    with pytest.raises(Declined):
        people.join(token, name, password)
    assert people.all() == []


def test_a_session_comes_with_the_password_and_ends(people, join, clock):
    join("Ada")
    with pytest.raises(Declined, match="somebody has this name"):
        join("Ada")
    session = people.log_in("Ada", PASSWORD)
    assert people.of_session(session).name == "Ada"
    for name, password in (("Ada", "something else"), ("Bea", PASSWORD)):
        with pytest.raises(Declined, match="name or password"):
            people.log_in(name, password)
    people.log_out(session)
    assert people.of_session(session) is None
    session = people.log_in("Ada", PASSWORD)
    clock.now += 31 * 86_400
    assert people.of_session(session) is None and people.of_session("made up") is None


def test_the_store_holds_no_secret_in_plain_text(people, join, database):
    join("Ada")
    token = people.invite("reviewer", by=None)
    session = people.log_in("Ada", PASSWORD)
    with database.read() as connection:
        rows = [list(connection.execute(select(table))) for table in (PEOPLE, INVITES, SESSIONS, EVENTS)]
    assert not [secret for secret in (token, session, PASSWORD) if secret in repr(rows)]
    assert "$argon2id$" in repr(rows)


def test_roles_contain_each_other_and_an_admin_cannot_lock_themselves_out(people, join):
    admin, worker = join("Ada", "admin"), join("Bea")
    assert admin.may("reviewer") and admin.may("annotator") and not worker.may("reviewer")
    people.set_role(worker.id, "reviewer", by=admin.id)
    assert people.all()[1].role == "reviewer"
    with pytest.raises(Declined, match="their own"):
        people.set_role(admin.id, "annotator", by=admin.id)
    with pytest.raises(Declined, match="no such person"):
        people.set_role(77, "annotator", by=admin.id)


def test_who_is_forgotten_leaves_their_labels_and_nothing_that_names_them(people, join, desk, database, address):
    admin, ada = join("Ada", "admin"), join("Grace Hopper", group="careful", tags=("navy",))
    desk.add([comparison_item("q"), comparison_item("r")])
    session = people.log_in("Grace Hopper", PASSWORD)
    answer = CompareAnswer(choices={"helpful": {"ranks": [1, 2, 3]}})
    desk.submit(ada.id, desk.next(ada.id).number, "s1", answer)
    desk.next(ada.id)
    theirs = people.export(ada.id)
    assert theirs["person"]["name"] == "Grace Hopper" and "password" not in theirs["person"]
    assert [event["kind"] for event in theirs["events"]] == ["answer"] and json.dumps(theirs)
    people.forget(ada.id, by=admin.id)
    assert people.of_session(session) is None
    with pytest.raises(Declined):
        people.log_in("Grace Hopper", PASSWORD)
    with database.read() as connection:
        tables = [row[0] for row in connection.execute(text("SELECT name FROM people"))]
        assert "Grace Hopper" not in tables and None in tables
        ((_, label),) = read_records(connection, last_event(connection))
    assert label.labeler == f"human:careful:{ada.id}", "a run that read it before reads the same again"
    assert desk.next(admin.id).item.prompt.turns[0].content == "r", "what they held was given back"
    join("Grace Hopper")


def test_what_an_admin_does_is_written_down(people, join, database):
    admin, worker = join("Ada", "admin"), join("Bea")
    people.invite("annotator", by=admin.id)
    people.set_role(worker.id, "reviewer", by=admin.id)
    people.forget(worker.id, by=admin.id)
    with database.read() as connection:
        done = connection.execute(select(EVENTS.c.body).where(EVENTS.c.person == admin.id).order_by(EVENTS.c.number))
        assert [body["did"] for body in done.scalars()] == ["invite", "role", "forget"]


@pytest.mark.parametrize(
    ("language", "rule"), [("en", "A password has 10 to 200 "), ("de", "Ein Passwort hat 10 bis 200 ")]
)
def test_the_form_says_what_a_password_has_to_be_before_it_is_sent(browser, people, language, rule):
    token = people.invite("annotator", by=None, uses=3)
    text = browser.get(f"/join/{token}", headers={"accept-language": language}).text
    field = re.search(r'<input name="password"[^>]*>', text)[0]
    assert 'minlength="10"' in field and 'maxlength="200"' in field
    described = re.search(r'aria-describedby="([\w-]+)"', field)[1]
    assert f'<p id="{described}">{rule}' in text
    assert "describedby" not in browser.get("/login").text, "who signs in has a password"
    for count, taken in ((9, False), (10, True), (200, True), (201, False)):
        with nullcontext() if taken else pytest.raises(Declined, match="10 to 200"):
            people.join(token, f"somebody {count}", "x" * count)
