"""What stands before every route: hosts, sizes, rates, forged requests, headers. docs/threats.md says why."""

import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request

from accord.feedback.web.context import SESSION_COOKIE, VISIT_COOKIE, Forbidden, page_of

MOST_BYTES = 256 * 1024
CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf"
# the page runs its own script and style and nothing else, sends nothing elsewhere, and stands in no frame
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # under no-referrer a browser sends `Origin: null` with our own forms
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class SecureHeaders:
    """Puts `HEADERS` on every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class BodyLimit:
    """Refuses a body of more than `MOST_BYTES` before anything is made of it, also one that does not say its length."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more and len(body) <= MOST_BYTES:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MOST_BYTES:
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"too large"})
            return
        handed = False

        async def whole() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, whole, send)


class RequestRates:
    """How often somebody may do something: `most` in a row, then one every `seconds`."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, who: str) -> None:
        """Count one. Raises Forbidden with 429 where it is one too many."""
        with self._lock:
            now = self.clock()
            left, since = self._left.pop(who, (float(self.most), now))
            left = min(float(self.most), left + (now - since) / self.seconds)
            self._left[who] = (max(left - 1, 0.0) if left >= 1 else left, now)
            while len(self._left) > 10_000:
                self._left.popitem(last=False)
        if left < 1:
            raise Forbidden(429, "too_often")


async def refuse_forged(request: Request) -> None:
    """A dependency of every route that changes something: sent by a page of ours. Raises Forbidden.

    The form or header must bring the token of the browser's session, and a browser that says where the request comes
    from must say: from here.
    """
    if request.method in ("GET", "HEAD"):
        return
    page = page_of(request)
    origin = request.headers.get("origin")
    here = {request.headers.get("host", ""), *page.settings.hosts}
    if origin is not None and urlsplit(origin).netloc not in here:
        raise Forbidden(403, "forged")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden(403, "forged")
    brought = request.headers.get(CSRF_HEADER, "")
    if not brought and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        brought = str((await request.form()).get(CSRF_FIELD, ""))
    request.state.visit = request.cookies.get(VISIT_COOKIE, "")
    bound = request.cookies.get(SESSION_COOKIE) or request.state.visit
    if not bound or not hmac.compare_digest(brought.encode(), page.csrf(request).encode()):
        raise Forbidden(403, "forged")


def client_of(request: Request) -> str:
    """By what a browser without session is counted; kept in memory alone, never stored."""
    return request.client.host if request.client else ""
