"""The desk in the browser: one item at a time, answered, skipped, taken back, half done."""

import asyncio
import math
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from accord.feedback.store.answers import ANSWERS, LONGEST, PersonAnswer
from accord.feedback.store.assignments import Declined, Handout
from accord.feedback.store.people import Person
from accord.feedback.store.questions import Mode, is_aided
from accord.feedback.web.context import Forbidden, Page, page_of, signed_in

SKIP_REASONS = ("unclear", "expertise", "harmful", "language", "broken", "other")
STRENGTHS = tuple(range(1, 8))  # keys of two replies: 1 the left by far, 4 a tie, 7 the right by far


def counted(request: Request) -> Person:
    """Who asks, not too often; somebody who is excluded is asked nothing more.

    One dependency and not one on another: each is a way to a thread and back.
    """
    person = signed_in(request, "annotator")
    request.app.state.clicks.take(str(person.id))
    if person.excluded:
        raise Forbidden(403, "excluded")
    return person


Counted = Annotated[Person, Depends(counted)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Submission = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
router = APIRouter()


class Sent(BaseModel):
    """What a request about an item says."""

    model_config = ConfigDict(extra="forbid", strict=True)
    item: Number


class SentAnswer(Sent):
    """An answer, with the id that the page gave it."""

    submission: Submission
    mode: Mode
    answer: dict[str, Any]


def said_of(sent: SentAnswer) -> PersonAnswer:
    """The answer in the form of its mode. Raises Forbidden."""
    try:
        return ANSWERS[sent.mode].model_validate(sent.answer)
    except ValidationError as error:
        raise Forbidden(422, "; ".join(problem["msg"] for problem in error.errors())) from None


class SentSkip(Sent):
    """An item that is given back."""

    submission: Submission
    seconds: float = Field(0.0, ge=0, le=86_400)
    reason: str = Field(pattern=f"^({'|'.join(SKIP_REASONS)})$")


class SentDraft(Sent):
    """What is half done, in the form of an answer or a part of it; only its writer sees it again."""

    draft: dict[str, Any]


@router.get("/")
def question(request: Request, person: Counted) -> Response:
    """The next item, or that there is none."""
    page = page_of(request)
    held = page.desk.next(person.id)
    progress = page.desk.progress(person.id)
    if held is None:
        minutes = minutes_left(page, person)
        return page.show(request, "done.html", person=person, progress=progress, minutes=minutes)
    return page.show(
        request,
        "item.html",
        person=person,
        progress=progress,
        held=held,
        replies=[held.item.replies[number] for number in held.shown],
        aided=is_aided(held.item, person.id),
        draft=draft_as_form(held),
        submission=secrets.token_urlsafe(16),
        reasons=SKIP_REASONS,
        strengths=STRENGTHS,
        longest=LONGEST,
    )


@router.get("/api/next")
def look(request: Request, person: Counted) -> dict[str, bool]:
    """Whether there is a question, for a page that waits for one."""
    return {"found": page_of(request).desk.waits_for(person.id)}


def minutes_left(page: Page, person: Person) -> int:
    """Until harmful questions come again; 0 where no break keeps them away."""
    until = page.desk.exposure(person.id).until
    return math.ceil(max(until - page.desk.clock(), 0) / 60)


@router.post("/api/answer")
async def answer(request: Request, sent: SentAnswer, person: Counted) -> dict[str, int]:
    """Returns once the answer is durable."""
    # no thread waits for the writer's: of the many that would at one time, each takes its turn from the rest
    taken = page_of(request).desk.hand_in(person.id, sent.item, sent.submission, said_of(sent))
    return {"event": await asyncio.wrap_future(taken)}


@router.post("/api/skip")
def skip(request: Request, sent: SentSkip, person: Counted) -> dict[str, int]:
    return {"event": page_of(request).desk.skip(person.id, sent.item, sent.submission, sent.reason, sent.seconds)}


@router.post("/api/undo")
def undo(request: Request, person: Counted) -> dict[str, int | str]:
    """The question comes back, on the page where it was answered."""
    held = page_of(request).desk.undo(person.id)
    return {"item": held.number, "to": "/" + held.item.talk.partition("/")[0]}


@router.post("/api/draft")
def draft(request: Request, sent: SentDraft, person: Counted) -> dict[str, float]:
    if len(repr(sent.draft)) > 2 * LONGEST:
        raise Declined("a draft is no longer than an answer")
    return {"until": page_of(request).desk.keep_draft(person.id, sent.item, sent.draft)}


def draft_as_form(held: Handout) -> dict[str, Any]:
    """A draft as the template reads it; one of another form is left out, piece by piece."""
    draft = held.draft if isinstance(held.draft, dict) else {}
    choices = draft.get("choices")
    form: dict[str, Any] = {
        "reply": draft["reply"] if isinstance(draft.get("reply"), str) else None,
        "safe": draft.get("safe"),
        "category": draft.get("category", ""),
        "severity": draft.get("severity", 0),
        "rating": draft.get("rating"),
        "comment": draft["comment"] if isinstance(draft.get("comment"), str) else "",
        "ranks": {},
        "key": {},
        "all_bad": {},
    }
    for criterion, choice in choices.items() if isinstance(choices, dict) else ():
        ranks = choice.get("ranks") if isinstance(choice, dict) else None
        if isinstance(ranks, list) and len(ranks) == len(held.item.replies):
            form["ranks"][criterion], form["all_bad"][criterion] = ranks, choice.get("all_bad") is True
            if len(ranks) == 2 and not form["all_bad"][criterion] and all(isinstance(rank, int) for rank in ranks):
                form["key"][criterion] = (
                    4 + (ranks[0] > ranks[1]) * _strength(choice) - (ranks[0] < ranks[1]) * _strength(choice)
                )
    return form


def _strength(choice: dict[str, Any]) -> int:
    said = choice.get("strength")
    return said if isinstance(said, int) and 1 <= said <= 3 else 1
