"""One JSON request: what is asked again and after how long, what is sent and where, what of an answer is refused."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import httpx2
import pytest

from accord.engine.remote import http
from accord.engine.remote.http import CallFailed, call_json, checked_peer
from accord.errors import BadInput

URL = "http://judge.example:8443/v1/ask"


@pytest.fixture
def wire(monkeypatch):
    """What was sent and after which pauses, whether by the environment's proxy, and what comes back."""
    wire = SimpleNamespace(sent=[], slept=[], environment=[], now=100.0)
    wire.answer = lambda request: httpx2.Response(200, json={"of": "it"})

    def handle(request):
        wire.sent.append(request)
        return wire.answer(request)

    def client(environment):
        wire.environment.append(environment)
        return httpx2.Client(transport=httpx2.MockTransport(handle))

    monkeypatch.setattr(http, "_client", client)
    monkeypatch.setattr(http, "sleep", wire.slept.append)
    monkeypatch.setattr(http, "monotonic", lambda: wire.now)
    return wire


def answers(wire, status, content=b"", **headers):
    wire.answer = lambda request: httpx2.Response(
        status, content=content, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def failed(**how):
    with pytest.raises(CallFailed) as found:
        call_json(URL, timeout=5, **how)
    return found.value


def test_pauses_begin_with_half_a_second_and_double(wire):
    answers(wire, 503)
    assert failed(attempts=5).status == 503
    assert wire.slept == [0.5, 1.0, 2.0, 4.0] and len(wire.sent) == 5


@pytest.mark.parametrize(
    ("asked", "slept"),
    [
        ("3", [3.0, 3.0, 3.0, 4.0]),
        ("0", [0.5, 1.0, 2.0, 4.0]),
        ("Wed, 21 Oct 2026 07:28:00 GMT", [0.5, 1.0, 2.0, 4.0]),
        ("1.5", [0.5, 1.0, 2.0, 4.0]),
    ],
)
def test_a_server_is_left_alone_as_long_as_it_asks_where_that_is_longer(wire, asked, slept):
    answers(wire, 429, Retry_After=asked)
    error = failed(attempts=5)
    assert wire.slept == slept and error.pause == (float(asked) if asked.isdigit() else 0.0)


def test_a_pause_of_more_than_five_minutes_is_not_made(wire):
    answers(wire, 429, Retry_After="300")
    failed(attempts=2)
    assert wire.slept == [300.0] and len(wire.sent) == 2
    answers(wire, 429, Retry_After="301")
    assert failed(attempts=2).pause == 301.0
    assert wire.slept == [300.0] and len(wire.sent) == 3


def test_one_attempt_is_made_where_no_number_is_given(wire):
    answers(wire, 503)
    failed()
    assert len(wire.sent) == 1 and wire.slept == []
    with pytest.raises(AssertionError, match="attempts is at least 1"):
        call_json(URL, timeout=5, attempts=0)


@pytest.mark.parametrize(
    ("status", "passing"),
    [(300, False), (307, False), (400, False), (428, False), (429, True), (430, False), (499, False), (500, True)],
)
def test_what_passes_is_asked_again_and_nothing_else(wire, status, passing):
    answers(wire, status, Retry_After="2")
    error = failed(attempts=2)
    assert (error.status, error.passing, error.pause) == (status, passing, 2.0 if passing else 0.0)
    assert not error.slow and wire.slept == ([2.0] if passing else [])


def test_every_status_below_300_is_an_answer_and_an_empty_one_is_none(wire):
    answers(wire, 299, b'{"a": 3}')
    assert call_json(URL, timeout=5) == {"a": 3}
    answers(wire, 204)
    assert call_json(URL, timeout=5, read=lambda answer: [answer]) == [None]


def test_what_a_service_says_to_a_refusal_is_told_in_its_first_300_bytes(wire):
    answers(wire, 404)
    assert str(failed()) == "answered 404 Not Found"
    answers(wire, 404, b" gone \n")
    assert str(failed()) == "answered 404 Not Found: gone"
    answers(wire, 404, b"g" * 299 + b"op")
    assert str(failed()) == f"answered 404 Not Found: {'g' * 299}o"


def test_no_json_may_pass(wire):
    answers(wire, 200, b"<html>")
    error = failed(attempts=2)
    assert str(error) == "answered no JSON: b'<html>'"
    assert (error.status, error.passing, error.slow) == (200, True, False) and wire.slept == [0.5]


def test_a_body_is_posted_as_json_and_nothing_is_got(wire):
    call_json(URL, timeout=5)
    call_json(URL, {}, timeout=5, headers={"Authorization": "Bearer k"})
    call_json(URL, {"a": [1]}, timeout=7)
    got, empty, posted = wire.sent
    assert (got.method, got.content) == ("GET", b"") and "Authorization" not in got.headers
    assert (empty.method, empty.content, empty.headers["Authorization"]) == ("POST", b"{}", "Bearer k")
    assert (posted.method, json.loads(posted.content)) == ("POST", {"a": [1]})
    assert posted.headers["Content-Type"] == "application/json"
    assert str(posted.url) == URL and posted.headers["Host"] == "judge.example:8443"
    assert posted.extensions["timeout"]["read"] == 7


def test_an_answer_in_pieces_is_read_up_to_its_bound(wire):
    pieces = [b'["ab', b'cd", ', b'"e"]']
    wire.answer = lambda request: httpx2.Response(200, content=iter(pieces))
    size = sum(map(len, pieces))
    assert call_json(URL, timeout=5, most_bytes=size) == ["abcd", "e"]
    error = failed(most_bytes=size - 1, attempts=3)
    assert str(error) == f"answered more than {size - 1} bytes"
    assert (error.status, error.passing) == (200, False) and len(wire.sent) == 2


def test_an_answer_that_is_not_there_in_time_is_slow(wire):
    def trickling(last):
        yield b"[3,"
        wire.now = last
        yield b" 4]"

    wire.answer = lambda request: httpx2.Response(200, content=trickling(105.0))
    assert call_json(URL, timeout=5) == [3, 4]
    wire.now = 100.0
    wire.answer = lambda request: httpx2.Response(200, content=trickling(105.25))
    error = failed()
    assert str(error) == "did not end its answer in 5 seconds"
    assert (error.status, error.passing, error.slow) == (0, True, True)


@pytest.mark.parametrize(
    ("kind", "slow"),
    [
        (httpx2.ReadTimeout, True),
        (httpx2.WriteTimeout, True),
        (httpx2.ConnectTimeout, False),
        (httpx2.ConnectError, False),
        (httpx2.RemoteProtocolError, False),
    ],
)
def test_a_request_that_was_sent_and_got_no_answer_is_slow_and_one_that_was_not_is_unreachable(wire, kind, slow):
    def answer(request):
        raise kind("nobody")

    wire.answer = answer
    error = failed(attempts=2)
    assert str(error) == ("did not end its answer in 5 seconds" if slow else "cannot be reached (nobody)")
    assert (error.status, error.passing, error.slow, error.pause) == (0, True, slow, 0.0)
    assert wire.slept == [0.5]


def test_a_connection_goes_to_the_peer_under_the_name_of_the_address(wire):
    call_json("https://judge.example:8443/v1", timeout=5, peer="93.184.216.34")
    (sent,) = wire.sent
    assert str(sent.url) == "https://93.184.216.34:8443/v1" and sent.headers["Host"] == "judge.example:8443"
    assert sent.extensions["sni_hostname"] == "judge.example" and wire.environment == [False]


@pytest.mark.parametrize(
    ("host", "asked"), [("localhost", False), ("127.0.0.1", False), ("[::1]", False), ("judge.example", True)]
)
def test_the_proxy_of_the_environment_is_asked_for_other_machines_alone(wire, host, asked):
    call_json(f"http://{host}:9/", timeout=5)
    assert wire.environment == [asked] and "sni_hostname" not in wire.sent[0].extensions


def test_every_attempt_is_made_inside_and_what_the_reader_refuses_is_asked_again(wire):
    inside = []

    @contextmanager
    def around():
        inside.append("in")
        yield
        inside.append("out")

    def read(answer):
        inside.append(answer)
        if len(wire.sent) < 3:
            raise CallFailed("not yet", passing=True, pause=0.75)
        return "read"

    assert call_json(URL, timeout=5, attempts=3, around=around, read=read) == "read"
    assert inside == ["in", {"of": "it"}, "in", {"of": "it"}, "in", {"of": "it"}, "out"]
    assert wire.slept == [0.75, 1.0]


@pytest.fixture
def names(monkeypatch):
    """What names stand for, and how they were asked for."""
    found = SimpleNamespace(addresses=["93.184.216.34"], asked=[])

    def resolve(*asked, type):
        found.asked.append(asked)
        return [(2, type, 6, "", (address, 80)) for address in found.addresses]

    monkeypatch.setattr(http.socket, "getaddrinfo", resolve)
    return found


def test_a_peer_is_looked_up_by_name_and_port_or_scheme(names):
    assert checked_peer("https://judge.example:8443/v1", allow_local=False) == "93.184.216.34"
    assert checked_peer("https://judge.example/v1", allow_local=False) == "93.184.216.34"
    assert names.asked == [("judge.example", 8443), ("judge.example", "https")]


def test_the_first_address_is_the_peer_and_none_may_be_of_this_network(names):
    names.addresses = ["93.184.216.34", "1.1.1.1"]
    assert checked_peer(URL, allow_local=False) == "93.184.216.34"
    names.addresses = ["93.184.216.34", "fe80::1%eth0"]
    with pytest.raises(BadInput, match=r"8443/v1/ask: fe80::1%eth0 is an address of this machine.*--allow_local"):
        checked_peer(URL, allow_local=False)
    assert checked_peer(URL, allow_local=True) == "93.184.216.34"


def test_a_name_that_stands_for_nothing_is_refused(monkeypatch):
    def resolve(*_, **__):
        raise OSError("unknown")

    monkeypatch.setattr(http.socket, "getaddrinfo", resolve)
    with pytest.raises(BadInput, match=r"ask: no such host \(unknown\); give the address of a server"):
        checked_peer(URL, allow_local=True)
