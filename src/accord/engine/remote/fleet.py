"""Several servers of one model as one: each takes pieces of work as it can, and one that goes away loses none.

What a piece comes to must not hang on which server does it, or whether it is done twice. Of each server a bounded
number of requests is in flight, and one that asks to be left alone is. A server that cannot be reached is asked whether
it is well until it is, is made ready (after a restart it is as it was started), and takes pieces again.
"""

from collections import deque
from collections.abc import Callable, Sequence
from queue import Queue
from threading import Condition, Lock, Thread
from time import monotonic, sleep
from typing import Generic, Protocol, TypeVar

from accord.errors import BadInput

PATIENCE = 600.0  # seconds that a server may be away, or busy with others, before it is given up
TRIES = 8  # of one piece at servers that are well in between, also where it got no answer at all
BUSY = 429  # the status of a server that has enough to do
PAUSE = 0.5  # seconds between two looks at a server, doubled up to LONGEST
LONGEST = 10.0
AT_ONCE = 256  # requests in flight at a server that batches them itself


class ServerAway(BadInput):
    """A server gave no answer just now; it may after `pause` seconds. `status` 0: it cannot be reached at all."""

    def __init__(self, said: str, status: int, pause: float) -> None:
        super().__init__(said)
        self.status, self.pause = status, pause


class Site(Protocol):
    """A server at an address."""

    @property
    def url(self) -> str: ...

    def is_well(self) -> bool:
        """Whether it answers that it can serve."""


S = TypeVar("S", bound=Site)
T = TypeVar("T")


class Fleet(Generic[S]):
    """Servers that do the same. `revive` makes one ready that was away, before it is asked again.

    `at_once` requests to each are in flight.
    """

    def __init__(
        self, servers: Sequence[S], revive: Callable[[S], None], *, patience: float = PATIENCE, at_once: int = 0
    ) -> None:
        self.servers, self.revive, self.patience = list(servers), revive, patience
        self.at_once = at_once or AT_ONCE

    def each(self, count: int, ask: Callable[[S, int], T], finished: Callable[[int, T], None] | None = None) -> list[T]:
        """`ask(server, place)` for each of so many places; `finished` hears of them as they come, in this thread.

        `ask` raises ServerAway where a later try may succeed. Raises BadInput where every server is given up, and what
        `ask` raises else.
        """
        errand = Errand(count, ask, self)
        found: dict[int, T] = {}
        try:
            while len(found) < count:
                told = errand.told.get()
                if isinstance(told, BaseException):
                    raise told
                place, answer = told
                found[place] = answer
                if finished is not None:
                    finished(place, answer)
        finally:
            errand.stop()
        return [found[place] for place in range(count)]


class Errand(Generic[S, T]):
    """One call of `each`: places that wait, threads that ask, and what they found."""

    def __init__(self, count: int, ask: Callable[[S, int], T], fleet: Fleet[S]) -> None:
        self.ask, self.fleet = ask, fleet
        self.told: Queue[tuple[int, T] | BaseException] = Queue()
        self._waiting = deque(range(count))
        self._tried: list[set[tuple[str, int]]] = [set() for _ in range(count)]  # servers, and their time of being well
        self._given_up = 0
        self._stopped = False
        self._changed = Condition()
        at_once = min(fleet.at_once, -(-count // len(fleet.servers)))  # none takes what another could begin with
        for server in fleet.servers:
            away = Away(server, fleet)
            for _ in range(at_once):
                Thread(target=self._serve, args=(server, away), daemon=True).start()

    def stop(self) -> None:
        """Let no thread begin anything more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _serve(self, server: S, away: "Away[S]") -> None:
        """Ask a server for one piece after the other."""
        try:
            while (place := self._take()) is not None:
                seen = away.returned
                try:
                    answer = self.ask(server, place)
                except ServerAway as error:
                    self._put_back(place, error, (server.url, seen))
                    if not self._mend(away, seen, error):
                        return
                else:
                    away.answered()
                    self.told.put((place, answer))
        except BaseException as error:
            self.told.put(error)

    def _take(self) -> int | None:
        """A place that waits; None once `stop` was called, as it is when all are done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            return None if self._stopped else self._waiting.popleft()

    def _put_back(self, place: int, error: ServerAway, when: tuple[str, int]) -> None:
        """Let another try come; what fails again and again at servers that are well is no passing trouble.

        Of one time of being well a server's failures count once: of one that dies, many threads may ask for the same.
        """
        with self._changed:
            if error.status != BUSY:
                self._tried[place].add(when)
            if len(self._tried[place]) >= TRIES:
                said = f"{error} (asked {TRIES} times, while it says that it is well)"
                raise ServerAway(said, error.status, error.pause) from None
            self._waiting.appendleft(place)
            self._changed.notify_all()

    def _mend(self, away: "Away[S]", seen: int, error: ServerAway) -> bool:
        """Wait until the server may be asked again; False where it is given up."""
        if away.rested(error.pause) if error.status == BUSY else away.back(seen, error.pause):
            return True
        with self._changed:
            self._given_up += away.counts_once()
            nobody = self._given_up == len(self.fleet.servers)
        if nobody:
            what = "answered anything else" if error.status == BUSY else "come back"
            said = f"{error}; no server has {what} within {self.fleet.patience:g} seconds"
            raise ServerAway(said, error.status, error.pause) from None
        return False


class Away(Generic[S]):
    """One server's time away: the first thread that notices waits for it, the others wait for that thread."""

    def __init__(self, server: S, fleet: Fleet[S]) -> None:
        self._server, self._fleet = server, fleet
        self._one = Lock()
        self._lost = self._counted = False
        self._busy_since: float | None = None
        self.returned = 0

    def back(self, seen: int, pause: float) -> bool:
        """Whether the server is there again, and ready; `seen` is `returned` before it was asked."""
        with self._one:
            if self._lost or self.returned > seen:
                return not self._lost
            print(f"note: {self._server.url} is away; its work waits or goes to others", flush=True)
            if not self._wait(pause):
                self._lost = True
                return False
            self.returned += 1
            return True

    def rested(self, pause: float) -> bool:
        """Leave a busy server alone as long as it asks; False where it has been nothing but busy for too long."""
        now = monotonic()
        with self._one:
            self._busy_since = now if self._busy_since is None else self._busy_since
            left = self._busy_since + self._fleet.patience - now
            self._lost |= left <= 0
            if self._lost:
                return False
        sleep(min(max(PAUSE, pause), left))
        return True

    def answered(self) -> None:
        """It has done a piece: it is not only busy."""
        with self._one:
            self._busy_since = None

    def _wait(self, pause: float) -> bool:
        until, pause = monotonic() + self._fleet.patience, max(PAUSE, pause)
        while monotonic() < until:
            sleep(min(pause, max(0.0, until - monotonic())))
            if self._server.is_well():
                try:
                    self._fleet.revive(self._server)
                    return True
                except ServerAway:
                    pass  # gone again
            pause = min(LONGEST, 2 * pause)
        return False

    def counts_once(self) -> bool:
        """True at the first call: the server is given up once, however many threads asked it."""
        with self._one:
            first, self._counted = not self._counted, True
            return first
