"""The adapter against a local stub that speaks vLLM's protocol, and against one that does not quite."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import Served
from accord.engine.remote.http import call_json
from accord.engine.remote.vllm import Server, servers_at
from accord.errors import BadInput
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
