"""One JSON request over HTTP, for scorers and engines that are services."""

import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class CallFailed(RuntimeError):
    """A service gave no usable answer; `status` is its HTTP status, 0 where there was no answer at all."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


class _Refuse(urllib.request.HTTPRedirectHandler):
    """A redirect would send conversations, or a path, to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def call_json(url: str, body: Any = None, *, timeout: float, attempts: int = 1) -> Any:
    """The JSON that `url` answers to a POST of `body`, or to a GET without one; an empty answer is None.

    What fails in passing (no connection, 429, 5xx) is tried `attempts` times, half a second and then longer apart. No
    redirect is followed; a proxy of the environment is passed by for this machine. Raises CallFailed.
    """
    handlers: list[urllib.request.BaseHandler] = [_Refuse()]
    if urlsplit(url).hostname in LOCAL:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    data = None if body is None else json.dumps(body).encode()
    for attempt in range(attempts):
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with opener.open(request, timeout=timeout) as response:
                text = response.read()
            break
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace").strip()
            failed = CallFailed(f"answered {error.code} {error.reason}" + (f": {said}" if said else ""), error.code)
            error.close()
            if error.code != 429 and error.code < 500:
                raise failed from None
        except OSError as error:
            failed = CallFailed(f"cannot be reached ({error})")
        if attempt + 1 == attempts:
            raise failed from None
        time.sleep(0.5 * 2**attempt)
    try:
        return json.loads(text) if text else None
    except ValueError:
        raise CallFailed(f"answered no JSON: {text[:80]!r}") from None
