"""The feedback page under load: answers that are durable before they are acknowledged; the next item of many."""

import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httptools
import numpy as np
from sqlalchemy import func, insert, select, update

from accord.feedback.store.assignments import DONE, LEASED
from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.store.questions import Item
from accord.feedback.store.schema import ASSIGNMENTS, CLOCK, EVENTS, ITEMS
from accord.records import Prompt, Turn
from benchmarks.ours.setting import Result
from benchmarks.postgres import cluster

SECRET = "s" * 64
CLIENTS = 8
FSYNC_SECONDS = 2.0
PATIENCE = 300.0  # seconds until a first question counts as none
BATCH = 20_000  # rows of one insert
ANSWER = {"choices": {"helpful": {"ranks": [1, 2], "strength": 1, "all_bad": False}}, "seconds": 20.0, "pasted": 0}
REPLY = "a reply as long as many are, of some twenty words or so, which say nothing at all, {} times over"


def fsyncs(folder: Path) -> float:
    """How often a second the disk makes 4 KiB durable: the bound on commits one after the other."""
    path, count = folder / "fsync", 0
    with open(path, "wb") as file:
        end = time.perf_counter() + FSYNC_SECONDS
        while time.perf_counter() < end:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            count += 1
    path.unlink()
    return count / FSYNC_SECONDS


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """The address of an empty store."""
    path = folder / f"store-{time.time_ns()}.db"
    with cluster(durable=True) if kind == "postgresql" else nullcontext(str(path)) as address:
        yield address
    for rest in folder.glob(f"{path.name}*"):
        rest.unlink()


@contextmanager
def served(address: str) -> Iterator[int]:
    """The port of the page of a store, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("feedback_server.py")), address, SECRET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def question(number: int) -> Item:
    """One of many that are alike; models disagree about it."""
    prompt = Prompt((Turn("user", f"question {number}"),), "", "")
    replies = (REPLY.format(number), REPLY.format(-number - 1))
    return Item("compare", prompt, replies, ("helpful",), ("m", "n"), score=(number % 997) / 2000)


def fill(address: str, items: int, labels: int, leased: int) -> list[tuple[int, str]]:
    """A store with questions, of which the first have labels and the next are `leased` by every client; the clients."""
    database = Database(address, writes=True)
    desk, people = Desk(database), People(database)
    clients = []
    for number in range(CLIENTS):
        session = people.join(people.invite("annotator", by=None), f"client {number}", "a long password")
        person = people.of_session(session)
        assert person is not None
        clients.append((person.id, session))

    def add(table: Any, rows: list[dict[str, Any]]) -> None:
        database.write(lambda connection: connection.execute(insert(table), rows).rowcount)

    for start in range(0, items, BATCH):
        add(ITEMS, [desk.item_row(question(n)) for n in range(start, min(items, start + BATCH))])
    first = database.write(lambda connection: connection.execute(select(CLOCK.c.number)).scalar_one())
    body = {**ANSWER, "order": [0, 1], "group": ""}
    for start in range(1, labels + 1, BATCH):
        numbers = range(start, min(labels + 1, start + BATCH))
        persons = {n: clients[n % CLIENTS][0] for n in numbers}
        said = {"kind": "answer", "submission": None, "at": 0.0, "body": body}
        add(EVENTS, [{**said, "number": first + n, "item": n, "person": persons[n]} for n in numbers])
        held = {"state": DONE, "until": 0.0, "shown": [0, 1], "draft": None}
        add(ASSIGNMENTS, [{**held, "item": n, "person": persons[n], "event": first + n} for n in numbers])
    waits = {"state": LEASED, "until": 1e12, "shown": [0, 1], "draft": None, "event": 0}
    numbers = range(labels + 1, labels + 1 + leased * CLIENTS)
    rows = [{**waits, "item": n, "person": clients[n % CLIENTS][0]} for n in numbers]
    for start in range(0, len(rows), BATCH):
        add(ASSIGNMENTS, rows[start : start + BATCH])

    def count(connection: Any) -> None:
        taken = ITEMS.c.id <= labels + leased * CLIENTS
        connection.execute(update(ITEMS).where(taken).values(taken=1, open=False))
        connection.execute(update(CLOCK).values(number=first + labels, wanted=items, done=labels))

    database.write(count)
    database.write(lambda connection: connection.exec_driver_sql("ANALYZE").rowcount)
    database.close()
    return clients


class Reply:
    """What comes back, read in C: the standard library's client would take a third of the time that the server has."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.text, self.complete = b"", False

    def on_body(self, body: bytes) -> None:
        self.text += body

    def on_message_complete(self) -> None:
        self.complete = True


