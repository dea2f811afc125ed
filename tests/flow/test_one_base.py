"""With LoRA every role stands on one set of base weights, and gives the numbers of models of its own."""

import json

import pytest
import torch

from accord.models import bases, loading
from accord.models.bases import BaseWeights
from accord.models.loading import load_policy
from accord.stages.ppo import run as ppo


@pytest.fixture(scope="module")
def adapted(commands, tmp_path_factory):
    """A preference model and a cost model, adapters on the policy that PPO starts from."""
    root = tmp_path_factory.mktemp("adapted")
    for name in ("preference", "cost"):
        assert commands.run(name, root / name, lora_rank=2, learning_rate=1e-2) == 0
    return root


def line(adapted, **more):
    scorers = {"rewards.helpful": adapted / "preference/snapshot", "costs.harm": adapted / "cost/snapshot"}
    return {**scorers, "lora_rank": 2, "steps": 2, "learning_rate": 1e-2, "weight_average": 0.5, **more}


def rows_of(out):
    return [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]


def frozen(modules):
    """Storages of what is frozen in some modules, with their bytes."""
    parameters = [p for module in modules for p in module.parameters() if not p.requires_grad]
    return {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parameters}


def test_every_role_stands_on_the_policys_weights(commands, adapted, tmp_path, monkeypatch):
    seen = []
    plain = ppo.prepare

    def prepare(*inputs):
        prompts, actors = plain(*inputs)
        seen.append(actors)
        return prompts, actors

    monkeypatch.setattr(ppo, "prepare", prepare)
    assert commands.run("limited", tmp_path / "run", **line(adapted)) == 0
    actors = seen[0]
    scorers = [model for scorer in actors.scorers.values() for model in scorer.models]
    whole = frozen([actors.policy, actors.average, actors.critics, *scorers])
    base = frozen([actors.policy])
    assert set(base) < set(whole)
    heads_and_adapters = sum(whole.values()) - sum(base.values())
    assert heads_and_adapters < 0.25 * sum(base.values())  # of four roles, width 16
    assert all(p.requires_grad == ("lora" in n or "modules_to_save" in n) for n, p in actors.critics.named_parameters())


def test_shared_weights_change_no_number(commands, adapted, tmp_path, monkeypatch):
    """The same roles with weights of their own: to the bit."""
    assert commands.run("limited", tmp_path / "one", **line(adapted)) == 0
    monkeypatch.setattr(bases.BaseWeights, "share", lambda self, model: model)
    assert commands.run("limited", tmp_path / "each", **line(adapted)) == 0
    for one, each in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "each"), strict=True):
        assert one.keys() == each.keys()
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in each.items() if k != "seconds"}


def test_adapters_on_the_base_say_what_whole_models_say(commands, adapted, tmp_path, monkeypatch):
    """Rewards, costs and values of the first rollouts, of adapters and of the weights that they were merged into."""
    assert commands.run("limited", tmp_path / "one", **line(adapted, steps=1)) == 0
    monkeypatch.setattr(loading, "adapter_beside", lambda where, on: "")
    assert commands.run("limited", tmp_path / "whole", **line(adapted, steps=1)) == 0
    (one,), (whole,) = rows_of(tmp_path / "one"), rows_of(tmp_path / "whole")
    for name in ("objective/scores", "objective/kl", "cost/harm/mean", "values/reward", "values/harm"):
        if name in one:
            assert one[name] == pytest.approx(whole[name], rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("adapters", [0, 2])
def test_frozen_roles_are_held_in_bf16_where_that_changes_no_number(commands, tmp_path, monkeypatch, adapters):
    """To the bit; roles on the base of a trained policy stay with it."""
    held = []
    plain = ppo.iterate

    def iterate(config, run, world, prompts, actors, *rest):
        held.append({p.dtype for model in actors.frozen for n, p in model.named_parameters() if "mlp" in n})
        held.append({p.dtype for model in actors.moving for p in model.parameters()})
        return plain(config, run, world, prompts, actors, *rest)

    monkeypatch.setattr(ppo, "iterate", iterate)
    more = {"lora_rank": adapters, "steps": 2, "precision": "bf16"}
    assert commands.run("limited", tmp_path / "held", **more) == 0
    matrices, moving = held[:2]
    assert matrices == {torch.float32 if adapters else torch.bfloat16} and moving == {torch.float32}
    monkeypatch.setattr(ppo, "lower_frozen", lambda *given: None)
    assert commands.run("limited", tmp_path / "cast", **more) == 0
    assert held[4] == {torch.float32}
    for one, each in zip(rows_of(tmp_path / "held"), rows_of(tmp_path / "cast"), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in each.items() if k != "seconds"}


def test_what_is_trained_is_never_shared(snapshots):
    where = str(snapshots / "policy")
    shared = BaseWeights()
    first = shared.share(load_policy(where, trainable=False))
    trained = shared.share(load_policy(where))
    second = shared.share(load_policy(where, trainable=False))
    other = shared.share(load_policy(str(snapshots / "other"), trainable=False))
    assert frozen([first]) == frozen([second]) and not frozen([first]).keys() & frozen([other]).keys()
    assert all(a is not b for a, b in zip(trained.parameters(), first.parameters(), strict=True))
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(first(ids).logits, second(ids).logits)
    assert not torch.equal(first(ids).logits, other(ids).logits)
