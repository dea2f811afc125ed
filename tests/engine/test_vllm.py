"""The adapter against a local stub that speaks vLLM's protocol, and against one that does not quite."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import Served
from accord.engine.remote import http, vllm
from accord.engine.remote.fleet import ServerAway
from accord.engine.remote.http import CallFailed, call_json
from accord.engine.remote.vllm import Server, servers_at
from accord.errors import BadInput
from accord.records import Rollout
from tests.engine.test_choosing_tokens import uniform_of
from tests.fixtures.serving import serving

PROMPTS = [(5, 6, 7), (8,), (9, 10)]
ASKED = SampleSettings(2, 0.7, 4, frozenset({2, 3}), seed=11)


class Stub(BaseHTTPRequestHandler):
    """Replies are a function of prompt and seed: even places stop with token 2, odd ones run to the limit."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append((self.path, None))
        served = {"id": "policy", "object": "model", "max_model_len": 512}
        status, answer = self.server.spoil(self.path, {"object": "list", "data": [served]})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        answer = {"/v1/completions": self.completions}.get(self.path, lambda _: {"results": [None]})(body)
        status, answer = self.server.spoil(self.path, answer)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def completions(self, body):
        choices = []
        for index in reversed(range(body["n"])):  # vLLM keeps no order
            ids = [20 + (sum(body["prompt"]) + body["seed"] + index) % 50, 2 if index % 2 == 0 else 30]
            ids += [31, 32] if index % 2 else []
            choices.append(
                {
                    "index": index,
                    "token_ids": ids,
                    "prompt_token_ids": body["prompt"],
                    "logprobs": {"token_logprobs": [-0.5 * (i + 1) for i in range(len(ids))]},
                    "finish_reason": "length" if index % 2 else "stop",
                }
            )
        return {"choices": choices}


def cut_off(choice, length):
    choice["token_ids"] = choice["token_ids"][:length]
    choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][:length]
    choice["finish_reason"] = "length"


class Listening(ThreadingHTTPServer):
    request_queue_size = 256


@pytest.fixture
def stub():
    server = Listening(("127.0.0.1", 0), Stub)
    server.seen, server.spoil = [], lambda path, answer: (200, answer)
    server.client = Server(f"http://127.0.0.1:{server.server_port}", "policy", timeout=10, reads=512)
    server.fleet = Served([server.client], Path(), 120)
    with serving(server):
        yield server


def test_ids_go_in_and_ids_and_log_probs_come_out_in_order(stub):
    rollouts = stub.fleet.sample(PROMPTS, replace(ASKED, version="step-3"))
    assert [r.prompt_ids for r in rollouts] == [p for p in PROMPTS for _ in range(2)]
    assert [r.finish for r in rollouts] == ["stop", "length"] * 3
    assert all(r.ids[-1] == 2 and r.logprobs == (-0.5, -1.0) for r in rollouts[::2])
    assert all(len(r.ids) == 4 for r in rollouts[1::2])
    assert {(r.temperature, r.version) for r in rollouts} == {(0.7, "step-3")}
    path, body = stub.seen[0]
    assert path == "/v1/completions" and body["prompt"] in [list(p) for p in PROMPTS]
    assert body["stop_token_ids"] == [2, 3] and body["ignore_eos"] and body["return_token_ids"]
    assert (body["n"], body["max_tokens"], body["temperature"], body["top_p"]) == (2, 4, 0.7, 1.0)
    # the server fills what is left open from the model's own generation config
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert body["presence_penalty"] == body["frequency_penalty"] == 0.0
    assert body["logit_bias"] == {}  # every row may be drawn


def test_rows_without_a_token_are_biased_away_and_one_that_is_drawn_all_the_same_is_refused(stub):
    vocabulary = frozenset(range(118)) - {7, 9}
    stub.fleet.sample(PROMPTS, replace(ASKED, vocabulary=vocabulary))
    assert stub.seen[0][1]["logit_bias"] == dict.fromkeys(("7", "9", "118", "119"), -100.0)
    with pytest.raises(BadInput, match="drew 30, which is no token"):
        stub.fleet.sample(PROMPTS, replace(ASKED, vocabulary=vocabulary - {30}))


