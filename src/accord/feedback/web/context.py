"""What every route has at hand: the store, the settings, the words, and how text of models and people is shown."""

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import AfterValidator

from accord.feedback.store.desk import Desk
from accord.feedback.store.people import SESSION, People, Person, Role
from accord.feedback.web.differences import differences
from accord.feedback.web.live_quality import LiveQuality
from accord.feedback.web.replies import ReplyQueue

HERE = Path(__file__).resolve().parents[1]
STATIC = HERE / "static"
SESSION_COOKIE, VISIT_COOKIE, LANGUAGE_COOKIE = "accord_session", "accord_visit", "accord_language"
FENCE = re.compile(r"^```[^\n]*\n(.*?)(?:^```[ \t]*$\n?|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Settings:
    """How a page is set up. `prefix` is its path behind a proxy; `secure` says that it is reached by https."""

    secret: bytes
    title: str = "Accord"
    guidelines: str = ""
    categories: tuple[str, ...] = ()
    help_line: str = ""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]", "testserver")
    prefix: str = ""
    secure: bool = False
    language: str = "en"


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character, which is no text; delete it")
    return text


# of every field whose text a column holds or is compared with: PostgreSQL fails on NUL, SQLite cuts or keeps it
STORABLE = AfterValidator(_storable)


class Forbidden(Exception):
    """A request that its sender may not make; `status` is what they are told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Page:
    """One page: its store, its settings, and who answers in live conversations where there are any."""

    desk: Desk
    people: People
    settings: Settings
    replies: ReplyQueue | None = None
    templates: Environment = field(init=False)
    quality: LiveQuality = field(init=False)

    def __post_init__(self) -> None:
        self.quality = LiveQuality(self.desk)
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self.templates.filters["pieces"] = pieces
        self.templates.globals["differences"] = differences

    def person(self, request: Request) -> Person | None:
        """Who asks; None where nobody is signed in."""
        session = request.cookies.get(SESSION_COOKIE, "")
        return self.people.of_session(session) if session else None

    def csrf(self, request: Request) -> str:
        """What a form of this browser must bring, and no other site can read: bound to its session or visit."""
        bound = request.cookies.get(SESSION_COOKIE) or getattr(request.state, "visit", "")
        return hmac.new(self.settings.secret, f"csrf:{bound}".encode(), hashlib.sha256).hexdigest()

    def language(self, request: Request) -> str:
        """Of the words: chosen, else the browser's first that there is, else the page's."""
        chosen = request.cookies.get(LANGUAGE_COOKIE, "")
        wanted = [chosen, *re.findall(r"([a-z]{2})(?:-\w+)?", request.headers.get("accept-language", "").lower())]
        return next((name for name in wanted if name in languages()), self.settings.language)

    def words(self, request: Request) -> dict[str, str]:
        return languages()[self.language(request)]

    def show(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A template as a response; a browser without session gets the visit that its form is bound to."""
        fresh = not request.cookies.get(SESSION_COOKIE) and not request.cookies.get(VISIT_COOKIE)
        request.state.visit = secrets.token_urlsafe(16) if fresh else request.cookies.get(VISIT_COOKIE, "")
        text = self.templates.get_template(template).render(
            t=self.words(request),
            language=self.language(request),
            languages=list(languages()),
            csrf=self.csrf(request),
            base=self.settings.prefix,
            page=self.settings,
            live=list(self.replies.talks.questions) if self.replies else [],
            **{"person": None, **values},
        )
        response = HTMLResponse(text, status)
        if fresh:
            self.set_cookie(response, VISIT_COOKIE, request.state.visit)
        return response

    def set_cookie(self, response: Response, name: str, value: str) -> None:
        """A cookie that scripts cannot read and other sites do not send."""
        response.set_cookie(
            name,
            value,
            max_age=int(SESSION),
            path=self.settings.prefix or "/",
            httponly=True,
            secure=self.settings.secure,
            samesite="lax",
        )


def page_of(request: Request) -> Page:
    page: Page = request.app.state.page
    return page


def signed_in(request: Request, role: Role) -> Person:
    """The person who asks, who may do what `role` may. Raises Forbidden."""
    person = page_of(request).person(request)
    if person is None:
        raise Forbidden(401, "sign_in_first")
    if not person.may(role):
        raise Forbidden(403, "not_allowed")
    return person


def require(role: Role) -> Any:
    """The same as a dependency."""

    def somebody(request: Request) -> Person:
        return signed_in(request, role)

    return somebody


@cache
def languages() -> dict[str, dict[str, str]]:
    """The words of every language there is a file for; to add one, translate `words/en.json`."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "words").glob("*.json"))}


def pieces(text: str) -> list[tuple[str, str]]:
    """A text as prose and code in turn: what stands between fences is code. The template escapes both."""
    found: list[tuple[str, str]] = []
    place = 0
    for match in FENCE.finditer(text):
        found += [("prose", text[place : match.start()]), ("code", match[1])]
        place = match.end()
    return [piece for piece in [*found, ("prose", text[place:])] if piece[1].strip()]
