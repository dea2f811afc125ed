"""Opening, migrations, one writer, durability: what was acknowledged is there after a kill."""

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import pytest
from sqlalchemy import inspect, select, text

from accord.errors import BadInput
from accord.feedback.store import database as module
from accord.feedback.store.database import Database, connect, migrate, resolve
from accord.feedback.store.desk import Desk
from accord.feedback.store.schema import EVENTS, ITEMS, METADATA
from tests.fixtures.feedback import comparison_item


def test_the_migrations_make_the_tables_of_the_schema_and_unmake_them(address):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = connect(address, resolve(address)[1], writes=True, creates=True)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    migrate(engine, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate(engine)
    engine.dispose()


def test_sqlite_is_durable_private_and_written_by_one_process(tmp_path):
    path = tmp_path / "feedback.db"
    database = Database(str(path), writes=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = database.write(lambda c: [c.execute(text(f"PRAGMA {p}")).scalar() for p in ("journal_mode", "synchronous")])
    assert found == ["wal", 2]  # 2: FULL, a flush for every commit
    with pytest.raises(BadInput, match="another process writes"):
        Database(str(path), writes=True)
    reader = Database(f"sqlite:///{path}", writes=False)
    with reader.read() as connection:
        assert connection.execute(text("PRAGMA wal_autocheckpoint")).scalar() == 0
        with pytest.raises(Exception, match="readonly"):
            connection.execute(text("DELETE FROM clock"))
    reader.close()
    database.close()
    Database(str(path), writes=True).close()
    with pytest.raises(RuntimeError, match="closed"):
        database.write(lambda connection: None)


def test_what_cannot_be_opened_is_told_with_a_remedy(tmp_path, monkeypatch):
    cases = {
        str(tmp_path / "none" / "a.db"): "no such folder",
        "mysql://host/name": "unknown database 'mysql'",
        "postgresql://me:secret@host/name": "PGPASSWORD",
    }
    for address, why in cases.items():
        with pytest.raises(BadInput, match=why) as refused:
            Database(address, writes=False)
        assert "secret" not in str(refused.value)
    with pytest.raises(BadInput, match="no such database"):
        Database(str(tmp_path / "a.db"), writes=False)
    assert not (tmp_path / "a.db").exists()
    (tmp_path / "b.db").write_text("this is no database, but a text that is long enough to be seen as one")
    with pytest.raises(BadInput, match="not a database"):
        Database(str(tmp_path / "b.db"), writes=False)
    sqlite3.connect(tmp_path / "c.db").close()
    with pytest.raises(BadInput, match="migration none"):
        Database(str(tmp_path / "c.db"), writes=False)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(BadInput, match="too old"):
        Database(str(tmp_path / "d.db"), writes=True)


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "feedback.db"
    Database(str(path), writes=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for writes in (True, False):
        with pytest.raises(BadInput, match="9999"):
            Database(str(path), writes=writes)
    with pytest.raises(BadInput, match="9999"):  # and the lock was let go
        Database(str(path), writes=True)


def wait_until(holds):
    """Until something of another thread holds; fails where it never does."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_a_change_that_fails_keeps_nothing_and_spares_those_beside_it(database, desk):
    """All three share a commit; the middle one breaks a rule of the tables."""
    import threading

    begun, release, results = threading.Event(), threading.Event(), []

    def block(connection):
        begun.set()
        release.wait(10)

    def add(text_, twice=False):
        def change(connection):
            row = {"hash": text_, "mode": "compare", "body": {}, "tag": "", "wanted": 1, "taken": 0, "open": True}
            for _ in range(1 + twice):
                connection.execute(ITEMS.insert().values(**row))
            return text_

        def run():
            try:
                results.append(database.write(change))
            except Exception as error:
                results.append(type(error).__name__)

        return threading.Thread(target=run)

    blocker = threading.Thread(target=database.write, args=(block,))
    blocker.start()
    assert begun.wait(10)
    threads = [add("a"), add("b", twice=True), add("c")]
    for thread in threads:
        thread.start()
    wait_until(lambda: database._commits._waiting.qsize() == 3)
    release.set()
    for thread in (blocker, *threads):
        thread.join()
    with database.read() as connection:
        assert set(connection.execute(select(ITEMS.c.hash)).scalars()) == {"a", "c"}
    assert sorted(results) == ["IntegrityError", "a", "c"]


def test_nobody_is_told_that_it_was_kept_when_the_commit_fails(database, monkeypatch):
    from sqlalchemy.exc import OperationalError

    def full(connection):
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    with pytest.raises(OperationalError, match="disk is full"):
        database.write(full)
    assert database.write(lambda connection: 7) == 7, "and the next one goes on"


CHILD = """
import sys, threading
from accord.feedback.store.answers import CompareAnswer
from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
database = Database(sys.argv[1], writes=True)
desk, said = Desk(database), threading.Lock()
answer = CompareAnswer(choices={"helpful": {"ranks": [1, 2, 3]}})
def work(person):
    while (held := desk.next(person)) is not None:
        number = desk.submit(person, held.number, f"{person}-{held.number}", answer)
        with said:
            print(number, person, held.number, flush=True)
threads = [threading.Thread(target=work, args=(person,)) for person in map(int, sys.argv[2:])]
[thread.start() for thread in threads]
print("ready", flush=True)
[thread.join() for thread in threads]
"""


def test_a_kill_loses_no_answer_that_was_acknowledged_and_doubles_none(address, people, join, database):
    kills = 2
    ids = [join(f"p{n}").id for n in range(4)]
    Desk(database).add([comparison_item(f"q{n}", overlap=2) for n in range(100 * kills)])
    database.close()
    acknowledged = {}
    for n in range(kills):
        words = [sys.executable, "-c", CHILD, address, *map(str, ids)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            lines = [child.stdout.readline() for _ in range(random.Random(n).randrange(1, 40))]
            os.kill(child.pid, signal.SIGKILL)
            lines += child.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):  # the last one may be torn
                number, person, item = map(int, line.split())
                acknowledged[number] = (person, item)
    assert acknowledged
    reader = Database(address, writes=True)
    with reader.read() as connection:
        kept = {
            row.number: (row.person, row.item) for row in connection.execute(select(EVENTS)) if row.kind == "answer"
        }
        if "sqlite" in reader.address:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    reader.close()
    assert acknowledged.items() <= kept.items()
    assert len(set(kept.values())) == len(kept)


def test_changes_that_wait_share_a_commit(database, monkeypatch):
    """One flush of the disk for many answers: the group is what makes 300 a second possible."""
    import threading

    groups = []
    commit = database._commits._commit
    monkeypatch.setattr(database._commits, "_commit", lambda group: (groups.append(len(group)), commit(group)))
    release = threading.Event()
    threads = [threading.Thread(target=database.write, args=(lambda c: release.wait(10),))]
    threads[0].start()
    wait_until(lambda: groups)
    threads += [threading.Thread(target=database.write, args=(lambda c: None,)) for _ in range(20)]
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: database._commits._waiting.qsize() == 20)
    release.set()
    for thread in threads:
        thread.join()
    assert groups == [1, 20] and module.MOST_IN_A_GROUP >= 20


def held(database, ask):
    """Let changes wait at one time: what `ask` asks for waits while another change is under way."""
    import threading

    release, begun = threading.Event(), threading.Event()
    first = threading.Thread(target=database.write, args=(lambda c: (begun.set(), release.wait(10)),))
    first.start()
    begun.wait(10)
    waiting = ask()
    release.set()
    first.join()
    return waiting


def test_a_change_that_many_wait_for_is_made_once_and_where_it_fails_for_each_alone(database):
    calls = []

    def add(connection, names):
        calls.append(list(names))
        connection.execute(text("UPDATE clock SET wanted = wanted + :n"), {"n": len(names)})
        if "bad" in names:
            raise ZeroDivisionError(names[-1])
        return [KeyError(name) if name == "refused" else name.upper() for name in names]

    waiting = held(database, lambda: [database.write_together(add, name) for name in ("a", "refused", "b")])
    assert (waiting[0].result(), waiting[2].result(), calls) == ("A", "B", [["a", "refused", "b"]])
    with pytest.raises(KeyError, match="refused"):
        waiting[1].result()
    calls.clear()
    waiting = held(database, lambda: [database.write_together(add, name) for name in ("a", "bad", "b")])
    assert (waiting[0].result(), waiting[2].result()) == ("A", "B")
    with pytest.raises(ZeroDivisionError, match="bad"):
        waiting[1].result()
    assert calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    with database.read() as connection:
        assert connection.execute(text("SELECT wanted FROM clock")).scalar() == 5, "nothing of what failed is kept"


def test_who_does_not_wait_any_more_holds_up_nobody(database):
    def count(connection, names):
        return [len(names)] * len(names)

    def ask():
        gone, there = (database.write_together(count, name) for name in "ab")
        gone.cancel()
        return gone, there

    gone, there = held(database, ask)
    assert gone.cancelled() and there.result(timeout=10) == 1
    assert database.write(lambda connection: "still there") == "still there"
