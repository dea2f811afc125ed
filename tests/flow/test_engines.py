"""`--engine`: replies from a server that speaks vLLM's protocol and computes with the weights that are pushed to it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from accord.cli import main
from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import InProcess, Served, open_engine
from accord.engine.remote.vllm import Server
from accord.errors import BadInput
from accord.models.loading import add_adapters, load_policy
from accord.models.places import POLICY
from accord.models.saving import save_model
from accord.models.tokenizer import load_renderer
from tests.fixtures.like_vllm import OPINIONS, LikeVllm, gap_of, like_rows_without_a_token
from tests.fixtures.serving import serving


@pytest.fixture
def server():
    with serving(LikeVllm()) as stub:
        yield stub


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
    engine.close()
    assert not list(tmp_path.glob(".weights*"))
    assert all(torch.equal(before[name], p) for name, p in policy.named_parameters())


def test_a_rank_that_sends_no_weights_still_has_them_for_a_server_that_was_away(server, snapshots, tmp_path):
    policy = load_policy(str(snapshots / "policy"), trainable=False)
    sends, other = (open_engine(server.url, policy, tmp_path) for _ in range(2))
    sends.follow(policy)
    other.pushed = sends.pushed
    other.fleet.revive(other.fleet.servers[0])
    assert len(server.pushed) == 2
    assert torch.equal(server.pushed[1][1]["model.norm.weight"], policy.model.norm.weight)
    sends.close()


def test_the_knob_chooses_and_a_silent_server_is_refused(server, snapshots, tmp_path, commands, capsys):
    policy = load_policy(str(snapshots / "policy"))
    assert isinstance(open_engine("", policy, tmp_path), InProcess)
    assert isinstance(open_engine(server.url, policy, tmp_path), Served)
    with pytest.raises(BadInput, match="is the server running"):
        open_engine("http://127.0.0.1:9", policy, tmp_path)
    assert commands.run("ppo", tmp_path / "run", engine="vllm") == 2
    assert "--engine" in capsys.readouterr().err


@pytest.mark.parametrize("left_open", ["", *OPINIONS])
def test_nothing_of_a_checkpoints_generation_config_leaks_in_and_every_setting_that_is_left_open_would(
    left_open, server, snapshots, tmp_path, monkeypatch
):
    server.generation = {left_open: OPINIONS[left_open]} if left_open else OPINIONS
    call = Server._call

    def forgetful(self, route, body=None):
        return call(self, route, {k: v for k, v in body.items() if k != left_open} if body else body)

    monkeypatch.setattr(Server, "_call", forgetful)
    policy = load_policy(str(snapshots / "policy"), trainable=False)
    engine = open_engine(server.url, policy, tmp_path)
    engine.follow(policy)
    prompts = [(5, 6, 7), (8, 9, 5), (10, 11)]
    gap = gap_of(policy, engine.sample(prompts, SampleSettings(4, 1.0, 8, frozenset({2}), seed=3)))
    assert gap > 1e-2 if left_open else gap < 1e-5


def test_a_reply_that_a_server_cuts_off_ends_the_run_with_what_to_do(commands, tmp_path, server, capsys):
    server.cut_off = 3
    assert commands.run("sample", tmp_path / "run", engine=server.url) == 2
    assert "after 3 of 6 tokens; start it without --generation-config" in capsys.readouterr().err


@pytest.fixture
def padded(snapshots, tmp_path):
    """The policy with 20 rows more than it has tokens, which it likes best of all."""
    where = str(snapshots / "policy")
    policy, tokenizer = load_policy(where, trainable=False), load_renderer(where).tokenizer
    tokens = policy.config.vocab_size
    like_rows_without_a_token(policy, tokens)
    save_model(policy, tokenizer, tmp_path / "padded", dict(POLICY), "")
    return str(tmp_path / "padded"), tokens


def test_rows_without_a_token_are_never_drawn(commands, tmp_path, server, padded, capsys):
    where, tokens = padded
    assert commands.run("sample", tmp_path / "run", engine=server.url, model=where, samples=3, max_rows=8) == 0
    assert all(sorted(body["logit_bias"]) == [str(i) for i in range(tokens, tokens + 20)] for body in server.bodies)
    # the trainer's log-probs are of the whole head: the gap says so, and they stand in the ratio
    assert commands.run("ppo", tmp_path / "ppo", engine=server.url, model=where, steps=2) == 0
    rows = [json.loads(line) for line in (tmp_path / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["policy/sampler_gap"] > 1e-3 for row in rows)
    assert rows[0]["policy/ratio"] == pytest.approx(1, abs=0.05)


def test_a_server_that_reads_too_little_is_refused_before_anything_is_done(commands, tmp_path, server, capsys):
    server.reads = 60
    for command in ("sample", "ppo"):
        assert commands.run(command, tmp_path / command, engine=server.url) == 2
        assert f"{server.url} reads 60 tokens, and --max_length" in capsys.readouterr().err
    assert not server.pushed


def test_a_temperature_that_the_server_would_raise_is_refused(commands, tmp_path, server, capsys):
    assert commands.run("sample", tmp_path / "run", engine=server.url, temperature=0.005) == 2
    assert "a vLLM server draws at 0.01" in capsys.readouterr().err


def test_a_check_says_what_a_server_serves_and_whether_its_log_probs_are_the_models(server, snapshots, capsys):
    line = ["check", str(snapshots / "policy"), "--engine", server.url, "--max_new_tokens", "5"]
    server.take(str((snapshots / "policy").resolve()))
    assert main(line) == 0
    said = capsys.readouterr().out
    assert f"fine   engine: {server.url} serves some/name and reads 4096 tokens" in said
    assert "fine   engine: its log-probs are" in said and said.count("assistant: ") == 3
    server.take(str((snapshots / "other").resolve()))
    assert main(line) == 0
    assert "note   engine: its log-probs are" in capsys.readouterr().out
    server.reads = 516
    assert main(line) == 2  # --max_length 512 and five more
    assert "start it with a larger --max-model-len" in capsys.readouterr().err
