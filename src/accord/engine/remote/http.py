"""One JSON request over HTTP, for scorers and engines that are services."""

import functools
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx2

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class CallFailed(RuntimeError):
    """A service gave no usable answer; `status` is its HTTP status, 0 where there was no answer at all."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


@functools.cache
def _client(local: bool) -> "httpx2.Client":
    """One for all threads: as many requests at once as are asked for, each on a connection of its own.

    A connection that is kept for the next request may be closed by the service just then.
    """
    import httpx2

    return httpx2.Client(trust_env=not local, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0))


def call_json(url: str, body: Any = None, *, timeout: float, attempts: int = 1) -> Any:
    """The JSON that `url` answers to a POST of `body`, or to a GET without one; an empty answer is None.

    What fails in passing (no connection, 429, 5xx) is tried `attempts` times, half a second and then longer apart;
    `timeout` is in seconds. No redirect is followed, which would send conversations to another host; a proxy of the
    environment is passed by for this machine. Raises CallFailed.
    """
    import httpx2

    client = _client(urlsplit(url).hostname in LOCAL)
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    for attempt in range(attempts):
        try:
            answer = client.request(
                method, url, content=data, headers={"Content-Type": "application/json"}, timeout=timeout
            )
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            failed = CallFailed(f"cannot be reached ({error})")
        else:
            code = answer.status_code
            if code < 300:
                break
            said = answer.content[:300].decode(errors="replace").strip()
            failed = CallFailed(f"answered {code} {answer.reason_phrase}" + (f": {said}" if said else ""), code)
            if code != 429 and code < 500:
                raise failed from None
        if attempt + 1 == attempts:
            raise failed from None
        time.sleep(0.5 * 2**attempt)
    try:
        return answer.json() if answer.content else None
    except ValueError:
        raise CallFailed(f"answered no JSON: {answer.content[:80]!r}") from None
