"""With LoRA every role stands on one set of base weights, and gives the numbers of models of its own."""

import importlib
import json

import pytest
import torch
from safetensors.torch import load_file

from accord.config import Adapters
from accord.disk import read_json
from accord.engine.forward.adapters import merged
from accord.models import bases, loading
from accord.models.bases import BaseWeights, lower_frozen
from accord.models.loading import add_adapters, load_policy
from accord.stages.ppo import run as ppo

CLOCKED = ("seconds", "tokens_per_second")


@pytest.fixture(scope="module")
def adapted(commands, tmp_path_factory):
    """A preference model and a cost model, adapters on the policy that PPO starts from."""
    root = tmp_path_factory.mktemp("adapted")
    for name in ("preference", "cost"):
        assert commands.run(name, root / name, lora_rank=2, learning_rate=1e-2, epochs=1) == 0
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


@pytest.fixture(scope="module")
def one(commands, adapted, tmp_path_factory):
    """A run whose roles all stand on one base: its folder and its actors."""
    out, seen = tmp_path_factory.mktemp("one") / "run", []
    plain = ppo.prepare

    def prepare(*inputs):
        prompts, actors = plain(*inputs)
        seen.append(actors)
        return prompts, actors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "prepare", prepare)
        assert commands.run("limited", out, **line(adapted)) == 0
    return out, seen[0]


def test_every_role_stands_on_the_policys_weights(one):
    actors = one[1]
    scorers = [model for scorer in actors.scorers.values() for model in scorer.models]
    whole = frozen([actors.policy, actors.average, actors.critics, *scorers])
    base = frozen([actors.policy])
    assert set(base) < set(whole)
    heads_and_adapters = sum(whole.values()) - sum(base.values())
    assert heads_and_adapters < 0.25 * sum(base.values())  # of four roles, width 16
    assert all(p.requires_grad == ("lora" in n or "modules_to_save" in n) for n, p in actors.critics.named_parameters())


def test_shared_weights_change_no_number(commands, adapted, one, tmp_path, monkeypatch):
    """The same roles with weights of their own: to the bit."""
    monkeypatch.setattr(bases.BaseWeights, "share", lambda self, model: model)
    assert commands.run("limited", tmp_path / "each", **line(adapted)) == 0
    assert told(one[0]) == told(tmp_path / "each")


def test_adapters_on_the_base_say_what_whole_models_say(commands, adapted, one, tmp_path, monkeypatch):
    """Rewards, costs and values of the first rollouts, of adapters and of the weights that they were merged into."""
    monkeypatch.setattr(loading, "adapter_beside", lambda where, on: "")
    assert commands.run("limited", tmp_path / "whole", **line(adapted, steps=1)) == 0
    (first, _), (whole,) = rows_of(one[0]), rows_of(tmp_path / "whole")
    for name in ("objective/scores", "objective/kl", "cost/harm/mean", "values/reward", "values/harm"):
        if name in first:
            assert first[name] == pytest.approx(whole[name], rel=1e-5, abs=1e-6), name


def told(out):
    return [{k: v for k, v in row.items() if k not in CLOCKED} for row in rows_of(out)]


@pytest.mark.parametrize("adapters", [0, 2])
def test_what_nothing_trains_is_held_in_bf16_where_that_changes_no_number(commands, tmp_path, monkeypatch, adapters):
    """To the bit; an adapted policy's base too, but that replies are drawn by norms folded into rounded numbers."""
    held = []
    plain = ppo.iterate

    def iterate(config, run, world, prompts, actors, *rest):
        held.append({p.dtype for model in actors.frozen for n, p in model.named_parameters() if "mlp" in n})
        moving = [(n, p) for model in actors.moving for n, p in model.named_parameters()]
        held.append({p.dtype for n, p in moving if p.requires_grad})
        held.append({p.dtype for n, p in moving if "mlp" in n and "lora" not in n})
        return plain(config, run, world, prompts, actors, *rest)

    monkeypatch.setattr(ppo, "iterate", iterate)
    more = {"lora_rank": adapters, "steps": 2, "precision": "bf16"}
    assert commands.run("limited", tmp_path / "held", **more) == 0
    assert held[:3] == [{torch.bfloat16}, {torch.float32}, {torch.bfloat16 if adapters else torch.float32}]
    monkeypatch.setattr(ppo, "lower_frozen", lambda *given: None)
    assert commands.run("limited", tmp_path / "cast", **more) == 0
    assert held[6] == {torch.float32}
    if adapters:
        gaps = [row["policy/sampler_gap"] for name in ("held", "cast") for row in told(tmp_path / name)]
        # the first iterations are of one policy; what learned from other replies is another
        assert max(gaps) < 0.01 and gaps[0] < 2 * gaps[2]
    else:
        assert told(tmp_path / "held") == told(tmp_path / "cast")


@pytest.mark.parametrize("stage", ["sft", "dpo", "preference"])
def test_a_base_in_bf16_changes_no_number_of_a_stage_that_draws_nothing(commands, tmp_path, monkeypatch, stage):
    more = {"lora_rank": 2, "precision": "bf16", "learning_rate": 1e-2, "epochs": 0.7}
    room = importlib.import_module(f"accord.stages.{stage}.run")
    lower, held = room.lower_frozen, set()

    def lowered(models, *asked):
        lower(models, *asked)
        held.update(p.dtype for model in models for n, p in model.named_parameters() if "base_layer" in n)

    monkeypatch.setattr(room, "lower_frozen", lowered)
    assert commands.run(stage, tmp_path / "held", **more) == 0
    assert held == {torch.bfloat16}
    monkeypatch.setattr(room, "lower_frozen", lambda *given: None)
    assert commands.run(stage, tmp_path / "cast", **more) == 0
    assert told(tmp_path / "held") == told(tmp_path / "cast")
    # of a scorer, mean and deviation of its scores, which are those of the saved model in f32
    assert read_json(tmp_path / "held/snapshot/config.json") == read_json(tmp_path / "cast/snapshot/config.json")
    ours, theirs = (load_file(tmp_path / name / "snapshot/model.safetensors") for name in ("held", "cast"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["whole", "adapters"])
def test_adapters_are_merged_into_the_numbers_that_were_rounded(snapshots, commands, tmp_path, kind):
    where = str(snapshots / "policy")
    if kind == "adapters":  # a directory that names its own base
        assert commands.run("sft", tmp_path / "run", lora_rank=2, learning_rate=1e-2, epochs=1) == 0
        where = str(tmp_path / "run/snapshot/adapter")
    model = add_adapters(load_policy(where), Adapters(lora_rank=2), scalar=False, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    before = merged(model).state_dict()
    lower_frozen([model], "bf16")
    for _ in range(2):  # the model that was copied can go on
        after = merged(model).state_dict()
        assert all(after[name].dtype == torch.float32 and torch.equal(after[name], before[name]) for name in before)
    assert {m.weight.dtype for n, m in model.named_modules() if n.endswith("base_layer")} == {torch.bfloat16}
    lower_frozen([again := add_adapters(load_policy(where), Adapters(lora_rank=2), scalar=False, seed=0)], "f32")
    assert {p.dtype for p in again.parameters()} == {torch.float32}


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
