"""Every threat of docs/threats.md, tried: its last column names the test."""

import re
from html.parser import HTMLParser

import pytest

from accord.errors import BadInput
from accord.feedback.store.questions import Item
from accord.feedback.web import guard
from accord.feedback.web.context import Forbidden
from accord.feedback.web.guard import MOST_BYTES, RequestRates
from accord.records import Prompt, Turn
from accord.stages.collect.run import page_secret
from tests.fixtures.feedback import PASSWORD, comparison_item, prompt

PAYLOADS = [
    "<script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "[x](javascript:alert(1))",
    "```\n</code></pre><script>alert(1)</script>\n```",
    "```<img src=x onerror=alert(1)>\nx\n```",
    "{{ 7 * 7 }}{% raw %}",
    "</title><script>alert(1)</script>",
    "<math><mtext></form><form action=//evil.example>",
    "\u202e<ScRiPt>alert(1)</sCrIpT>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<style>@import '//evil.example/x.css'</style>",
    "<base href=//evil.example/>",
]
# tags, the end of a field, of an attribute, of a block of code, of a template and of an entity
FEW = [PAYLOADS[n] for n in (0, 1, 2, 3, 7, 9, 13)]
SHARES = [pytest.param(FEW, id="few"), pytest.param(PAYLOADS, id="all", marks=pytest.mark.slow)]


