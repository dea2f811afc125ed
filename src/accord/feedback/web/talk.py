"""Live conversations in the browser: written to, answered by two replies at once, chosen from, rated at the end."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from accord.feedback.store.answers import LONGEST
from accord.feedback.store.people import Person
from accord.feedback.store.questions import Live
from accord.feedback.store.talks import HARMFUL
from accord.feedback.web.context import STORABLE, Page, page_of
from accord.feedback.web.questions import STRENGTHS, Counted, draft_as_form, minutes_left
from accord.feedback.web.replies import ReplyQueue

RATINGS = tuple(range(5))
router = APIRouter()


class SentAbout(BaseModel):
    """Which conversation a request is about: the one that is going on."""

    model_config = ConfigDict(extra="forbid", strict=True)
    mode: Live


class SentText(SentAbout):
    """What somebody writes; a draft unless it is sent."""

    text: Annotated[str, Field(max_length=LONGEST), STORABLE]
    send: bool


@router.get("/chat")
def chat(request: Request, person: Counted) -> Response:
    return _show(request, person, "chat")


@router.get("/redteam")
def redteam(request: Request, person: Counted) -> Response:
    return _show(request, person, "redteam")


@router.get("/api/talk")
def stands(request: Request, mode: Live, person: Counted) -> dict[str, int | bool]:
    """Whether replies are still written, and after how many others."""
    replies = _replies(page_of(request), mode)
    talk = replies.talks.waiting(person.id, mode)
    return {"waiting": talk > 0, "before": replies.before(talk)}


@router.post("/api/say")
def say(request: Request, sent: SentText, person: Counted) -> dict[str, int]:
    """Returns once what was written is durable; replies come later."""
    replies = _replies(page_of(request), sent.mode)
    number = replies.talks.write(person.id, sent.mode, sent.text, send=sent.send)
    if sent.send:
        replies.ask(number)
    return {"talk": number}


@router.post("/api/end")
def end(request: Request, sent: SentAbout, person: Counted) -> dict[str, str]:
    """The rating is due next."""
    _replies(page_of(request), sent.mode).talks.end(person.id, sent.mode)
    return {"to": f"/{sent.mode}"}


def _replies(page: Page, mode: Live) -> ReplyQueue:
    if page.replies is None or mode not in page.replies.talks.questions:
        raise HTTPException(404, "no conversations of this kind are held here")
    return page.replies


def _show(request: Request, person: Person, mode: Live) -> Response:
    """The conversation: what was said, and what is due."""
    page = page_of(request)
    replies = _replies(page, mode)
    talk = replies.talks.look(person.id, mode)
    if talk is not None and talk.waiting:
        replies.ask(talk.number)  # a server that was started again knows of none
    held = talk.held if talk else None
    return page.show(
        request,
        "talk.html",
        person=person,
        mode=mode,
        talk=talk,
        held=held,
        picks=replies.talks.questions[mode].picks,
        replies=[held.item.replies[number] for number in held.shown] if held else [],
        draft=draft_as_form(held) if held else {},
        minutes=minutes_left(page, person) if mode in HARMFUL else 0,
        progress=page.desk.progress(person.id),
        submission=secrets.token_urlsafe(16),
        strengths=STRENGTHS,
        ratings=RATINGS,
        longest=LONGEST,
    )
