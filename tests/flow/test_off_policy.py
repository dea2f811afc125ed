"""`--off_policy_steps 1`: servers draw the next replies while this process learns, and ratios say how old they are."""

import json
import threading

import pytest
import torch

from accord.disk import read_lines
from accord.models.loading import load_policy
from accord.stages.ppo import log as ppo_log
from accord.stages.ppo import rollouts as ppo_rollouts
from accord.stages.ppo import run as ppo
from accord.training import checkpoint
from tests.fixtures.like_vllm import LikeVllm
from tests.fixtures.serving import serving

AHEAD = {"off_policy_steps": 1, "steps": 3, "learning_rate": 1e-2}


@pytest.fixture
def server():
    with serving(LikeVllm()) as stub:
        yield stub


def numbers(folder):
    clock = ("seconds", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in read_lines(folder / "metrics.jsonl")]


def test_in_step_it_is_the_loop_of_before(commands, server, tmp_path, same_run):
    """Of 0 steps to the bit; of 1 step the first iteration, whose replies nothing older drew."""
    sync = {"engine": server.url, "steps": 2, "learning_rate": 1e-2}
    assert commands.run("ppo", tmp_path / "plain", **sync) == 0
    assert commands.run("ppo", tmp_path / "zero", off_policy_steps=0, **sync) == 0
    same_run(tmp_path / "plain", tmp_path / "zero")
    assert commands.run("ppo", tmp_path / "ahead", engine=server.url, **{**AHEAD, "steps": 2}) == 0
    plain, ahead = numbers(tmp_path / "plain"), numbers(tmp_path / "ahead")
    assert ahead[0] == plain[0] and ahead[1]["objective/scores"] != plain[1]["objective/scores"]


def logprobs_by_hand(snapshots, weights, rollouts, temperature):
    """Log-probs of replies by the model's own forward, one after the other."""
    model = load_policy(str(snapshots / "policy"), trainable=False)
    model.load_state_dict(weights, strict=False)
    found = []
    for rollout in rollouts:
        with torch.no_grad():
            logits = model(torch.tensor([[*rollout.prompt_ids, *rollout.ids]])).logits[0] / temperature
        logs = logits[len(rollout.prompt_ids) - 1 : -1].log_softmax(-1)
        found.append(logs.gather(1, torch.tensor(rollout.ids)[:, None])[:, 0])
    return found


def test_the_ratios_are_those_of_the_two_weights_by_hand(commands, server, snapshots, tmp_path, monkeypatch):
    """Replies of iteration t + 1 are by the weights of iteration t, truncated, and weigh the loss token by token."""
    seen, plain = [], ppo.improve

    def improve(config, world, actors, optimizers, experience, *rest):
        seen.append(experience)
        return plain(config, world, actors, optimizers, experience, *rest)

    monkeypatch.setattr(ppo, "improve", improve)
    for module in (ppo_log, ppo_rollouts):  # so that some tokens are at the cap
        monkeypatch.setattr(module, "CAP", 1.1)
    changes = {**AHEAD, "temperature": 0.8}
    assert commands.run("ppo", tmp_path / "run", engine=server.url, **changes) == 0
    assert [{r.version for r in e.rollouts} for e in seen] == [{"step-0"}, {"step-0"}, {"step-1"}]
    assert len(server.pushed) == 2 and seen[0].importance is None  # after the last there is nothing to draw
    (_, older), (_, newer) = server.pushed
    drew, trained = (logprobs_by_hand(snapshots, w, seen[1].rollouts, 0.8) for w in (older, newer))
    rows = numbers(tmp_path / "run")
    weights = []
    for i, (before, now) in enumerate(zip(drew, trained, strict=True)):
        size = len(now)
        assert torch.allclose(seen[1].sampled[i, :size], before, atol=1e-4)
        assert torch.allclose(seen[1].logprobs[i, :size], now, atol=1e-4)
        weights.append((now - before).exp().clamp(max=1.1))
        assert torch.allclose(seen[1].importance[i, :size], weights[-1], atol=1e-4)
        assert not seen[1].importance[i, size:].any()
    flat = torch.cat(weights)
    at_cap = float((flat >= 1.1).float().mean())
    assert 0 < at_cap < 1 and rows[1]["policy/importance_truncated"] == pytest.approx(at_cap, abs=0.02)
    assert rows[1]["policy/importance"] == pytest.approx(float(flat.mean()), rel=1e-4)
    effective = float(flat.sum() ** 2 / (len(flat) * (flat**2).sum()))
    assert rows[1]["policy/importance_effective"] == pytest.approx(effective, rel=1e-4)
    assert rows[1]["policy/sampler_gap"] > 1e-3 and "policy/importance" not in rows[0]
    assert rows[1]["policy/ratio"] != rows[1]["policy/importance"]


def test_a_token_weighs_in_the_loss_what_its_ratio_says(commands, server, tmp_path, monkeypatch):
    """With ratios of 0 for all nothing is learned."""
    monkeypatch.setattr(ppo_rollouts, "truncated_ratios", lambda new, old, mask, cap: torch.zeros_like(new))
    assert commands.run("ppo", tmp_path / "run", engine=server.url, **AHEAD) == 0
    rows = numbers(tmp_path / "run")
    assert rows[0]["grad_norm/policy"] > 0 == rows[1]["grad_norm/policy"] == rows[2]["grad_norm/policy"]


def test_servers_draw_while_this_process_learns(commands, server, tmp_path, monkeypatch):
    """No reply of the second iteration is given before the first one's update has begun."""
    learning, plain, order = threading.Event(), ppo.improve, []

    def improve(*given, **more):
        order.append("learns")
        learning.set()
        return plain(*given, **more)

    def hears(path):
        if path == "/v1/completions" and server.routes.count(path) > 8:
            assert learning.wait(20)
            order.append("draws")

    server.hears = hears
    monkeypatch.setattr(ppo, "improve", improve)
    assert commands.run("ppo", tmp_path / "run", engine=server.url, **{**AHEAD, "steps": 2}) == 0
    assert order[0] == "learns" and order.count("draws") == 8


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_checkpoint_has_what_is_in_flight_and_a_resumed_run_the_same_bits(
    step, commands, server, tmp_path, stop_after, same_run
):
    changes = {"engine": server.url, **AHEAD, "steps": 4}
    assert commands.run("ppo", tmp_path / "whole", **changes) == 0
    stop_after(step)
    assert commands.run("ppo", tmp_path / "run", **changes) == 1
    state = json.loads((checkpoint.latest(tmp_path / "run" / "checkpoints") / "state.json").read_text())
    assert state["in_flight"]["step"] == step and len(state["in_flight"]["replies"]) == 8
    assert state["in_flight"]["replies"][0][0]["version"] == f"step-{step - 1}"
    stop_after(-1)
    server.routes.clear()
    assert commands.run("ppo", tmp_path / "run", resume="true", **changes) == 0
    assert server.routes.count("/v1/completions") == 8 * (4 - step - 1)
    same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"off_policy_steps": 1}, "--off_policy_steps has no effect without --engine URL"),
        ({"off_policy_steps": 2, "engine": "URL"}, "--off_policy_steps"),
        ({"off_policy_steps": 1, "engine": "URL", "kl_budget": 3.0}, "weights that nobody looked at"),
        ({"off_policy_steps": 1, "engine": "URL", "sampler_gap": 0.1}, "--sampler_gap has no effect"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, said, commands, server, tmp_path, capsys):
    given = {knob: server.url if value == "URL" else value for knob, value in changes.items()}
    assert commands.run("ppo", tmp_path / "run", **given) == 2
    assert said in capsys.readouterr().err
