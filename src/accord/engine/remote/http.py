"""One JSON request over HTTP, for scorers, engines and labelers that are services."""

import functools
import ipaddress
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from accord.errors import BadInput

if TYPE_CHECKING:
    import httpx2

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_BYTES = 1 << 28  # of an answer
LONGEST_PAUSE = 300.0  # seconds that a server may ask to be left alone between two attempts

T = TypeVar("T")


class CallFailed(RuntimeError):
    """A service gave no usable answer; `status` is its HTTP status, 0 where there was no answer at all.

    `passing` says that the same request may be answered later, and `pause` after how many seconds. `slow`: it was
    sent, and the time that was given for the answer has passed.
    """

    def __init__(
        self, said: str, status: int = 0, *, passing: bool = False, pause: float = 0.0, slow: bool = False
    ) -> None:
        super().__init__(said)
        self.status, self.passing, self.pause, self.slow = status, passing, pause, slow


@functools.cache
def _client(environment: bool) -> "httpx2.Client":
    """One for all threads: as many requests at once as are asked for, each on a connection of its own.

    A connection that is kept for the next request may be closed by the service just then.
    """
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx2.Client(trust_env=environment, follow_redirects=False, limits=limits)


def checked_peer(url: str, *, allow_local: bool) -> str:
    """The address that the name in `url` stands for now, to be connected to whatever the name says later.

    Raises BadInput where there is none, and for one of this machine or its network unless that is allowed.
    """
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as error:
        raise BadInput(f"{url}: no such host ({error}); give the address of a server") from None
    peers = [str(entry[4][0]) for entry in found]
    for peer in peers:
        address = ipaddress.ip_address(peer.partition("%")[0])
        if not address.is_global and not allow_local:
            raise BadInput(
                f"{url}: {peer} is an address of this machine or its network; --allow_local asks it all the same"
            )
    return peers[0]


def call_json(
    url: str,
    body: Any = None,
    *,
    timeout: float,
    attempts: int = 1,
    headers: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
    peer: str = "",
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    read: Callable[[Any], T] = lambda answer: answer,
) -> T:
    """The JSON that `url` answers to a POST of `body`, or to a GET without one; an empty answer is None.

    What fails in passing (no connection, 429, 5xx, no JSON, or `read` says so) is tried `attempts` times, half a second
    and then longer apart, and as long as the server asks for. `timeout` is in seconds and for a whole attempt, and each
    is made inside `around()`, which may forbid it. No redirect is followed, which would send conversations to another
    host; a proxy of the environment is passed by for this machine, and where the address of the `peer` is given, to
    which the connection then goes. Raises CallFailed.
    """
    for attempt in range(attempts):
        try:
            with around():
                return read(_once(url, body, timeout, headers or {}, most_bytes, peer))
        except CallFailed as error:
            pause = max(0.5 * 2**attempt, error.pause)
            if not error.passing or attempt + 1 == attempts or pause > LONGEST_PAUSE:
                raise
        sleep(pause)
    raise AssertionError("attempts is at least 1")


def _once(url: str, body: Any, timeout: float, headers: Mapping[str, str], most_bytes: int, peer: str) -> Any:
    import httpx2

    parts = urlsplit(url)
    client = _client(parts.hostname not in LOCAL and not peer)
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    told, where = {"Content-Type": "application/json", **headers}, url
    extensions = {}
    deadline = monotonic() + timeout
    content = bytearray()
    try:
        if peer:  # the certificate is still that of the name
            told["Host"] = parts.netloc
            where = str(httpx2.URL(url).copy_with(host=peer))
            extensions = {"sni_hostname": parts.hostname}
        with client.stream(method, where, content=data, headers=told, timeout=timeout, extensions=extensions) as answer:
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > most_bytes:
                    raise CallFailed(f"answered more than {most_bytes} bytes", answer.status_code)
                if monotonic() > deadline:
                    raise _too_slow(timeout)
    except (httpx2.ReadTimeout, httpx2.WriteTimeout):
        raise _too_slow(timeout) from None
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise CallFailed(f"cannot be reached ({error})", passing=True) from None
    code = answer.status_code
    if code >= 300:
        said = content[:300].decode(errors="replace").strip()
        passing = code == 429 or code >= 500
        raise CallFailed(
            f"answered {code} {answer.reason_phrase}" + (f": {said}" if said else ""),
            code,
            passing=passing,
            pause=_seconds(answer.headers.get("Retry-After", "")) if passing else 0.0,
        )
    try:
        return json.loads(content) if content else None
    except ValueError:
        raise CallFailed(f"answered no JSON: {bytes(content[:80])!r}", code, passing=True) from None


def _too_slow(timeout: float) -> CallFailed:
    return CallFailed(f"did not end its answer in {timeout:g} seconds", passing=True, slow=True)


def _seconds(told: str) -> float:
    """What Retry-After asks for; a date, which hangs on two clocks, is left to the usual pauses."""
    return float(told) if told.strip().isdigit() else 0.0
