"""Joining, signing in and out, the choice of language, and what the store holds about oneself."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from accord.feedback.store.assignments import Declined
from accord.feedback.store.people import PASSWORD_LENGTHS, Person
from accord.feedback.web.context import LANGUAGE_COOKIE, SESSION_COOKIE, STORABLE, languages, page_of, require
from accord.feedback.web.guard import client_of

router = APIRouter()
Text = Annotated[str, Form(max_length=200), STORABLE]
Annotator = Annotated[Person, Depends(require("annotator"))]


@router.get("/login")
def ask_for_password(request: Request) -> Response:
    return _form(request, "")


@router.get("/join/{token}")
def ask_for_name(request: Request, token: str) -> Response:
    return _form(request, token[:100])


@router.post("/login")
def log_in(request: Request, name: Text, password: Text) -> Response:
    return _enter(request, "", lambda: page_of(request).people.log_in(name, password))


@router.post("/join/{token}")
def join(request: Request, token: str, name: Text, password: Text) -> Response:
    return _enter(request, token[:100], lambda: page_of(request).people.join(token, name, password))


def _enter(request: Request, token: str, begin: Any) -> Response:
    """A session, as `begin` gives it, or the form again with what was wrong. Guessing passwords takes long."""
    page = page_of(request)
    request.app.state.doors.take(client_of(request))
    try:
        session = begin()
    except Declined as problem:
        return _form(request, token, 409, str(problem))
    response = _to(request, "/")
    page.set_cookie(response, SESSION_COOKIE, session)
    return response


def _form(request: Request, token: str, status: int = 200, problem: str = "") -> Response:
    """Name and password of who signs in, or joins by an invite's token, with what a password has to be."""
    return page_of(request).show(request, "sign.html", status, token=token, problem=problem, lengths=PASSWORD_LENGTHS)


@router.post("/logout")
def log_out(request: Request) -> Response:
    page = page_of(request)
    page.people.log_out(request.cookies.get(SESSION_COOKIE, ""))
    response = _to(request, "/login")
    response.delete_cookie(SESSION_COOKIE, path=page.settings.prefix or "/")
    return response


@router.post("/language")
def choose_language(request: Request, language: Text) -> Response:
    response = _to(request, "/")
    if language in languages():
        page_of(request).set_cookie(response, LANGUAGE_COOKIE, language)
    return response


@router.get("/me")
def about_me(request: Request, person: Annotator) -> Response:
    return page_of(request).show(request, "me.html", person=person)


@router.get("/me/export")
def export_me(request: Request, person: Annotator) -> Response:
    return _file(page_of(request).people.export(person.id))


@router.post("/me/harmful")
def choose_harmful(request: Request, person: Annotator, wanted: Annotated[bool, Form()] = False) -> Response:
    """Whether one gets texts that weigh on people."""
    page_of(request).people.opt_out(person.id, not wanted)
    return _to(request, "/me")


@router.post("/me/forget")
def forget_me(request: Request, person: Annotator) -> Response:
    page_of(request).people.forget(person.id, by=person.id)
    return _to(request, "/login")


def _to(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(page_of(request).settings.prefix + path, 303)


def _file(content: Any) -> JSONResponse:
    return JSONResponse(content, headers={"content-disposition": 'attachment; filename="accord.json"'})
