"""The application: routes behind their guards, and what a browser is told of what goes wrong."""

from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import text
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from accord.feedback.store.assignments import Declined
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.web import administration, entrance, questions, review, talk
from accord.feedback.web.context import STATIC, Forbidden, Page, Settings, page_of
from accord.feedback.web.guard import BodyLimit, RequestRates, SecureHeaders, refuse_forged
from accord.feedback.web.replies import ReplyQueue

API = "/api/"


def make_page(desk: Desk, people: People, settings: Settings, replies: ReplyQueue | None = None) -> FastAPI:
    """The page of a store, with live conversations where somebody replies in them.

    A proxy takes `settings.prefix` off the path; links have it before them.
    """
    app = FastAPI(title=settings.title, openapi_url=None)
    app.state.page = Page(desk, people, settings, replies)
    app.state.doors = RequestRates(10, 6.0)  # passwords and invitations from one address
    app.state.clicks = RequestRates(120, 0.2)  # whatever else one person does
    for part in (questions, talk, review, entrance, administration):
        app.include_router(part.router, dependencies=[Depends(refuse_forged)])
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Whether the store answers."""
        with desk.database.read() as connection:
            connection.execute(text("SELECT 1"))
        return {"status": "ok"}

    app.add_exception_handler(Forbidden, lambda request, error: _forbid(request, error))
    app.add_exception_handler(Declined, lambda request, error: _tell(request, 409, _in_words(request, error)))
    app.add_exception_handler(RequestValidationError, lambda request, error: _tell(request, 422, _problems(error)))
    app.add_exception_handler(HTTPException, lambda request, error: _tell(request, *_http(error)))
    app.add_middleware(BodyLimit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts))
    app.add_middleware(SecureHeaders)
    return app


def _forbid(request: Request, error: Any) -> Response:
    """A page asks to sign in; anything else says why not, in the reader's language where there are words for it."""
    if error.status == 401 and request.method == "GET" and not request.url.path.startswith(API):
        return RedirectResponse(page_of(request).settings.prefix + "/login", 303)
    return _tell(request, error.status, _in_words(request, error))


def _in_words(request: Request, error: Exception) -> str:
    return page_of(request).words(request).get(str(error), str(error))


def _tell(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith(API):
        return JSONResponse({"problem": message}, status)
    return page_of(request).show(request, "problem.html", status, problem=message)


def _http(error: Any) -> tuple[int, str]:
    return error.status_code, str(error.detail)


def _problems(error: Any) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