def test_a_prompt_draws_the_same_whatever_its_company(stub):
    whole = stub.fleet.sample(PROMPTS, ASKED)
    assert stub.fleet.sample(PROMPTS[1:2], replace(ASKED, numbers=[1])) == whole[2:4]
    seeds = [body["seed"] for _, body in stub.seen[:3]]
    assert len(set(seeds)) == 3 and all(0 <= seed < 2**31 for seed in seeds)
    stub.fleet.sample(PROMPTS[:1], replace(ASKED, seed=12))
    assert stub.seen[-1][1]["seed"] not in seeds


def test_a_server_says_what_it_serves(stub):
    assert Server.at(stub.client.url, timeout=10) == stub.client
    assert stub.seen == [("/v1/models", None)]
    stub.spoil = lambda path, answer: (200, {"data": []})
    with pytest.raises(BadInput, match="serves 0 models"):
        Server.at(stub.client.url)


def test_a_server_that_reads_less_than_a_text_may_have_is_refused_at_the_start(stub):
    assert servers_at(stub.client.url, 512, "--max_length") == [replace(stub.client, timeout=600.0)]
    with pytest.raises(BadInput, match=r"reads 512 tokens, and --max_length is 513; .*--max-model-len"):
        servers_at(stub.client.url, 513, "--max_length")


def test_weights_are_pushed_by_path_and_the_cache_forgotten(stub):
    stub.client.load("some/snapshot")
    assert [path for path, _ in stub.seen] == ["/collective_rpc", "/reset_prefix_cache"]
    assert stub.seen[0][1]["method"] == "reload_weights"
    assert stub.seen[0][1]["kwargs"] == {"weights_path": "some/snapshot"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda choice: choice.pop("token_ids"), "token_ids"),
        (lambda choice: choice.update(logprobs=None), "logprobs"),
        (lambda choice: choice["logprobs"].update(token_logprobs=[-1.0]), "log-probs"),
        (lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, None), "no number"),
        (lambda choice: choice.update(prompt_token_ids=[1, 5]), "other prompt tokens"),
        (lambda choice: choice.update(finish_reason="abort"), "abort"),
        (lambda choice: choice["token_ids"].__setitem__(-1, 40), "no stop token"),
        # as vLLM does that was started with a max_new_tokens of its own
        (lambda choice: cut_off(choice, 1), "after 1 of 4 tokens; start it without --generation-config"),
    ],
)
def test_an_answer_that_lacks_something_is_refused(stub, change, word):
    def spoil(path, answer):
        change(answer["choices"][-1])
        return 200, answer

    stub.spoil = spoil
    with pytest.raises(BadInput, match=word):
        stub.client.ask(ASKED, PROMPTS[0], 0)


@pytest.mark.parametrize(
    ("status", "answer", "word"),
    [
        (500, b"engine dead", "engine dead"),
        (200, b"<html>", "no JSON"),
        (302, b"", "302"),
        (200, {"choices": []}, "got 0"),
    ],
)
def test_errors_redirects_and_noise_are_named(stub, status, answer, word):
    stub.spoil = lambda path, _: (status, answer)
    with pytest.raises(BadInput, match=word):
        stub.client.ask(ASKED, PROMPTS[0], 0)


