"""Several servers that draw, die, come back with old weights, ask to be left alone: no rollout is lost or wrong."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import Pushed, Served
from accord.engine.remote import fleet as fleets
from accord.engine.remote.fleet import Fleet
from accord.engine.remote.vllm import Server
from accord.errors import BadInput

PROMPTS = [(5, number) for number in range(40)]
ASKED = SampleSettings(1, 1.0, 4, frozenset({2}), seed=11)


class Answering(BaseHTTPRequestHandler):
    """Its reply is a function of the prompt, the seed and the weights that it has."""

    def log_message(self, *_):
        pass

    def say(self, status, answer=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode() if answer is not None else b"")

    def do_GET(self):
        self.say(200)  # /health answers nothing

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = self.server.place
        if self.path == "/collective_rpc":
            place.weights = body["kwargs"]["weights_path"]
        if self.path != "/v1/completions":
            return self.say(200, {"results": [None]})
        with place.lock:
            place.asked += 1
            number = place.asked  # every number is one request's, whoever goes on first
            place.busy += 1
            place.busiest = max(place.busiest, place.busy)
        try:
            return self.complete(body, place, number)
        finally:
            with place.lock:
                place.busy -= 1

    def complete(self, body, place, number):
        status = place.spoil(number)
        if status == "die":
            place.die()
            return None
        if status != 200:
            return self.say(status, **({"Retry-After": "0"} if status == 429 else {}))
        ids = [20 + (sum(body["prompt"]) + body["seed"]) % 50, {"new": 60, "old": 61}[place.weights], 2]
        place.drew.append(tuple(body["prompt"]))
        logprobs = {"token_logprobs": [-0.5] * len(ids)}
        choice = {"index": 0, "token_ids": ids, "prompt_token_ids": body["prompt"], "finish_reason": "stop"}
        return self.say(200, {"choices": [choice | {"logprobs": logprobs}]})


class Listening(ThreadingHTTPServer):
    request_queue_size = 256
    allow_reuse_address = True
    daemon_threads = True


class Place:
    """A server at an address that it keeps when it is started again, with the weights that it was started with."""

    def __init__(self):
        self.port, self.lock = 0, threading.Lock()
        self.asked = self.busy = self.busiest = 0
        self.drew, self.spoil = [], lambda number: 200
        self.start()

    def start(self):
        self.weights = "old"
        self.http = Listening(("127.0.0.1", self.port), Answering)
        self.http.place = self
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.up = True
        return self

    def die(self):
        with self.lock:
            was, self.up = self.up, False
        if was:
            self.http.shutdown()
            self.http.server_close()

    @property
    def server(self):
        return Server(f"http://127.0.0.1:{self.port}", "policy", timeout=5)


@pytest.fixture
def places():
    made = [Place(), Place()]
    yield made
    for place in made:
        place.die()


@pytest.fixture
def fleet(places, monkeypatch):
    """Both servers, with new weights."""
    monkeypatch.setattr(fleets, "PAUSE", 0.02)
    monkeypatch.setattr(fleets, "LONGEST", 0.05)
    made = Fleet([place.server for place in places], lambda server: server.load("new"), patience=5.0)
    for server in made.servers:
        made.revive(server)
    return made


def drawn_by(fleet, prompts=PROMPTS, finished=None):
    """A reply to each prompt; each has its place as its number."""
    found = fleet.each(len(prompts), lambda server, place: server.ask(ASKED, prompts[place], place), finished)
    return [rollout for replies in found for rollout in replies]


def expected(places):
    return drawn_by(Fleet([places[0].server], lambda server: None))


def test_every_server_draws_and_which_one_changes_nothing(fleet, places):
    told = []
    gate = threading.Barrier(2, timeout=5)
    for place in places:  # neither takes all before the other has begun
        place.spoil = lambda number: ((gate.wait() if number == 1 else 0) and 200) or 200
    drawn = drawn_by(fleet, finished=lambda i, some: told.append((i, some, threading.current_thread())))
    assert all(place.drew for place in places)
    assert sorted(prompt for place in places for prompt in place.drew) == sorted(PROMPTS)
    assert [r.prompt_ids for r in drawn] == PROMPTS
    assert sorted(i for i, _, _ in told) == list(range(40)) and {t for _, _, t in told} == {threading.current_thread()}
    assert {i: some for i, some, _ in told} == {i: [drawn[i]] for i in range(40)}
    assert drawn == expected(places)


def test_a_server_that_dies_and_comes_back_with_old_weights_loses_no_rollout(fleet, places, capsys):
    dying = places[1]

    def spoil(number):
        if number == 6:
            threading.Timer(0.1, dying.start).start()
            return "die"
        return 200

    dying.spoil = spoil
    drawn = drawn_by(fleet)
    assert [r.prompt_ids for r in drawn] == PROMPTS
    assert {r.ids[1] for r in drawn} == {60}  # nothing of the weights that it was started with
    dying.spoil = lambda number: 200
    assert drawn == expected(places)


def test_one_server_alone_is_waited_for(places, fleet, capsys):
    alone = Fleet(fleet.servers[:1], fleet.revive, patience=5.0)
    places[0].die()
    threading.Timer(0.5, places[0].start).start()  # not before it was missed: it would draw with its old weights
    drawn = drawn_by(alone)
    assert [r.prompt_ids for r in drawn] == PROMPTS and {r.ids[1] for r in drawn} == {60}
    assert "is away" in capsys.readouterr().out


def test_a_server_that_stays_away_is_given_up_and_the_other_draws_all(places, fleet):
    places[1].die()
    fleet.patience = 0.1
    assert [r.prompt_ids for r in drawn_by(fleet)] == PROMPTS
    assert len(places[0].drew) == len(PROMPTS)


def test_where_all_stay_away_that_is_said(places, fleet):
    for place in places:
        place.die()
    fleet.patience = 0.1
    with pytest.raises(BadInput, match=r"no server has come back within 0\.1 seconds"):
        drawn_by(fleet)


def test_a_server_that_is_busy_is_asked_again_and_no_more_are_in_flight_than_agreed(fleet, places):
    fleet.at_once = 3
    for place in places:
        place.spoil = lambda number: 429 if number % 3 == 0 else 200
    assert [r.prompt_ids for r in drawn_by(fleet)] == PROMPTS
    assert 1 <= max(place.busiest for place in places) <= 3


def test_a_prompt_that_fails_at_servers_that_are_well_ends_it(fleet, places):
    for place in places:
        place.spoil = lambda number: 500
    with pytest.raises(BadInput, match="answered 500"):
        drawn_by(fleet, PROMPTS[:1])


def test_a_server_that_is_well_and_never_ends_an_answer_is_not_asked_for_ever(fleet, places):
    enough = threading.Event()
    places[0].spoil = lambda number: (enough.wait(5), 200)[1]
    alone = Fleet([replace(places[0].server, timeout=0.2)], lambda server: None, patience=5.0)
    said = rf"{places[0].port}/v1/completions did not end .* 0\.2 s.*--max_new_tokens.*asked {fleets.TRIES} times"
    with pytest.raises(BadInput, match=said):
        drawn_by(alone, PROMPTS[:1])
    enough.set()
    assert places[0].asked == fleets.TRIES


def test_servers_that_are_nothing_but_busy_are_given_up(fleet, places):
    for place in places:
        place.spoil = lambda number: 429
    fleet.patience = 0.2
    with pytest.raises(BadInput, match=r"answered 429.*answered anything else within 0\.2 seconds"):
        drawn_by(fleet)


def test_a_server_that_was_away_when_weights_were_pushed_reads_them_before_it_draws(places, fleet, tmp_path):
    """It is well again by then, and nothing has failed that would have shown it."""
    places[1].die()
    engine = Served([place.server for place in places], tmp_path, 120)
    engine.follow_directory("new")
    assert engine.pushed == Pushed("new", frozenset({places[1].server.url}))
    places[1].start()
    back = threading.Event()  # the other leaves it something to draw
    places[1].spoil = lambda number: (back.set(), 200)[1]
    places[0].spoil = lambda number: (back.wait(5), 200)[1]
    rollouts = engine.sample(PROMPTS, ASKED)
    assert places[1].drew and {r.ids[1] for r in rollouts} == {60} and not engine.pushed.missed
