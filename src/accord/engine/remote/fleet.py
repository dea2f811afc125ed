"""Several servers of one model as one engine: each takes prompts as it can, and one that goes away loses none.

A prompt's draws are a function of the seed and its number, so it makes no difference which server answers, or whether
one answers twice. Of each server a bounded number of requests is in flight, and one that asks to be left alone is. A
server that cannot be reached is asked whether it is well until it is, given the weights of the hour, and takes prompts
again: after a restart it has those that it was started with.
"""

from collections import deque
from collections.abc import Callable, Sequence
from queue import Queue
from threading import Condition, Lock, Thread
from time import monotonic, sleep

from accord.engine.decode.draw import Finished, SampleSettings
from accord.engine.remote.vllm import AT_ONCE, Server, ServerAway
from accord.errors import BadInput
from accord.records import Rollout

PATIENCE = 600.0  # seconds that a server may be away before it is given up
TRIES = 8  # of one prompt at servers that are well
BUSY = 429  # the status of a server that has enough to do
PAUSE = 0.5  # seconds between two looks at a server, doubled up to LONGEST
LONGEST = 10.0

Revive = Callable[[Server], None]  # give a server that has come back the present weights
Told = tuple[int, list[Rollout]] | BaseException


def servers_at(where: str, longest: int = 0, knobs: str = "") -> list[Server]:
    """The servers at addresses with commas between them.

    BadInput where one is silent, or does not read the `longest` text that `knobs` let prompt and reply be, in tokens.
    """
    servers = [Server.at(url) for url in where.split(",")]
    for server in servers:
        if server.reads and longest > server.reads:
            raise BadInput(
                f"{server.url} reads {server.reads} tokens, and {knobs} is {longest}; "
                "start it with a larger --max-model-len, or give less"
            )
    return servers


class Fleet:
    """Servers that have the same weights, whose head has so many `rows`.

    `revive` is called for one that was away, before it draws again.
    """

    def __init__(self, servers: Sequence[Server], revive: Revive, *, rows: int = 0, patience: float = PATIENCE) -> None:
        self.servers, self.revive, self.rows, self.patience = list(servers), revive, rows, patience

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        """`settings.n` rollouts per prompt, prompt by prompt; `finished` hears of them as they come, in this thread.

        Raises BadInput where every server is given up, or one answers what no later try can mend.
        """
        errand = Errand(prompts, settings, self)
        found: dict[int, list[Rollout]] = {}
        try:
            while len(found) < len(prompts):
                told = errand.told.get()
                if isinstance(told, BaseException):
                    raise told
                place, replies = told
                found[place] = replies
                if finished is not None:
                    finished(place, replies)
        finally:
            errand.stop()
        return [rollout for place in range(len(prompts)) for rollout in found[place]]


class Errand:
    """One call of `sample`: prompts that wait, threads that ask, and what they found."""

    def __init__(self, prompts: Sequence[Sequence[int]], settings: SampleSettings, fleet: Fleet) -> None:
        self.prompts, self.settings, self.fleet = prompts, settings, fleet
        self.numbers = settings.numbered(len(prompts))
        self.told: Queue[Told] = Queue()
        self._waiting = deque(range(len(prompts)))
        self._tried = [0] * len(prompts)
        self._left = len(prompts)
        self._given_up = 0
        self._stopped = False
        self._changed = Condition()
        at_once = min(AT_ONCE, -(-len(prompts) // len(fleet.servers)))  # none takes what another could begin with
        for server in fleet.servers:
            away = Away(server, fleet)
            for _ in range(at_once):
                Thread(target=self._serve, args=(server, away), daemon=True).start()

    def stop(self) -> None:
        """Let no thread begin anything more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _serve(self, server: Server, away: "Away") -> None:
        """Ask a server for one prompt after the other."""
        try:
            while (place := self._take()) is not None:
                seen = away.returned
                try:
                    replies = server.ask(self.settings, self.prompts[place], self.numbers[place], self.fleet.rows)
                except ServerAway as error:
                    self._put_back(place, error)
                    if not self._mend(away, seen, error):
                        return
                else:
                    with self._changed:
                        self._left -= 1
                        self._changed.notify_all()
                    self.told.put((place, replies))
        except BaseException as error:
            self.told.put(error)

    def _take(self) -> int | None:
        """A prompt that waits; None once there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._left or self._stopped)
            return None if self._stopped or not self._waiting else self._waiting.popleft()

    def _put_back(self, place: int, error: ServerAway) -> None:
        """Let another try come; what fails again and again at servers that are well is no passing trouble."""
        with self._changed:
            self._tried[place] += error.status not in (0, BUSY)
            if self._tried[place] >= TRIES:
                raise error
            self._waiting.appendleft(place)
            self._changed.notify_all()

    def _mend(self, away: "Away", seen: int, error: ServerAway) -> bool:
        """Wait until the server may be asked again; False where it is given up."""
        if error.status == BUSY:
            sleep(max(PAUSE, error.pause))
            return True
        if away.back(seen, error.pause):
            return True
        with self._changed:
            self._given_up += away.counts_once()
            nobody = self._given_up == len(self.fleet.servers)
        if nobody:
            raise BadInput(f"{error}; no server has come back within {self.fleet.patience:g} seconds") from None
        return False


class Away:
    """One server's time away: the first thread that notices waits for it, the others wait for that thread."""

    def __init__(self, server: Server, fleet: Fleet) -> None:
        self._server, self._fleet = server, fleet
        self._one = Lock()
        self._lost = self._counted = False
        self.returned = 0

    def back(self, seen: int, pause: float) -> bool:
        """Whether the server is there again, with the present weights; `seen` is `returned` before it was asked."""
        with self._one:
            if self._lost or self.returned > seen:
                return not self._lost
            print(f"note: {self._server.url} is away; its prompts wait or go to others", flush=True)
            if not self._wait(pause):
                self._lost = True
                return False
            self.returned += 1
            return True

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
