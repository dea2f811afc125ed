"""What reviewers and admins see: how far the work is, who takes part, and invitations. Every change is an event."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from accord.feedback.store.assignments import Declined
from accord.feedback.store.people import ROLES, Person, Role
from accord.feedback.web.context import STORABLE, page_of, require
from accord.feedback.web.live_quality import NEWEST

router = APIRouter()
Reviewer = Annotated[Person, Depends(require("reviewer"))]
Admin = Annotated[Person, Depends(require("admin"))]
Number = Annotated[int, Form(ge=1, le=2**31 - 1)]
Word = Annotated[str, Form(max_length=200), STORABLE]


@router.get("/people")
def people(request: Request, person: Reviewer) -> Response:
    return _list(request, person)


@router.get("/quality")
def show_quality(request: Request, person: Reviewer) -> Response:
    """How good the newest labels are; computed at most once a minute."""
    page = page_of(request)
    progress = page.desk.progress(person.id)
    found = page.quality.now()
    return page.show(request, "quality.html", person=person, progress=progress, found=found, newest=NEWEST)


@router.post("/people/invite")
def invite(
    request: Request,
    person: Admin,
    role: Annotated[Role, Form()],
    group: Word = "",
    tags: Word = "",
    uses: Annotated[int, Form(ge=1, le=1000)] = 1,
) -> Response:
    """The link is shown once, to the one who made it."""
    page = page_of(request)
    token = page.people.invite(role, by=person.id, group=group, tags=tags.split(), uses=uses)
    return _list(request, person, invitation=f"{page.settings.prefix}/join/{token}")


@router.post("/people/role")
def set_role(request: Request, person: Admin, of: Number, role: Annotated[Role, Form()]) -> Response:
    page_of(request).people.set_role(of, role, by=person.id)
    return RedirectResponse(page_of(request).settings.prefix + "/people", 303)


@router.post("/people/exclude")
def exclude(request: Request, person: Admin, of: Number, excluded: Annotated[bool, Form()]) -> Response:
    page_of(request).people.set_excluded(of, excluded, by=person.id)
    return RedirectResponse(page_of(request).settings.prefix + "/people", 303)


@router.post("/people/forget")
def forget(request: Request, person: Admin, of: Number) -> Response:
    if of == person.id:
        raise Declined("an admin is forgotten on their own page")
    page_of(request).people.forget(of, by=person.id)
    return RedirectResponse(page_of(request).settings.prefix + "/people", 303)


def _list(request: Request, person: Person, invitation: str = "") -> Response:
    page = page_of(request)
    known = [(somebody, page.desk.progress(somebody.id)["mine"]) for somebody in page.people.all()]
    return page.show(
        request,
        "people.html",
        person=person,
        people=known,
        progress=page.desk.progress(person.id),
        roles=ROLES,
        invitation=invitation,
    )
