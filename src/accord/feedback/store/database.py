"""A database of feedback by its address: opened, brought to the newest migration, written by one thread.

SQLite is the default. Versions before 3.51.3 can damage a file when one connection writes while another moves the
write-ahead log (https://sqlite.org/wal.html#walresetbug): here one connection of one process writes and moves it,
readers do neither, and a second writing process is refused.
"""

import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from accord.errors import BadInput
from accord.feedback.store.schema import CLOCK

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row, Select

T = TypeVar("T")
A = TypeVar("A")
OLDEST_SQLITE = (3, 35, 0)
MOST_IN_A_GROUP = 64
MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
INSTALL = "a store of feedback needs SQLAlchemy and alembic; install them with: pip install 'accord[collect]'"


class Database:
    """A store's database. `write` returns once the change is on the disk; `read` sees what was committed."""

    def __init__(self, address: str, *, writes: bool) -> None:
        """Open it, to write too or to read alone. Raises BadInput for an address, a file or a version that will not do.

        `address` is the path of a SQLite file, or sqlite:///PATH or postgresql://HOST/NAME.
        """
        self.address, path = resolve(address)
        self._lock = lock(path) if writes and path else None
        self._engines: list[Engine] = []
        self._commits: GroupCommit | None = None
        try:
            self._readers = connect(address, path, writes=False, creates=writes)
            self._engines = [self._readers]
            # of SQLite, which asks nobody far away, every connection stays as it was prepared
            self._single = self._readers if path else self._readers.execution_options(isolation_level="AUTOCOMMIT")
            if writes:
                writer = connect(address, path, writes=True, creates=True)
                self._engines.append(writer)  # last, so that the log is moved by the connection that wrote it
                migrate(writer)
                self._commits = GroupCommit(writer)
            else:
                refuse_other_revision(self._readers, address)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> "Iterator[Connection]":
        """A connection that sees one state of the store."""
        with self._readers.connect() as connection:
            yield connection

    def read_row(self, statement: "Select[Any]", values: Mapping[str, Any]) -> "Row[Any] | None":
        """The first row of one statement. It sees one state by itself: a transaction would be two round trips more."""
        with self._single.connect() as connection:
            return connection.execute(statement, values).first()

    def write(self, change: "Callable[[Connection], T]") -> T:
        """What `change` returns, once it is durable. What it raises is raised here, and nothing of it is kept."""

        def alone(connection: "Connection", _: Sequence[None]) -> list[T | Exception]:
            return [change(connection)]

        return self.write_together(alone, None).result()

    def write_together(
        self, change: "Callable[[Connection, Sequence[A]], Sequence[T | Exception]]", given: A
    ) -> "Future[T]":
        """The same for a change that many ask for, to be waited for: it is called once with what all gave who wait for
        it, in no order.

        It returns for each what they get, or what is raised there. Where it raises, it is called for each alone.
        """
        if self._commits is None:
            raise RuntimeError("the store was opened to read alone")
        return self._commits.do(change, given)

    def close(self) -> None:
        """Write what is waiting, and let go of the file."""
        if self._commits is not None:
            self._commits.close()
        for engine in self._engines:
            engine.dispose()
        if self._lock is not None:
            self._lock.release()


class _Waiting(NamedTuple):
    """Somebody who waits for a change."""

    change: "Callable[[Connection, Sequence[Any]], Sequence[Any]]"
    given: Any
    answer: "Future[Any]"


class GroupCommit:
    """One thread that writes: changes that wait at the same time share a commit, and so one flush of the disk."""

    def __init__(self, engine: "Engine") -> None:
        from sqlalchemy import update

        self._engine = engine
        self._turn = update(CLOCK).values(number=CLOCK.c.number)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="feedback-writer", daemon=True)
        self._thread.start()

    def do(self, change: "Callable[[Connection, Sequence[A]], Sequence[T | Exception]]", given: A) -> "Future[T]":
        if not self._thread.is_alive():
            raise RuntimeError("the store is closed")
        answer: Future[T] = Future()
        self._waiting.put(_Waiting(change, given, answer))
        return answer

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            closing = False
            while len(group) < MOST_IN_A_GROUP and not closing:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                closing = more is None
                group += [more] if more else []
            self._commit(group)
            if closing:
                return

    def _commit(self, group: Sequence[_Waiting]) -> None:
        group = [one for one in group if one.answer.set_running_or_notify_cancel()]
        alike: dict[Any, list[_Waiting]] = {}
        for one in group:
            alike.setdefault(one.change, []).append(one)
        results: list[tuple[Future[Any], Any]] = []
        try:
            with self._engine.begin() as connection:
                # several servers on one PostgreSQL take turns, as do the threads of one
                connection.execute(self._turn)
                for waiting in alike.values():
                    results += _do_apart(connection, waiting)
        except BaseException as error:
            for one in group:
                one.answer.set_exception(error)
            return
        for answer, value in results:
            if isinstance(value, Exception):
                answer.set_exception(value)
            else:
                answer.set_result(value)


