"""Matrices of 4 bits under adapters, against their code by hand and against a layer of the numbers that they name."""

import copy
import importlib.util

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from scipy.stats import norm
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from accord.config import Adapters
from accord.engine.forward.adapters import merged
from accord.engine.forward.attention import IMPLEMENTATION
from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.four_bits import BLOCK, FourBitLinear, in_four_bits
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.models.bases import BaseWeights, lower_frozen
from accord.models.loading import add_adapters, load_policy
from accord.parsing import parse
from accord.stages.ppo import run as ppo
from tests.conftest import metrics_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'accord[bits]'"
)


def frozen(out=24, width=32, bias=True):
    torch.manual_seed(0)
    return nn.Linear(width, out, bias=bias).requires_grad_(False)


def nf4():
    """QLoRA's code (appendix E): quantiles of a normal number, eight up to 1 and seven down to −1, and 0."""
    end = 0.9677083
    upper = norm.ppf(torch.linspace(end, 0.5, 9)[:-1].numpy())
    lower = -norm.ppf(torch.linspace(end, 0.5, 8)[:-1].numpy())
    code = torch.tensor(sorted([*upper, 0.0, *lower]), dtype=torch.float32)
    return code / code.max()


def test_a_number_is_the_nearest_share_of_its_blocks_largest():
    linear = frozen()
    blocks = linear.weight.reshape(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = nf4()[(blocks / largest).unsqueeze(-1).sub(nf4()).abs().argmin(-1)] * largest
    held = in_four_bits(linear, torch.float32, {})
    torch.testing.assert_close(held.weight, nearest.view(24, 32), rtol=1e-4, atol=1e-5)


def test_it_takes_half_a_byte_a_number_and_its_scales():
    held = in_four_bits(frozen(out=64, width=64, bias=False), torch.float32, {})
    assert sum(p.numel() * p.element_size() for p in held.parameters()) == 64 * 64 // 2 + 4 * 64 * 64 // BLOCK
    assert not any(p.requires_grad for p in held.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_as_a_layer_of_the_numbers_that_it_names(dtype):
    linear = frozen()
    held = in_four_bits(linear, dtype, {})
    assert held.weight.dtype == dtype and held.weight.shape == linear.weight.shape
    named = copy.deepcopy(linear)
    named.weight.data = held.weight.float()
    x = torch.randn(5, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(held(x), named(x))


def test_one_parameter_is_held_once():
    linear, known = frozen(), {}
    other = copy.deepcopy(linear, {id(linear.weight): linear.weight})
    first, second = (in_four_bits(each, torch.float32, known) for each in (linear, other))
    assert first.codes is second.codes and first.scales is second.scales
    assert in_four_bits(frozen(), torch.float32, known).codes is not first.codes


def adapted(where):
    model = add_adapters(load_policy(where), Adapters(lora_rank=2), scalar=False, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return model


def layers(model):
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_gradients_are_those_on_the_numbers_that_it_names(snapshots, precision):
    """Of every adapter, to the bit."""
    held, named = (adapted(str(snapshots / "policy")) for _ in range(2))
    lower_frozen([held], precision, 4)
    for mine, other in zip(layers(held), layers(named), strict=True):
        assert type(mine.base_layer) is FourBitLinear
        other.base_layer.weight.data = mine.base_layer.weight.float()
    found = []
    for model in (held, named):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            token_logprobs(model, pack([reply_group((3, 4, 5), (6, 7, 8))])).sum().backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_adapters_are_merged_into_the_numbers_of_the_base(snapshots):
    where = str(snapshots / "policy")
    held, plain = adapted(where), adapted(where)
    lower_frozen([held], "bf16", 4)
    ours, theirs = merged(held).state_dict(), merged(plain).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(type(layer.base_layer) is FourBitLinear for layer in layers(held))  # what was saved goes on


def test_roles_of_one_base_hold_it_once(snapshots):
    bases = BaseWeights()
    roles = [bases.share(adapted(str(snapshots / "policy"))) for _ in range(3)]
    lower_frozen(roles, "bf16", 4)
    codes = [[id(layer.base_layer.codes) for layer in layers(role)] for role in roles]
    assert codes[0] == codes[1] == codes[2] and len(set(codes[0])) == len(codes[0])


ADAPTED = {"lora_rank": 2, "base_bits": 4, "learning_rate": 1e-2}


@pytest.mark.parametrize("stage", ["sft", "dpo", "preference"])
def test_a_stage_learns_on_it_and_leaves_whole_numbers(commands, snapshots, tmp_path, stage):
    assert commands.run(stage, tmp_path / "run", **ADAPTED) == 0
    saved, start = (load_file(at / "model.safetensors") for at in (tmp_path / "run/snapshot", snapshots / "policy"))
    moved = {name for name in start if name in saved and not torch.equal(saved[name], start[name])}
    assert all(saved[name].dtype == torch.float32 for name in saved)
    assert moved == {name for name in start if "_proj" in name}  # and embeddings and norms are those of the base


def test_every_role_of_ppo_stands_on_it_and_draws_by_it(commands, tmp_path, monkeypatch):
    roots = {name: tmp_path / name for name in ("preference", "cost")}
    for name, root in roots.items():
        assert commands.run(name, root, lora_rank=2, learning_rate=1e-2) == 0
    kept = []
    plain = ppo.iterate

    def iterate(config, run, world, prompts, actors, *rest):
        kept.append(actors)
        return plain(config, run, world, prompts, actors, *rest)

    monkeypatch.setattr(ppo, "iterate", iterate)
    scorers = {"rewards.helpful": roots["preference"] / "snapshot", "costs.harm": roots["cost"] / "snapshot"}
    assert commands.run("limited", tmp_path / "run", **scorers, **ADAPTED, steps=2) == 0
    held = {id(layer.base_layer.codes) for model in kept[0].models for layer in layers(model)}
    assert len(held) == len(layers(kept[0].policy)) and len(kept[0].models) > 3
    rows = metrics_of(tmp_path / "run")
    assert max(row["policy/sampler_gap"] for row in rows) < 1e-4  # in f32: rollouts are of the policy that learns


def test_a_run_that_goes_on_ends_with_the_same_bits(commands, stop_after, same_run, tmp_path):
    assert commands.run("sft", tmp_path / "whole", **ADAPTED) == 0
    stop_after(2)
    assert commands.run("sft", tmp_path / "run", **ADAPTED) == 1
    stop_after(-1)
    assert commands.run("sft", tmp_path / "run", resume="true", **ADAPTED) == 0
    same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # peft's, of its own choice
def test_a_model_without_linear_layers_is_refused_and_not_passed_over():
    """GPT-2's matrices are layers of a make of their own."""
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, bos_token_id=1, eos_token_id=2)
    config._attn_implementation = IMPLEMENTATION
    model = GPT2LMHeadModel(config)
    model.name_or_path = "gpt"
    with pytest.raises(BadInput, match="--base_bits 4: no layer under adapters"):
        lower_frozen(
            [add_adapters(model, Adapters(lora_rank=2, lora_targets="c_attn"), scalar=False, seed=0)], "f32", 4
        )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lora_rank", "2", "--base_bits", "8"], "is not 4"),
        (["--lora_rank", "2", "--base_bits", "4", "--shard", "true"], "not divided by --shard"),
        (["--lora_rank", "2", "--base_bits", "4"], "pip install 'accord[bits]'"),
        (["--base_bits", "4"], "without --lora_rank"),
    ],
)
def test_what_cannot_be_is_refused(flags, said, monkeypatch):
    if "pip" in said:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as refused:
        parse("sft", ["--model", "m", "--data", "d", "--out", "o", *flags])
    assert "--base_bits" in str(refused.value) and said in str(refused.value)
