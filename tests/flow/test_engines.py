"""`--engine`: replies from a server that speaks vLLM's protocol and computes with the weights that are pushed to it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.engines import InProcess, Served, open_engine
from accord.engine.remote.vllm import Server
from accord.errors import BadInput
from accord.models.loading import add_adapters, load_policy


class Serving(BaseHTTPRequestHandler):
    """Draws with the in-process sampler from the weights that it was told to load last."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "some/name"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.routes.append(self.path)
        if self.path == "/collective_rpc":
            path = body["kwargs"]["weights_path"]
            assert Path(path).is_absolute()
            server.model = load_policy(path, trainable=False)
            server.pushed.append((path, load_file(Path(path) / "model.safetensors")))
            return self.answer({})
        if self.path == "/reset_prefix_cache":
            return self.answer({})
        assert body["model"] == "some/name"
        stops = frozenset(body["stop_token_ids"])
        settings = SampleSettings(body["n"], body["temperature"], body["max_tokens"], stops, body["seed"])
        with server.lock:
            drawn = sample(server.model, [body["prompt"]], settings)
        choices = [
            {
                "index": i,
                "token_ids": list(r.ids),
                "prompt_token_ids": body["prompt"],
                "logprobs": {"token_logprobs": list(r.logprobs)},
                "finish_reason": r.finish,
            }
            for i, r in enumerate(drawn)
        ]
        return self.answer({"choices": choices})

    def answer(self, value):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


@pytest.fixture
def server():
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    serving.routes, serving.pushed, serving.model, serving.lock = [], [], None, threading.Lock()
    serving.url = f"http://127.0.0.1:{serving.server_port}"
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_sample_draws_from_a_server(commands, tmp_path, server, snapshots):
    assert commands.run("sample", tmp_path / "run", engine=server.url, samples=2) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 48 and all(row["logprob"] < 0 for row in rows)
    # a whole snapshot is read where it lies
    assert [path for path, _ in server.pushed] == [str((snapshots / "policy").resolve())]
    assert server.routes.count("/v1/completions") == 24


def test_ppo_pushes_its_weights_before_every_iteration(commands, tmp_path, server, snapshots):
    out = tmp_path / "run"
    assert commands.run("ppo", out, engine=server.url, steps=3) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    # the server computed with the very weights that the trainer has: the gap is rounding
    assert all(row["policy/sampler_gap"] < 1e-5 for row in rows)
    assert server.routes.count("/collective_rpc") == server.routes.count("/reset_prefix_cache") == 3
    weights = [found["model.layers.0.mlp.down_proj.weight"] for _, found in server.pushed]
    start = load_file(snapshots / "policy" / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(weights[0], start) and not torch.equal(weights[1], weights[2])
    assert not any(Path(path).exists() for path, _ in server.pushed)  # nothing of it stays
    assert not [name for name in json.loads((out / "manifest.json").read_text()) if "weights" in name]


def test_a_server_that_did_not_take_the_weights_is_noticed(commands, tmp_path, server, monkeypatch):
    """It goes on with those of the first iteration: its log-probs are not the trainer's, and are computed anew."""
    load = Server.load
    monkeypatch.setattr(Server, "load", lambda self, path: load(self, path) if not server.pushed else None)
    assert commands.run("ppo", tmp_path / "run", engine=server.url, steps=3, learning_rate=1e-2) == 0
    gaps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert gaps[0]["policy/sampler_gap"] < 1e-5 < 1e-3 < gaps[2]["policy/sampler_gap"]


def test_adapters_are_merged_on_the_way(server, snapshots, tmp_path, commands):
    from accord.parsing import parse

    config = parse("ppo", commands.line("ppo", tmp_path / "run", lora_rank=2)[1:])
    policy = add_adapters(load_policy(str(snapshots / "policy")), config, scalar=False, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: p.clone() for name, p in policy.named_parameters()}
    engine = open_engine(server.url, policy, tmp_path)
    engine.follow(policy)
    theirs = engine.sample([(5, 6, 7)], SampleSettings(2, 1.0, 6, frozenset({2}), seed=3))
    with torch.no_grad():
        for r in theirs:
            logits = policy(input_ids=torch.tensor([[*r.prompt_ids, *r.ids]])).logits[0, 2:-1]
            ours = logits.log_softmax(-1).gather(1, torch.tensor(r.ids)[:, None])[:, 0]
            assert torch.allclose(ours, torch.tensor(r.logprobs), atol=1e-5)
    assert all(torch.equal(before[name], p) for name, p in policy.named_parameters())


def test_the_knob_chooses_and_a_silent_server_is_refused(server, snapshots, tmp_path, commands, capsys):
    policy = load_policy(str(snapshots / "policy"))
    assert isinstance(open_engine("", policy, tmp_path), InProcess)
    assert isinstance(open_engine(server.url, policy, tmp_path), Served)
    with pytest.raises(BadInput, match="is the server running"):
        open_engine("http://127.0.0.1:9", policy, tmp_path)
    assert commands.run("ppo", tmp_path / "run", engine="vllm") == 2
    assert "--engine" in capsys.readouterr().err