class Client:
    """One person's connection, which stays open."""

    def __init__(self, port: int, session: str) -> None:
        token = hmac.new(SECRET.encode(), f"csrf:{session}".encode(), hashlib.sha256).hexdigest()
        self._headers = {"host": "127.0.0.1", "cookie": f"accord_session={session}", "x-csrf": token}
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=120)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def written(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """A request as it is sent."""
        sent = b"" if body is None else json.dumps(body).encode()
        about = {**self._headers, "content-type": "application/json", "content-length": str(len(sent))}
        head = "".join(f"{name}: {value}\r\n" for name, value in about.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + sent

    def ask(self, request: bytes) -> tuple[float, bool, str]:
        """Milliseconds of one request, whether it was taken, and the text of the reply."""
        began = time.perf_counter()
        self._connection.sendall(request)
        reply = Reply()
        while not reply.complete:
            reply.parser.feed_data(self._connection.recv(65536))
        return 1000 * (time.perf_counter() - began), reply.parser.get_status_code() == 200, reply.text.decode()


def feedback_submits(folder: Path) -> Result:
    """Submits a second, and the time of each, from eight clients at once: every answer is durable before it is told."""
    options = json.loads((folder / "options.json").read_text())
    each = options["submits"] // CLIENTS
    with store(options["database"], folder) as address:
        clients = fill(address, items=each * CLIENTS, labels=0, leased=each)
        found: list[tuple[float, bool, str]] = []

        with served(address) as port, ExitStack() as opened:
            work = []
            for person, session in clients:
                client = opened.enter_context(Client(port, session))
                numbers = [n for n in range(1, each * CLIENTS + 1) if clients[n % CLIENTS][0] == person]
                sent = (
                    {"item": n, "submission": f"bench-{n:08}", "mode": "compare", "answer": ANSWER} for n in numbers
                )
                work.append((client, [client.written("POST", "/api/answer", body) for body in sent]))
            for _ in range(20):
                work[0][0].ask(work[0][0].written("GET", "/me"))
            threads = [
                threading.Thread(target=lambda client, sent: found.extend([*map(client.ask, sent)]), args=each_one)
                for each_one in work
            ]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.perf_counter() - began
        database = Database(address, writes=False)
        with database.read() as connection:
            kept = connection.execute(select(func.count()).where(EVENTS.c.kind == "answer")).scalar_one()
        database.close()
    p50, p99 = np.quantile([spent for spent, _, _ in found], (0.5, 0.99))
    taken = sum(was_taken for _, was_taken, _ in found)
    return {
        "rate": taken / seconds,
        "p50": float(p50),
        "p99": float(p99),
        "sent": each * CLIENTS,
        "acknowledged": taken,
        "kept": kept,
        "fsyncs": fsyncs(folder),
    }


def feedback_next(folder: Path) -> Result:
    """How long the next item takes, as a page, in a large store with scores on its questions."""
    options = json.loads((folder / "options.json").read_text())
    with store(options["database"], folder) as address:
        clients = fill(address, items=options["items"], labels=options["labels"], leased=0)
        session, spent, shown = clients[0][1], [], 0
        with served(address) as port, Client(port, session) as client:
            for number in range(options["requests"] + 20):
                took, _, text = client.ask(client.written("GET", "/"))
                if number >= 20:  # the first ones load what the rest finds loaded
                    spent.append(took)
                item = re.search(r'data-item="(\d+)"', text)
                shown += item is not None
                if item is not None:
                    body = {"item": int(item[1]), "submission": f"skip-{number:08}", "reason": "other"}
                    client.ask(client.written("POST", "/api/skip", body))
    p50, p99 = np.quantile(spent, (0.5, 0.99))
    return {"p50": float(p50), "p99": float(p99), "shown": shown, "asked": options["requests"] + 20}


def feedback_start(folder: Path) -> Result:
    """Seconds from the command until the links are printed, and until somebody who joined at once sees a question."""
    options = json.loads((folder / "options.json").read_text())
    snapshot, database = options["snapshot"] or str(folder / "model"), folder / f"start-{time.time_ns()}.db"
    command = [sys.executable, "-m", "accord", "collect", "--snapshots", snapshot, "--database", str(database)]
    command += ["--criterion", "helpful", "--criterion", "harmless", "--port", "0"]
    # as people start it: on as many threads as it takes
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            link = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+/join/\S+", line)))
            links = time.perf_counter() - began
            shown = _first_question(link)
            return {"links": links, "question": time.perf_counter() - began, "shown": int(shown), "asked": 1}
        finally:
            process.kill()


def _first_question(link: str) -> bool:
    """Join by a link and look until there is a question; whether there was one."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), urllib.request.ProxyHandler({}))

    def read(address: str, form: dict[str, str] | None = None) -> str:
        body = urllib.parse.urlencode(form).encode() if form else None
        with browser.open(address, body, timeout=120) as response:
            return str(response.read().decode())

    token = re.search(r'name="csrf" value="(\w+)"', read(link))
    assert token is not None
    text = read(link, {"csrf": token[1], "name": "somebody", "password": "a long password"})
    home, until = link.partition("/join/")[0] + "/", time.perf_counter() + PATIENCE
    while "data-item" not in text and time.perf_counter() < until:
        time.sleep(0.1)
        text = read(home)
    return "data-item" in text
