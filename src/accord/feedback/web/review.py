"""Reviews in the browser: what people disagree about, what each said, and the reviewer's decision."""

import secrets
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from accord.feedback.store.answers import LONGEST
from accord.feedback.store.people import Person
from accord.feedback.store.reviews import Case, Reviews
from accord.feedback.web.context import page_of, require
from accord.feedback.web.questions import STRENGTHS, SentAnswer, draft_as_form, said_of

router = APIRouter()
Reviewer = Annotated[Person, Depends(require("reviewer"))]


@router.get("/review")
def review(request: Request, person: Reviewer, after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0) -> Response:
    """The next disagreement behind an item, or that there is none."""
    page = page_of(request)
    case = Reviews(page.desk).next(after)
    values: dict[str, Any] = {"person": person, "progress": page.desk.progress(person.id), "after": after}
    if case is None:
        return page.show(request, "agreed.html", **values)
    return page.show(
        request,
        "review.html",
        held=case.held,
        replies=[case.held.item.replies[number] for number in case.held.shown],
        said=_as_forms(case),
        known=draft_as_form(replace(case.held, draft=case.known)) if case.known else None,
        draft=draft_as_form(case.held),
        submission=secrets.token_urlsafe(16),
        strengths=STRENGTHS,
        longest=LONGEST,
        **values,
    )


@router.post("/api/decide")
def decide(request: Request, sent: SentAnswer, person: Reviewer) -> dict[str, int]:
    """Returns once the decision is durable."""
    return {"event": Reviews(page_of(request).desk).decide(person.id, sent.item, sent.submission, said_of(sent))}


def _as_forms(case: Case) -> list[tuple[str, dict[str, Any]]]:
    """Who said what, as the form would show it."""
    return [(said.labeler, draft_as_form(replace(case.held, draft=said.answer))) for said in case.said]
