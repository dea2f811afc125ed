"""Requests that the OpenAPI description allows, and some that it does not: the server answers each, none with 5xx."""

import hashlib
import hmac
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient

from accord.feedback.store.questions import LIVE, Item
from accord.feedback.store.talks import LiveQuestion, Talks
from accord.feedback.web.app import make_page
from accord.feedback.web.context import SESSION_COOKIE, Settings
from accord.feedback.web.guard import RequestRates
from accord.feedback.web.replies import ReplyQueue
from tests.fixtures.feedback import PASSWORD, comparison_item, prompt

SECRET = b"s" * 32
PARTS = 5  # of the slow test, of minutes each
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip install schemathesis)")


class Echo:
    """Two replies at once."""

    def replies(self, turns):
        return [(turns[-1].content + "?", "echo"), (turns[-1].content + "!", "echo")]


class Admin:
    """A browser of somebody who may do everything; whoever signs out or is forgotten joins anew."""

    def __init__(self, page, people):
        self.people, self.session, self.joined = people, "", 0
        self.browser = TestClient(page, follow_redirects=False)

    def send(self, request):
        """The answer to a request as schemathesis would send it, from this browser."""
        somebody = self.people.of_session(self.session) if self.session else None
        if somebody is None or somebody.role != "admin" or somebody.excluded:
            self.joined += 1
            self.session = self.people.join(self.people.invite("admin", by=None), f"admin {self.joined}", PASSWORD)
        self.browser.cookies.clear()
        self.browser.cookies.set(SESSION_COOKIE, self.session)
        token = hmac.new(SECRET, f"csrf:{self.session}".encode(), hashlib.sha256).hexdigest()
        headers = {**request.get("headers", {}), "x-csrf": token}
        body = {name: request[name] for name in ("json", "params") if name in request}
        if "data" in request:
            data = request["data"]
            body["content"] = (
                data if isinstance(data, bytes) else urlencode(data, doseq=True, errors="replace").encode()
            )
        return self.browser.request(request["method"], request["url"], headers=headers, **body)


def statuses_of(admin, operation, examples):
    """What the server says to requests of one operation."""
    from hypothesis import HealthCheck, Phase, given, settings

    said = set()

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def send(case):
        answer = admin.send(case.as_transport_kwargs(base_url="http://testserver"))
        said.add(answer.status_code)
        assert answer.status_code < 500, answer.text

    send()
    return said


@pytest.fixture
def page(desk, people):
    """Every route, with something to answer behind it."""
    live = {mode: LiveQuestion(("helpful",)) for mode in LIVE}
    page = make_page(desk, people, Settings(secret=SECRET), ReplyQueue(Talks(desk, live), Echo()))
    page.state.doors = page.state.clicks = RequestRates(10**9, 1.0)
    desk.add([comparison_item(f"q{n}", ("x", "y"), overlap=3) for n in range(20)])
    desk.add([Item("safety", prompt("s"), ("x",), ("harmless",)), Item("edit", prompt("e"), ("x",), ("helpful",))])
    return page


def operations_of(page):
    return [found.ok() for found in schemathesis.openapi.from_dict(page.openapi()).get_all_operations()]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_none_of_10000_requests_makes_the_server_fail(part, page, people):
    """Every fifth operation with its share of the 10,000."""
    admin, operations = Admin(page, people), operations_of(page)
    for operation in operations[part::PARTS]:
        statuses_of(admin, operation, 10_000 // len(operations) + 1)


BODIES = [
    {},
    {"of": 2**63, "role": "admin", "item": 2**63, "draft": {}, "mode": "compare"},
    {"item": -1, "submission": "\0" * 8, "mode": "edit", "answer": [], "reason": None, "language": 3, "text": {}},
]


def test_no_body_of_another_form_makes_the_server_fail(page, people):
    """Every route that changes something gets each of these as a form and as JSON."""
    admin, said = Admin(page, people), {}
    for path, methods in page.openapi()["paths"].items():
        request = {"method": "POST" if "post" in methods else "GET", "url": path.replace("{token}", "x")}
        form = {"headers": {"content-type": "application/x-www-form-urlencoded"}}
        for body in BODIES if "post" in methods else BODIES[:1]:
            for answer in (admin.send({**request, "json": body}), admin.send({**request, **form, "data": body})):
                assert answer.status_code < 500, (path, answer.text)
                said.setdefault(path, set()).add(answer.status_code)
    assert 403 not in set.union(*said.values()), "an admin may do everything"
    assert said["/people/role"] == {422}, "a number that no database holds was a 500 once"
    assert said["/people"] == {200} and said["/api/undo"] & {200, 409}


@pytest.mark.slow
def test_no_request_makes_the_server_fail(page, people):
    admin, operations = Admin(page, people), operations_of(page)
    answered = {
        f"{operation.method.upper()} {operation.path}": statuses_of(admin, operation, 200 // len(operations) + 1)
        for operation in operations
    }
    beyond = {"method": "POST", "url": "/people/role", "data": {"of": 2**63, "role": "admin"}}
    beyond["headers"] = {"content-type": "application/x-www-form-urlencoded"}
    assert admin.send(beyond).status_code == 422, "a number that no database holds was a 500 once"
    assert 403 not in set.union(*answered.values()), "an admin may do everything"
    assert answered["GET /"] == {200} and answered["POST /people/invite"] & {200, 422}
