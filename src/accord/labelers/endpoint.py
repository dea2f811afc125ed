"""A server that is asked: where it is, what it speaks, and one paid request to it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from accord.engine.remote.http import CallFailed, call_json, checked_peer
from accord.errors import BadInput
from accord.labelers.budget import Budget
from accord.labelers.wires import Post, Read, Wire, wires

MOST_BYTES = 1 << 22  # of an answer: a few tokens and their log-probs, or a text


@dataclass(frozen=True)
class Endpoint:
    """PROTOCOL:URL#MODEL; `timeout` is in seconds per attempt, `at_once` calls are in flight.

    `samples` answers are drawn where a server gives no probabilities.
    """

    protocol: str
    url: str
    model: str
    key_variable: str = ""
    allow_local: bool = False
    timeout: float = 60.0
    attempts: int = 5
    at_once: int = 32
    samples: int = 8

    @classmethod
    def named(cls, where: str, **options: Any) -> "Endpoint":
        """As in `openai:https://api.example.com/v1#judge`. Raises BadInput for anything else."""
        protocol, _, rest = where.partition(":")
        url, _, model = rest.partition("#")
        parts = urlsplit(url)
        if protocol not in wires(1) or parts.scheme not in ("http", "https") or not parts.hostname or not model:
            raise BadInput(f"{where}: write PROTOCOL:URL#MODEL, PROTOCOL one of {', '.join(wires(1))}")
        if parts.username or parts.password or parts.query:
            raise BadInput(f"{protocol}:{parts.scheme}://{parts.hostname}: an address holds no key; see --key_variable")
        return cls(protocol, url.rstrip("/"), model, **options)


@dataclass
class Spent:
    """What the calls for one question took: their number, tokens sent and answered, cost, seconds."""

    calls: int = 0
    sent: int = 0
    answered: int = 0
    cost: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def json(self) -> dict[str, Any]:
        took = round(time.monotonic() - self.since, 3)
        return {"calls": self.calls, "sent": self.sent, "answered": self.answered, "cost": self.cost, "seconds": took}


class Caller:
    """Requests to an endpoint within a budget.

    Raises BadInput where it may not be asked, and where its key is missing or would travel in the clear.
    """

    def __init__(self, endpoint: Endpoint, budget: Budget) -> None:
        self.endpoint = endpoint
        self.wire: Wire = wires(endpoint.samples)[endpoint.protocol]
        self._budget = budget
        self._peer = checked_peer(endpoint.url, allow_local=endpoint.allow_local)
        key = os.environ.get(endpoint.key_variable or self.wire.key_variable, "")
        if endpoint.key_variable and not key:
            raise BadInput(f"--key_variable {endpoint.key_variable}: no such environment variable, or it is empty")
        if key and endpoint.url.startswith("http://") and not endpoint.allow_local:
            raise BadInput(f"{endpoint.url}: the key would travel readable by anyone; use https")
        self._headers = self.wire.headers(key)
        self._limit = "max_tokens"

    def post(self, spent: Spent) -> Post:
        """What sends a body with the model's name in it, and counts what that takes."""

        def send(body: dict[str, Any], most: int, read: Read) -> Any:
            limit = {self._limit: most} if most else {}
            try:
                return self._call(spent, {"model": self.endpoint.model, **body, **limit}, most, read)
            except CallFailed as error:
                if error.status != 400 or "max_completion_tokens" not in str(error) or "max_tokens" not in limit:
                    raise
                self._limit = "max_completion_tokens"  # newer models of the protocol's author ask for this name
                return send(body, most, read)

        return send

    def _call(self, spent: Spent, body: dict[str, Any], most: int, read: Read) -> Any:
        """One request with its retries. A token has a byte at least, so the body bounds what is sent."""
        dearest = self._budget.prices.of(len(json.dumps(body).encode()), most)

        @contextmanager
        def paid() -> Iterator[None]:
            self._budget.take(dearest)
            spent.calls += 1
            before, cost = (spent.sent, spent.answered), dearest
            try:
                yield
                cost = self._budget.prices.of(spent.sent - before[0], spent.answered - before[1])
            except CallFailed as error:
                cost = 0.0 if error.status >= 300 else dearest  # what was not refused may be billed
                raise
            finally:
                self._budget.settle(dearest, cost)
                spent.cost += cost

        def told(answer: Any) -> Any:
            found = read(answer)
            spent.sent, spent.answered = (
                old + new for old, new in zip((spent.sent, spent.answered), self._usage(answer), strict=True)
            )
            return found

        return call_json(
            self.endpoint.url + self.wire.route,
            body,
            timeout=self.endpoint.timeout,
            attempts=self.endpoint.attempts,
            headers=self._headers,
            most_bytes=MOST_BYTES,
            peer=self._peer,
            around=paid,
            read=told,
        )

    def _usage(self, answer: Any) -> tuple[int, ...]:
        """Tokens sent and answered. BadInput where a budget of money has nothing to go by."""
        usage = answer.get("usage") if isinstance(answer, dict) else None
        counts = [usage.get(name) if isinstance(usage, dict) else None for name in self.wire.usage]
        if self._budget.counts_money and not all(isinstance(count, int) and count >= 0 for count in counts):
            raise BadInput(
                f"{self.endpoint.url}: the server tells no usage, so --max_cost can not be kept; leave it out"
            )
        return tuple(count if isinstance(count, int) else 0 for count in counts)