class Seen(HTMLParser):
    """Tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def harmless(text, payload):
    """The page holds the payload as text, and neither tags nor attributes that ours have not."""
    seen = Seen(text)
    assert set(seen.tags).isdisjoint({"img", "svg", "iframe", "math", "mtext", "style", "base", "object"})
    assert seen.tags.count("script") <= 1 and not [name for name, _ in seen.attributes if name.startswith("on")]
    for name, value in seen.attributes:
        assert name not in ("href", "src", "action") or value.startswith(("/", "#")), (name, value)
    bare = payload.removeprefix("```\n").removesuffix("\n```")
    return bare in seen.text or bare in [value for _, value in seen.attributes]


@pytest.mark.parametrize("payloads", SHARES)
def test_text_of_models_and_people_is_shown_and_never_run(browser, desk, payloads):
    for payload in payloads:
        turns = tuple(Turn(role, payload) for role in ("system", "user", "assistant", "tool", "user"))
        desk.add([Item("compare", Prompt(turns, "", ""), (payload, payload + "!"), (payload,), ("m", "n"))])
    browser.sign_in("Ada")
    for payload in payloads:
        shown = browser.get("/").text
        # the rest of a fence's first line is no part of the code
        assert harmless(shown, payload) or payload.startswith("```<"), payload
        item = int(re.search(r'data-item="(\d+)"', shown)[1])
        browser.api("draft", item=item, draft={"reply": payload, "choices": {payload: {"ranks": [1, 2]}}})
        harmless(browser.get("/").text, payload)
        assert browser.api("skip", item=item, submission=f"skip-{item:05}", reason="other").status_code == 200
    assert "data-item" not in browser.get("/").text


@pytest.mark.parametrize("payloads", SHARES)
def test_names_are_shown_and_never_run(make_browser, desk, app, payloads):
    app.state.doors = RequestRates(1000, 1.0)
    for payload in [p for p in payloads if len(p) <= 80 and p.isprintable()]:
        desk.add([Item("edit", prompt(payload), (payload,), ("helpful",), ("m",))])
        browser = make_browser().sign_in(payload, role="admin")
        for path in ("/", "/me", "/people"):
            assert harmless(browser.get(path).text, payload), (path, payload)
        form = {"csrf": browser.token("/people"), "role": "annotator", "group": payload}
        wrong = browser.post("/people/invite", data=form)
        assert wrong.status_code == 409
        harmless(wrong.text, payload)


def test_a_browser_is_told_to_run_no_other_script_and_to_send_nothing_elsewhere(browser, desk):
    desk.add([comparison_item("q")])
    browser.sign_in("Ada")
    for path in ("/", "/login", "/nowhere", "/static/page.js", "/healthz"):
        headers = browser.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
    text = browser.get("/").text
    assert not re.search(r"<script(?![^>]*src=)|\bon\w+=|style=", text), "nothing inline"


CHANGES = [
    ("/logout", {}),
    ("/language", {"language": "de"}),
    ("/me/harmful", {}),
    ("/me/forget", {}),
    ("/people/invite", {"role": "admin"}),
    ("/people/role", {"of": "1", "role": "admin"}),
    ("/people/exclude", {"of": "1", "excluded": "true"}),
    ("/people/forget", {"of": "1"}),
    ("/api/undo", None),
    ("/api/skip", None),
    ("/api/draft", None),
    ("/api/answer", None),
    ("/api/say", None),
    ("/api/end", None),
    ("/api/decide", None),
    ("/login", {"name": "Ada", "password": PASSWORD}),
    ("/join/x", {"name": "Ada", "password": PASSWORD}),
]


def test_the_list_of_changes_is_whole(app):
    assert {path for path, _ in CHANGES} == {
        route.path.replace("{token}", "x") for route in routes(app) if "POST" in route.methods
    }


FORGED = {
    "no token": {},
    "another's token": {},
    "another origin": {"origin": "https://evil.example"},
    "no origin": {"origin": "null"},
    "cross-site": {"sec-fetch-site": "cross-site"},
}


def test_a_request_that_another_site_made_is_refused(browser, make_browser):
    browser.sign_in("Ada", role="admin")
    good, other = browser.token("/me"), make_browser().token("/login")
    for how, headers in FORGED.items():
        token = {"no token": "", "another's token": other}.get(how, good)
        for path, form in CHANGES:
            if form is None:
                answer = browser.post(path, json={}, headers={**headers, "x-csrf": token})
            else:
                answer = browser.post(path, data={**form, "csrf": token}, headers=headers, follow_redirects=False)
            assert answer.status_code == 403, (how, path)
        assert browser.get("/me").status_code == 200, how


def routes(app):
    """Every route with its methods, those of the parts too."""
    found, waiting = [], list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            waiting += inner.routes
        elif getattr(route, "methods", None):
            found.append(route)
    return found


# who may open what: "" is nobody in particular
ROLES = {
    "/healthz": "",
    "/login": "",
    "/join/{token}": "",
    "/": "annotator",
    "/me": "annotator",
    "/me/export": "annotator",
    "/people": "reviewer",
    "/quality": "reviewer",
    "/people/invite": "admin",
    "/people/role": "admin",
    "/people/exclude": "admin",
    "/people/forget": "admin",
    "/api/next": "annotator",
    "/api/answer": "annotator",
    "/api/skip": "annotator",
    "/api/undo": "annotator",
    "/api/draft": "annotator",
    "/chat": "annotator",
    "/redteam": "annotator",
    "/api/talk": "annotator",
    "/api/say": "annotator",
    "/api/end": "annotator",
    "/review": "reviewer",
    "/api/decide": "reviewer",
    "/me/harmful": "annotator",
    "/me/forget": "annotator",
    "/logout": "",
    "/language": "",
}
LADDER = ["", "annotator", "reviewer", "admin"]


def described(app):
    """Every method and path of the OpenAPI description."""
    return {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}


def test_every_route_is_open_to_its_role_and_those_above_it_alone(app, make_browser):
    """The matrix of roles and routes is made of the OpenAPI description: a new route fails until it has a line here."""
    app.state.doors = RequestRates(1000, 1.0)
    assert described(app) == {(method, route.path) for route in routes(app) for method in route.methods - {"HEAD"}}
    assert {path for _, path in described(app)} == set(ROLES)
    for role in LADDER:
        browser = make_browser()
        if role:
            browser.sign_in(role, role=role)
        for method, route in sorted(described(app)):
            if route in ("/logout", "/me/forget", "/login", "/join/{token}") and method == "POST":
                continue  # ends the session, or makes one
            path = route.replace("{token}", "x")
            if method == "GET":
                status = browser.get(path, follow_redirects=False).status_code
            else:
                token = browser.token("/me" if role else "/login")
                status = browser.post(path, json={}, headers={"x-csrf": token}, follow_redirects=False).status_code
            allowed = LADDER.index(role) >= LADDER.index(ROLES[route])
            refused = {401, 403} if role else {401, 403, 303}
            assert (status not in refused) == allowed or (path == "/language" and status == 422), (role, path, status)


def test_nobody_answers_skips_or_reads_what_is_in_another_hand(browser, make_browser, desk):
    desk.add([Item("demonstrate", prompt("q"))])
    browser.sign_in("Ada")
    item = int(re.search(r'data-item="(\d+)"', browser.get("/").text)[1])
    other = make_browser().sign_in("Bea")
    sent = {"item": item, "submission": "another-one"}
    assert other.api("answer", **sent, mode="demonstrate", answer={"reply": "x"}).status_code == 409
    assert other.api("skip", **sent, reason="other").status_code == 409
    assert other.api("draft", item=item, draft={}).status_code == 409
    assert browser.api("answer", **sent, mode="demonstrate", answer={"reply": "x"}).status_code == 200


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(browser):
    browser.sign_in("Ada")
    headers = {"x-csrf": browser.token("/me"), "content-type": "application/json"}
    large = b'{"draft": "' + b"x" * MOST_BYTES + b'"}'
    assert browser.post("/api/draft", content=large, headers=headers).status_code == 413
    pieces = (large[i : i + 9999] for i in range(0, len(large), 9999))
    assert browser.post("/api/draft", content=pieces, headers=headers).status_code == 413
    deep = b'{"item": 1, "draft": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}"
    assert browser.post("/api/draft", content=deep, headers=headers).status_code in (400, 409, 422)


def test_guessing_is_slow(browser, app):
    app.state.doors.clock = lambda: 0.0
    token = browser.token("/login")
    form = {"csrf": token, "name": "Ada", "password": "wrong password"}
    found = [browser.post("/login", data=form).status_code for _ in range(12)]
    assert found[:10] == [409] * 10 and found[10:] == [429, 429]


def test_a_rate_comes_back_with_time_and_is_each_ones_own():
    now = [0.0]
    rates = RequestRates(2, 5.0, clock=lambda: now[0])
    for who in ("a", "a", "b"):
        rates.take(who)
    for _ in range(3):
        with pytest.raises(Forbidden):
            rates.take("a")
    now[0] = 5.0
    rates.take("a")
    with pytest.raises(Forbidden):
        rates.take("a")


def test_a_name_that_is_not_ours_is_refused(browser):
    assert browser.get("/login", headers={"host": "evil.example"}).status_code == 400


def test_the_cookie_of_a_session_is_out_of_reach_of_scripts(make_browser, people):
    browser = make_browser(secure=True, prefix="/accord")
    browser.base_url = "https://testserver"
    link = f"/join/{people.invite('annotator', by=None)}"
    form = {"csrf": browser.token(link), "name": "Ada", "password": PASSWORD}
    browser.cookies.set("accord_visit", browser.cookies.get("accord_visit"), domain="testserver.local", path="/")
    answer = browser.post(link, data=form, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303
    assert all(word in cookie for word in ("accord_session=", "httponly", "samesite=lax", "secure", "path=/accord"))


def test_no_path_of_the_browser_reaches_a_file(browser):
    for path in ("/static/../web/app.py", "/static/%2e%2e/words/en.json", "/static//etc/passwd", "/static/..%5cx"):
        assert browser.get(path).status_code == 404
    assert browser.get("/openapi.json").status_code == browser.get("/docs").status_code == 404


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "secret"
    secret = page_secret(path)
    assert page_secret(path) == secret and len(secret) == 64 and path.stat().st_mode & 0o777 == 0o600
    assert page_secret(tmp_path / "other") != secret
    path.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        page_secret(path)
    path.chmod(0o600)
    path.write_text("change-me")
    with pytest.raises(BadInput, match="no secret"):
        page_secret(path)


def test_an_unknown_name_takes_as_long_as_a_wrong_password(people, join, monkeypatch):
    """Both are checked against a hash: which names there are is not told by the time."""
    join("Ada")
    checked = []
    hasher = people._hasher

    class Counting:
        def verify(self, hashed, password):
            checked.append(hashed)
            return hasher.verify(hashed, password)

    monkeypatch.setattr(people, "_hasher", Counting())
    for name in ("Ada", "nobody"):
        with pytest.raises(Exception, match="name or password"):
            people.log_in(name, "wrong password")
    assert len(checked) == 2 and all(hashed.startswith("$argon2id$") for hashed in checked)


def test_the_headers_are_those_of_every_answer(browser):
    assert {name: browser.get("/login").headers[name] for name in guard.HEADERS} == guard.HEADERS
