"""Stores of feedback: on SQLite, and, in slow tests where it is installed, on a PostgreSQL of their own."""

import re
import shutil

import pytest
from fastapi.testclient import TestClient

from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from benchmarks.postgres import cluster, why_not
from tests.fixtures.feedback import PASSWORD, cheap_hashes


@pytest.fixture(scope="module", autouse=True)
def quick_hashes():
    with cheap_hashes():
        yield


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="session")
def postgres():
    """The address of a PostgreSQL that ends with the tests."""
    if why := why_not():
        pytest.skip(why)
    with cluster(durable=False) as where:
        yield where


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def address(request, tmp_path):
    """Of an empty store."""
    return str(tmp_path / "feedback.db") if request.param == "sqlite" else request.getfixturevalue("empty_postgres")


@pytest.fixture
def empty_postgres(postgres):
    """Of an empty store on PostgreSQL."""
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """An empty store on SQLite, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "feedback.db"
    Database(str(path), writes=True).close()
    return path


@pytest.fixture
def database(address, migrated):
    if "://" not in address:
        shutil.copy(migrated, address)
    opened = Database(address, writes=True)
    yield opened
    opened.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def people(database, clock):
    return People(database, clock=clock)


@pytest.fixture
def desk(database, clock):
    return Desk(database, lease=100.0, clock=clock)


@pytest.fixture
def join(people):
    """`join(name, …)`: somebody who has joined by an invite of their own."""

    def make(name, role="annotator", **invite):
        session = people.join(people.invite(role, by=None, **invite), name, PASSWORD)
        return people.of_session(session)

    return make


class Browser(TestClient):
    """A browser of one person: it keeps cookies and brings the token of its forms."""

    people = None

    def token(self, path="/me"):
        return re.search(r'(?:name="csrf" value|data-csrf)="(\w+)"', self.get(path).text)[1]

    def sign_in(self, name, role="annotator"):
        link = f"/join/{self.people.invite(role, by=None)}"
        form = {"csrf": self.token(link), "name": name, "password": PASSWORD}
        answer = self.post(link, data=form, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return self

    def api(self, path, **body):
        return self.post(f"/api/{path}", json=body, headers={"x-csrf": self.token()})


@pytest.fixture
def app(desk, people):
    """The page of the store; 1000 people may come in a minute."""
    return make_page(desk, people, Settings(secret=b"s" * 32))


@pytest.fixture
def make_browser(desk, people, app):
    """`make_browser(…)`: a browser of the page, or of one with other settings."""

    def make(**settings):
        page = make_page(desk, people, Settings(secret=b"s" * 32, **settings)) if settings else app
        browser = Browser(page)
        browser.people = people
        return browser

    return make


@pytest.fixture
def browser(make_browser):
    return make_browser()
