"""Live replies: one thread has them written while the server goes on answering; how many may wait is bounded."""

import queue
import sys
import threading
from collections.abc import Sequence
from typing import Protocol

from accord.errors import BadInput
from accord.feedback.store.assignments import Declined
from accord.feedback.store.talks import Reply, Talks
from accord.records import Turn

MOST_WAITING = 32
NO_REPLIES, TOO_MANY = "no_replies", "too_many_wait"  # keys of the words


class Responder(Protocol):
    """Who answers in live conversations."""

    def replies(self, turns: Sequence[Turn]) -> Sequence[Reply]:
        """Two different replies, whole. Raises BadInput, whose message a person reads, where there are none."""


class ReplyQueue:
    """Conversations that wait for replies, first come, first served.

    What a person wrote stands in the store before it waits here: whatever fails, they have it still.
    """

    def __init__(self, talks: Talks, responder: Responder, most: int = MOST_WAITING) -> None:
        self.talks, self._responder = talks, responder
        self._waiting: queue.Queue[int] = queue.Queue(most)
        self._inside: list[int] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="live-replies", daemon=True).start()

    def ask(self, number: int) -> None:
        """Have a conversation's replies written, once. Raises Declined where too many wait."""
        with self._lock:
            if number in self._inside:
                return
            try:
                self._waiting.put_nowait(number)
                self._inside.append(number)
            except queue.Full:
                self.talks.fail(number, TOO_MANY)
                raise Declined(TOO_MANY) from None

    def before(self, number: int) -> int:
        """How many conversations are answered before this one."""
        with self._lock:
            return self._inside.index(number) if number in self._inside else 0

    def _run(self) -> None:
        while True:
            number = self._waiting.get()
            problem = ""
            try:
                if turns := self.talks.asked(number):
                    self.talks.put(number, turns, self._responder.replies(turns))
            except BadInput as error:
                problem = str(error)
            except Exception as error:  # a model can fail in any way: one person is told, the others are served
                print(f"no replies: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                problem = NO_REPLIES
            if problem:
                self.talks.fail(number, problem)
            with self._lock:
                self._inside.remove(number)