def test_a_server_without_its_development_routes_says_how_to_get_them(stub):
    stub.spoil = lambda path, _: (404, b"Not Found")
    with pytest.raises(BadInput, match="VLLM_SERVER_DEV_MODE"):
        stub.client.load("some/snapshot")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(stub, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert len(stub.fleet.sample(PROMPTS, ASKED)) == 6


def test_no_server_is_said():
    with pytest.raises(BadInput, match="is the server running"):
        Server("http://127.0.0.1:9", "policy", timeout=2).ask(ASKED, PROMPTS[0], 0)


def test_as_many_requests_are_in_flight_as_are_asked_at_once(stub):
    """A pool of connections with a bound of its own would have the server draw in turns."""
    prompts = [(5, number) for number in range(110)]
    gate = threading.Barrier(len(prompts), timeout=20)

    def together(path, answer):
        if path == "/v1/completions":
            gate.wait()
        return 200, answer

    stub.spoil = together
    assert len(stub.fleet.sample(prompts, ASKED)) == 2 * len(prompts)


def test_every_request_has_a_connection_of_its_own():
    """A service may close one that is kept just when the next request uses it."""
    ports = []
    http._client.cache_clear()  # whichever test was first, this one is told of how it is made

    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            ports.append(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    with Listening(("127.0.0.1", 0), Keeping) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for _ in range(3):
            assert call_json(f"http://127.0.0.1:{server.server_port}/", timeout=10) == {}
        server.shutdown()
    assert len(set(ports)) == len(ports) == 3


@pytest.fixture
def calls(monkeypatch):
    """What was asked of a server without one, which answers with what is put into it: a value, or an error."""

    class Calls(list):
        answer = None

    calls = Calls()

    def call(url, body=None, *, timeout):
        calls.append((url, body, timeout))
        if isinstance(calls.answer, CallFailed):
            raise calls.answer
        return calls.answer

    monkeypatch.setattr(vllm, "call_json", call)
    return calls


SERVER = Server("http://a:8000/", "policy", timeout=7.0)


@pytest.mark.parametrize(("told", "reads"), [({"max_model_len": 512}, 512), ({"max_model_len": None}, 0), ({}, 0)])
def test_a_server_reads_what_it_says(calls, told, reads):
    calls.answer = {"data": [{"id": "some/name", **told}]}
    assert Server.at("http://a:8000/", timeout=7.0) == Server("http://a:8000/", "some/name", timeout=7.0, reads=reads)
    assert Server.at("http://b") == Server("http://b", "some/name", timeout=600.0, reads=reads)
    assert calls == [("http://a:8000/v1/models", None, 7.0), ("http://b/v1/models", None, 600.0)]
    if not reads:
        assert len(servers_at("http://a,http://b", 10**9)) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, "http://b serves 2 models; start one server for one model"),
        ({"data": {"id": "a"}}, r"the server's answer has no data \(list\); vLLM from 0.11 on sends it"),
        ([], r"has no data \(list\)"),
        ({"data": [{"id": 3}]}, r"has no id \(str\)"),
    ],
)
def test_a_server_that_does_not_say_what_it_serves_is_refused(calls, answer, said):
    calls.answer = answer
    with pytest.raises(BadInput, match=said):
        Server.at("http://b")


def choice(**changes):
    told = {"prompt_token_ids": [5, 6, 7], "token_ids": [20, 21], "finish_reason": "stop", "index": 0}
    return {**told, "logprobs": {"token_logprobs": [-0.5, -1.25]}, **changes}


def test_a_request_leaves_nothing_open_and_its_rollouts_have_all_that_came_back(calls):
    settings = SampleSettings(2, 0.7, 4, frozenset({3, 21}), seed=11, version="step-3")
    cut = choice(index=1, token_ids=[20, 22, 23, 24], logprobs={"token_logprobs": [-0.5] * 4}, finish_reason="length")
    calls.answer = {"choices": [cut, choice()]}
    assert SERVER.ask(settings, (5, 6, 7), 2, rows=120) == [
        Rollout((5, 6, 7), (20, 21), (-0.5, -1.25), "stop", 0.7, "step-3"),
        Rollout((5, 6, 7), (20, 22, 23, 24), (-0.5,) * 4, "length", 0.7, "step-3"),
    ]
    ((url, body, timeout),) = calls
    assert (url, timeout) == ("http://a:8000/v1/completions", 7.0)
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {}}
    asked = {"model": "policy", "n": 2, "max_tokens": 4, "temperature": 0.7, "prompt": [5, 6, 7]}
    ways = {"logprobs": 0, "return_token_ids": True, "stop_token_ids": [3, 21], "ignore_eos": True}
    assert body == neutral | asked | ways | {"seed": int(2**31 * uniform_of(11, 2, 0))}


