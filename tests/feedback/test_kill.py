"""The server is killed while eight people answer: nothing that was acknowledged is lost, and nothing is there twice."""

import hashlib
import hmac
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading

import httpx2
import pytest
from sqlalchemy import select

from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.store.schema import EVENTS
from tests.fixtures.feedback import audit, comparison_item

CLIENTS = 8
SECRET = "s" * 64
FIRST = {"choices": {"helpful": {"ranks": [1, 2], "strength": 2}}, "seconds": 3}


class Client:
    """Somebody in a browser, who sends again what was not acknowledged when the server is back."""

    def __init__(self, person, session):
        self.person = person
        self.cookies = {"accord_session": session}
        token = hmac.new(SECRET.encode(), f"csrf:{session}".encode(), hashlib.sha256).hexdigest()
        self.headers = {"x-csrf": token}
        self.waiting = None
        self.acknowledged = {}
        self.refused = []

    def work(self, base, count):
        """Answer until the server is gone; `count` is told of every answer that is acknowledged."""
        try:
            with httpx2.Client(trust_env=False, cookies=self.cookies, headers=self.headers, timeout=30) as browser:
                while self.answer(browser, base):
                    count()
        except httpx2.HTTPError:
            return  # it is gone, or was on its way

    def answer(self, browser, base):
        """One answer; whether there was a question."""
        if self.waiting is None:
            page = browser.get(f"{base}/").text
            if "data-item" not in page:
                return False
            item, submission = (re.search(rf'data-{name}="([^"]+)"', page)[1] for name in ("item", "submission"))
            self.waiting = {"item": int(item), "submission": submission, "mode": "compare", "answer": FIRST}
        said = browser.post(f"{base}/api/answer", json=self.waiting)
        if said.status_code == 200:
            self.acknowledged[self.waiting["submission"]] = (said.json()["event"], self.waiting["item"])
        else:
            self.refused.append(said.text)
        self.waiting = None
        return True


def start(address, secret):
    """The program in a process of its own, and where it serves."""
    words = ["collect", "--database", address, "--port", "0", "--secret", str(secret)]
    served = subprocess.Popen([sys.executable, "-m", "accord", *words], stdout=subprocess.PIPE, text=True)
    line = served.stdout.readline()
    return served, re.search(r"http://127\.0\.0\.1:\d+", line)[0]


def sessions_of(address, count):
    """People who have joined, each signed in; their passwords are never asked for."""
    database = Database(address, writes=True)
    people = People(database)
    found = []
    for n in range(count):
        token = people.invite("annotator", by=None)
        session = people.join(token, f"client {n}", "long enough for all")
        found.append((people.of_session(session).id, session))
    return database, found


def killed_again_and_again(address, kills, folder, first=0):
    """Start, answer, kill; what clients saw. `first` is the number of the first kill, which says when each comes."""
    database, sessions = sessions_of(address, CLIENTS)
    Desk(database).add([comparison_item(f"q{n}", ("x", "y"), overlap=2) for n in range(60 * kills + 60)])
    database.close()
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    clients = [Client(person, session) for person, session in sessions]
    for n in range(kills):
        served, base = start(address, secret)
        enough, counted, lock = threading.Event(), [0], threading.Lock()
        due = random.Random(first + n).randrange(1, 60)

        def count(enough=enough, counted=counted, lock=lock, due=due):
            with lock:
                counted[0] += 1
                if counted[0] >= due:
                    enough.set()

        threads = [threading.Thread(target=client.work, args=(base, count)) for client in clients]
        for thread in threads:
            thread.start()
        assert enough.wait(60), "nobody could answer"
        os.kill(served.pid, signal.SIGKILL)
        served.wait()
        served.stdout.close()
        for thread in threads:
            thread.join()
    return clients


def check_after_kills(address, clients):
    store = Database(address, writes=True)
    with store.read() as connection:
        audit(connection)
        kept = {
            row.submission: (row.number, row.item, row.person)
            for row in connection.execute(select(EVENTS).where(EVENTS.c.kind == "answer"))
        }
    store.close()
    acknowledged = {
        submission: (event, item, client.person)
        for client in clients
        for submission, (event, item) in client.acknowledged.items()
    }
    assert acknowledged.items() <= kept.items(), "an acknowledged answer was lost or changed"
    waiting = {client.waiting["submission"] for client in clients if client.waiting}
    assert set(kept) - set(acknowledged) <= waiting, "only what was on its way may be kept without having been told"
    assert len({(item, person) for _, item, person in kept.values()}) == len(kept), "an answer is there twice"
    assert not [text for client in clients for text in client.refused], "what is sent again is taken as before"


def many(kills, of):
    """So many kills in parts of minutes, each on a store of its own: `-k sqlite`, or one part by its number."""
    return [pytest.param(first, of, marks=pytest.mark.slow) for first in range(0, kills, of)]


@pytest.mark.parametrize("first, kills", many(200, of=40))
def test_the_server_is_killed_under_eight_clients_on_sqlite(first, kills, tmp_path):
    address = str(tmp_path / "feedback.db")
    check_after_kills(address, killed_again_and_again(address, kills, tmp_path, first))


@pytest.mark.parametrize("first, kills", many(50, of=25))
def test_the_server_is_killed_under_eight_clients_on_postgresql(first, kills, empty_postgres, tmp_path):
    check_after_kills(empty_postgres, killed_again_and_again(empty_postgres, kills, tmp_path, first))
    if shutil.which("pg_amcheck"):
        host, user = re.search(r"host=([^&]+)&user=(\w+)", empty_postgres).groups()
        words = ["pg_amcheck", "--install-missing", "--heapallindexed", "-h", host, "-U", user, "postgres"]
        assert subprocess.run(words, timeout=300, check=False).returncode == 0


@pytest.mark.slow
def test_fifty_people_on_ten_thousand_items_with_disconnects_are_exactly_as_many_as_asked(tmp_path):
    """Every tenth item is left in the middle, and of every tenth answer the acknowledgement is lost and it is sent
    again; those who left come back when their leases have ended."""
    now = [1000.0]
    database, sessions = sessions_of(str(tmp_path / "feedback.db"), 50)
    desk = Desk(database, lease=100.0, clock=lambda: now[0])
    desk.add([comparison_item(f"q{n}", ("x", "y"), overlap=1 + n % 3) for n in range(10_000)])
    answers = {"choices": {"helpful": {"ranks": [1, 2]}}}

    def work(person, leaves):
        from accord.feedback.store.answers import CompareAnswer

        dice = random.Random(f"{person} {now[0]}")
        while (held := desk.next(person)) is not None:
            if leaves and dice.random() < 0.02:
                return
            name = f"{person}-{held.number}-{now[0]}"
            event = desk.submit(person, held.number, name, CompareAnswer(**answers))
            if dice.random() < 0.1:
                assert desk.submit(person, held.number, name, CompareAnswer(**answers)) == event

    for round_ in range(40):
        threads = [threading.Thread(target=work, args=(person, round_ < 39)) for person, _ in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now[0] += 1000
    with database.read() as connection:
        audit(connection, whole=True)
    database.close()
