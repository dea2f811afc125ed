"""What a server of scores is asked with, and what its answers and failures become."""

import pytest

from accord.engine.remote import scores
from accord.engine.remote.fleet import ServerAway
from accord.engine.remote.http import CallFailed
from accord.engine.remote.scores import About, ScoreServer, ScoresRefused
from accord.errors import BadInput

URL = "https://judge.example/scores"
TOLD = {"snapshot": "a1", "role": "preference", "tokenizer": "b2", "readings": {"": {}}}


@pytest.fixture
def calls(monkeypatch):
    """What was asked of a server without one, which answers with what is put into it: a value, or an error."""
    monkeypatch.delenv(scores.KEY, raising=False)

    class Calls(list):
        answer = None

    calls = Calls()

    def call(url, body, *, timeout, headers):
        calls.append((url, body, timeout, headers))
        if isinstance(calls.answer, CallFailed):
            raise calls.answer
        return calls.answer

    monkeypatch.setattr(scores, "call_json", call)
    return calls


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("judge.example/scores", "'judge.example/scores' is no address; write http://HOST:PORT/scores"),
        ("http:///scores", "'http:///scores' is no address; write http://HOST:PORT/scores"),
        ("https://me@judge.example/", "https://judge.example: an address holds no key; put it into ACCORD_SCORES_KEY"),
        ("https://:k@judge.example/", "https://judge.example: an address holds no key; put it into ACCORD_SCORES_KEY"),
    ],
)
def test_an_address_that_is_none_or_holds_a_key_is_refused(url, said):
    with pytest.raises(BadInput) as raised:
        ScoreServer(url)
    assert str(raised.value) == said


def test_a_key_travels_unread_or_not_at_all(calls, monkeypatch):
    assert ScoreServer("http://judge.example/scores").url == "http://judge.example/scores"
    monkeypatch.setenv(scores.KEY, "secret")
    for url in ("https://judge.example/scores", "http://localhost:8000/scores", "http://[::1]/scores"):
        ScoreServer(url)
    with pytest.raises(BadInput, match=r"judge\.example/scores: ACCORD_SCORES_KEY would travel readable"):
        ScoreServer("http://judge.example/scores")


def test_a_server_says_what_it_is_or_is_none_that_does(calls, monkeypatch):
    calls.answer = TOLD
    assert ScoreServer(URL).about() == About("a1", "preference", "b2", {"": {}})
    assert calls == [(URL, None, 10.0, {})]
    for missing in TOLD:
        calls.answer = {name: value for name, value in TOLD.items() if name != missing}
        assert ScoreServer(URL).about() is None
    calls.answer = list(TOLD)
    assert ScoreServer(URL).about() is None
    monkeypatch.setenv(scores.KEY, "secret")
    ScoreServer(URL).about()
    assert calls[-1] == (URL, None, 10.0, {"Authorization": "Bearer secret"})


@pytest.mark.parametrize(("status", "hint"), [(0, "; is the server running?"), (502, ""), (503, ""), (504, "")])
def test_a_server_that_is_away_is_told_so_by_all_that_ask_it(calls, status, hint):
    calls.answer = CallFailed("failed", status, passing=True, pause=2.5)
    server = ScoreServer(URL)
    for ask in (server.about, lambda: server.ask({})):
        with pytest.raises(ServerAway) as raised:
            ask()
        assert str(raised.value) == f"{URL} failed{hint}"
        assert (raised.value.status, raised.value.pause) == (status, 2.5)
    assert not server.is_well()


@pytest.mark.parametrize("status", [200, 400, 402, 404, 405, 500])
def test_a_server_that_does_not_know_the_question_is_there_and_says_nothing_of_itself(calls, status):
    calls.answer = CallFailed("failed", status)
    assert ScoreServer(URL).about() is None and ScoreServer(URL).is_well()


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key_says_where_to_put_it(calls, status):
    calls.answer = CallFailed(f"answered {status}", status)
    with pytest.raises(BadInput) as raised:
        ScoreServer(URL).about()
    assert type(raised.value) is BadInput
    assert str(raised.value) == f"{URL} answered {status}; put its key into ACCORD_SCORES_KEY"
    assert ScoreServer(URL).is_well()


def test_scores_are_asked_for_with_more_patience_than_what_the_server_is(calls):
    calls.answer = {"scores": [0.5], "raw": [2.0]}
    assert ScoreServer(URL).ask({"groups": []}) == {"scores": [0.5], "raw": [2.0]}
    assert ScoreServer(URL).is_well()
    assert calls == [(URL, {"groups": []}, 300.0, {}), (URL, None, 10.0, {})]


@pytest.mark.parametrize("answer", [{"raw": [1.0]}, ["scores"], None, "scores"])
def test_an_answer_without_scores_is_refused(calls, answer):
    calls.answer = answer
    with pytest.raises(ScoresRefused) as raised:
        ScoreServer(URL).ask({})
    assert str(raised.value) == f"{URL} answered no JSON object with scores: {answer}"


def test_a_refusal_that_does_not_pass_is_final(calls):
    calls.answer = CallFailed("answered 400", 400)
    with pytest.raises(ScoresRefused) as raised:
        ScoreServer(URL).ask({})
    assert str(raised.value) == f"{URL} answered 400"