def _do_apart(connection: "Connection", waiting: Sequence[_Waiting]) -> "list[tuple[Future[Any], Any]]":
    """Do one change for all who wait for it, or where that fails for each of them; what fails leaves nothing."""
    from sqlalchemy.exc import OperationalError

    connection.exec_driver_sql("SAVEPOINT one_change")  # let go by the commit: one round trip less
    try:
        values = waiting[0].change(connection, [one.given for one in waiting])
        results = [(one.answer, value) for one, value in zip(waiting, values, strict=True)]
    except OperationalError:
        raise  # a full disk or a lost server: nobody in the group is told that it was kept
    except Exception as error:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one_change")
        if len(waiting) == 1:
            results = [(waiting[0].answer, error)]
        else:
            results = [result for one in waiting for result in _do_apart(connection, [one])]
    return results


def resolve(address: str) -> tuple[str, Path | None]:
    """The address in full, without anything secret, and the file of a SQLite one. Raises BadInput."""
    scheme = re.match(r"(\w+)(?:\+\w+)?:", address)
    if scheme is None or scheme[1] == "sqlite":
        path = Path(re.sub(r"^sqlite(\+\w+)?:(///)?", "", address)).expanduser()
        if not path.name or not path.parent.is_dir():
            raise BadInput(f"{address}: there is no such folder; name a file in one that exists, or sqlite:///PATH")
        return f"sqlite:///{path}", path
    if scheme[1] not in ("postgresql", "postgres"):
        raise BadInput(
            f"{address}: unknown database '{scheme[1]}'; known are sqlite:///PATH and postgresql://HOST/NAME"
        )
    if re.match(r"[^:]+://[^/@]*:[^/@]*@", address):
        raise BadInput(
            "the address of the database holds a password, which files of a run would then hold too; leave it out, and "
            "put it into PGPASSWORD or ~/.pgpass"
        )
    return re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", address), None


def lock(path: Path) -> Any:
    """What keeps other processes from writing the file. Raises BadInput where one does."""
    from filelock import FileLock, Timeout

    held = FileLock(f"{path}.lock", timeout=0, mode=0o600, thread_local=False)
    try:
        held.acquire()
        return held
    except Timeout:
        raise BadInput(
            f"{path}: another process writes to it (`accord collect`?); stop that one first, or let it do the work"
        ) from None


def connect(address: str, path: Path | None, *, writes: bool, creates: bool) -> "Engine":
    """An engine with durable settings; one that does not write can change nothing. Raises BadInput."""
    try:
        from sqlalchemy import create_engine, event
    except ImportError:
        raise BadInput(INSTALL) from None
    if path is None:
        try:
            import psycopg  # noqa: F401 - only asked for
        except ImportError:
            raise BadInput(f"{address}: needs psycopg; install it with: pip install 'accord[postgres]'") from None
        url = re.sub(r"^postgresql:", "postgresql+psycopg:", resolve(address)[0])
        options = {"options": "-c synchronous_commit=on" + ("" if writes else " -c default_transaction_read_only=on")}
        isolation: Any = "READ COMMITTED" if writes else "REPEATABLE READ"
        return create_engine(url, connect_args=options, isolation_level=isolation)
    import sqlite3

    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise BadInput(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or later is needed, or PostgreSQL")
    if not path.exists():
        if not creates:
            raise BadInput(f"{path}: there is no such database; `accord collect import` makes one")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))  # names of people stand in it
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": 30, "isolation_level": None}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        settings = (
            "journal_mode=WAL synchronous=FULL foreign_keys=ON" if writes else "wal_autocheckpoint=0 query_only=ON"
        )
        for setting in settings.split():
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # the driver would begin late, and a lock that is asked for late can be refused in the middle
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def alembic_config() -> Any:
    """Where the migrations are."""
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(engine: "Engine", revision: str = "head") -> None:
    """Bring a database to a revision, newest by default, in one transaction. Raises BadInput for an unknown one."""
    from alembic import command
    from alembic.util import CommandError

    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            (command.downgrade if revision == "base" else command.upgrade)(config, revision)
        except CommandError as error:
            raise BadInput(f"the database was made by a newer version of Accord ({error}); update Accord") from None


def refuse_other_revision(engine: "Engine", address: str) -> None:
    """Raise BadInput where a database that is only read is not at the newest migration, or is none of feedback."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy.exc import DBAPIError

    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise BadInput(
            f"{address}: cannot be opened as a store of feedback ({str(error.orig).splitlines()[0]})"
        ) from None
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if found != newest:
        raise BadInput(
            f"{address}: is at migration {found or 'none'}, and this version of Accord reads {newest}; whatever writes "
            "to it, such as `accord collect import`, brings an older one up to date"
        )
