"""Stores of feedback: on SQLite, and, in slow tests where it is installed, on a PostgreSQL of their own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from tests.fixtures.feedback import PASSWORD


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="session")
def postgres():
    """The address of a PostgreSQL that ends with the tests."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # the path of a socket must be short
    folder.chmod(0o777)

    def call(*words):
        environment = {**os.environ, "HOME": str(folder)}
        subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL, env=environment, cwd=folder, **user)

    call("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "accord", "-N")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    call("pg_ctl", "-D", str(folder / "data"), "-o", options, "-w", "-l", str(folder / "log"), "start")
    yield f"postgresql:///postgres?host={folder}&user=accord"
    call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def address(request, tmp_path):
    """Of an empty store."""
    if request.param == "sqlite":
        return str(tmp_path / "feedback.db")
    where = request.getfixturevalue("postgres")
    from sqlalchemy import create_engine, text

    engine = create_engine(where.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return where


@pytest.fixture
def database(address):
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
def join(people, monkeypatch):
    """`join(name, …)`: somebody who has joined by an invite of their own."""
    from argon2 import PasswordHasher

    people._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

    def make(name, role="annotator", **invite):
        session = people.join(people.invite(role, by=None, **invite), name, PASSWORD)
        return people.of_session(session)

    return make
