"""The page behind a proxy that takes a path off and speaks https, and the file that a container is made of."""

import itertools
import json
import re
from pathlib import Path

import pytest

from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from accord.parsing import parse
from tests.feedback.conftest import Browser
from tests.fixtures.feedback import PASSWORD, comparison_item

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/label/accord"


class Proxy:
    """What takes PREFIX off a request's path before it hands it on, and answers 404 to everything else."""

    def __init__(self, page):
        self.page = page

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith(PREFIX + "/"):
            path = scope["path"].removeprefix(PREFIX)
            await self.page({**scope, "path": path, "raw_path": path.encode()}, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not behind this proxy"})
        else:
            await self.page(scope, receive, send)


@pytest.fixture
def outside(desk, people):
    """A browser outside, which knows the proxy alone."""
    settings = Settings(secret=b"s" * 32, hosts=("label.example",), prefix=PREFIX, secure=True)
    browser = Browser(Proxy(make_page(desk, people, settings)), base_url="https://label.example")
    browser.people = people
    return browser


def test_everything_is_reached_under_the_path_of_the_proxy(outside, desk, people):
    desk.add([comparison_item("q", ("x", "y"))])
    link = f"{PREFIX}/join/{people.invite('admin', by=None)}"
    form = {"csrf": outside.token(link), "name": "Ada", "password": PASSWORD}
    entered = outside.post(link, data=form)
    assert entered.status_code == 200 and entered.url.path == f"{PREFIX}/" and "data-item" in entered.text
    seen, waiting = set(), [f"{PREFIX}/"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = outside.get(path)
        assert answer.status_code == 200, path
        if "html" in answer.headers["content-type"]:
            links = set(re.findall(r'(?:href|src)="([^"#][^"]*)"', answer.text))
            actions = set(re.findall(r'action="([^"]*)"', answer.text))
            assert all(name.startswith(PREFIX + "/") for name in links | actions), (path, links, actions)
            waiting += [name for name in links if name not in seen and name not in waiting]
    assert {f"{PREFIX}/{name}" for name in ("me", "people", "review", "quality", "static/page.js")} <= seen
    page = outside.get(f"{PREFIX}/").text
    item, submission, base = (re.search(rf'data-{n}="([^"]+)"', page)[1] for n in ("item", "submission", "base"))
    said = {"choices": {"helpful": {"ranks": [1, 2]}}}
    body = {"item": int(item), "submission": submission, "mode": "compare", "answer": said}
    headers = {"x-csrf": outside.token(f"{PREFIX}/me"), "origin": "https://label.example"}
    assert outside.post(f"{base}/api/answer", json=body, headers=headers).status_code == 200
    assert outside.get(f"{PREFIX}/healthz").json() == {"status": "ok"}


def test_nobody_signed_in_is_sent_to_the_door_of_the_proxy(outside):
    assert outside.get(f"{PREFIX}/", follow_redirects=False).headers["location"] == f"{PREFIX}/login"


def test_the_container_runs_the_page_for_a_user_of_its_own_with_pinned_packages():
    lines = [line for line in (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines() if line[:1] not in "# "]
    steps = [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    for _, sources in (step for step in steps if step[0] == "COPY"):
        assert all((ROOT / name).exists() for name in sources.split()[:-1]), sources
    assert re.search(r"pip install [^&]*-c constraints.txt [^&]*\"\.\[collect,postgres\]\"", text)
    names = [name for name, _ in steps]
    user = next(value for name, value in steps if name == "USER")
    assert names.index("USER") < names.index("ENTRYPOINT") and user not in ("root", "0")
    words = [json.loads(value) for name, value in steps if name in ("ENTRYPOINT", "CMD")]
    program, command, *arguments = itertools.chain(*words)
    config = parse(command, arguments)
    assert program == "accord" and config.host == "0.0.0.0" and config.database.startswith("/data/")
    assert "/healthz" in text and config.hosts == ["localhost"]