def test_choices_without_an_index_keep_their_order(calls):
    first = choice(token_ids=[20, 2])
    del first["index"]
    calls.answer = {"choices": [first, choice(index=0, token_ids=[30, 2])]}
    found = SERVER.ask(replace(ASKED, stop_ids=frozenset({2})), (5, 6, 7), 0)
    assert [rollout.ids for rollout in found] == [(20, 2), (30, 2)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logprobs": {"token_logprobs": [-0.5, float("inf")]}}, "2 tokens came with 2 log-probs, or one is no number"),
        ({"logprobs": {"token_logprobs": [-0.5, -1]}}, "2 tokens came with 2 log-probs, or one is no number"),
        ({"logprobs": {"token_logprobs": [-0.5, -1.0, -2.0]}}, "2 tokens came with 3 log-probs"),
        ({"token_ids": [20, 3]}, "it drew 3, which is no token; its logit_bias is not taken"),
        ({"finish_reason": "length"}, "a reply finished as 'length' with a stop token"),
        ({"token_ids": [20, 22]}, "a reply finished as 'stop' with no stop token"),
        ({"token_ids": [20, 22], "finish_reason": "length"}, "it cut a reply off after 2 of 4 tokens"),
        ({"prompt_token_ids": [5, 6]}, "the server computed other prompt tokens than it was sent"),
    ],
)
def test_a_reply_that_would_become_a_wrong_ratio_is_refused(calls, changes, said):
    settings = SampleSettings(1, 0.7, 4, frozenset({21}), seed=11, vocabulary=frozenset({5, 6, 7, 20, 21, 22}))
    calls.answer = {"choices": [choice()]}
    assert len(SERVER.ask(settings, (5, 6, 7), 0)) == 1
    calls.answer = {"choices": [choice(**changes)]}
    with pytest.raises(BadInput, match=said):
        SERVER.ask(settings, (5, 6, 7), 0)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (CallFailed("refused", 400), BadInput, "http://a:8000//v1/completions refused"),
        (CallFailed("busy", 429, passing=True, pause=2.5), ServerAway, "http://a:8000//v1/completions busy"),
        (
            CallFailed("silent", passing=True),
            ServerAway,
            "http://a:8000//v1/completions silent; is the server running?",
        ),
        (
            CallFailed("slow", passing=True, slow=True),
            ServerAway,
            "http://a:8000//v1/completions slow; ask for less with --max_new_tokens, or give --engine more servers",
        ),
        (CallFailed("not there", 404), BadInput, "http://a:8000//v1/completions not there"),
    ],
)
def test_what_a_server_fails_with_is_told_with_what_to_do(calls, error, kind, said):
    calls.answer = error
    with pytest.raises(BadInput) as raised:
        SERVER.ask(ASKED, (5,), 0)
    assert type(raised.value) is kind and str(raised.value) == said
    if kind is ServerAway:
        assert (raised.value.status, raised.value.pause) == (error.status, error.pause)


@pytest.mark.parametrize(("status", "hint"), [(404, "; start it with VLLM_SERVER_DEV_MODE=1"), (405, "")])
def test_a_route_that_is_not_there_is_one_of_development(calls, status, hint):
    calls.answer = CallFailed("no", status)
    with pytest.raises(BadInput) as raised:
        SERVER.load("some/snapshot")
    assert str(raised.value) == f"http://a:8000//collective_rpc no{hint}"


def test_weights_are_loaded_with_the_patience_of_a_request(calls):
    SERVER.load("some/snapshot")
    body = {"method": "reload_weights", "kwargs": {"weights_path": "some/snapshot"}, "timeout": 7.0}
    assert calls == [
        ("http://a:8000/collective_rpc", body, 7.0),
        ("http://a:8000/reset_prefix_cache", {}, 7.0),
    ]


def test_a_server_is_well_if_it_answers_200_with_whatever_words(calls):
    assert SERVER.is_well() and replace(SERVER, timeout=30.0).is_well()
    assert calls == [("http://a:8000/health", None, 7.0), ("http://a:8000/health", None, 10.0)]
    for status, well in ((200, True), (201, False), (503, False), (0, False)):
        calls.answer = CallFailed("answered no JSON", status)
        assert SERVER.is_well() is well
