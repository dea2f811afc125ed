"""AdamW with moments of 8 bits against AdamW in f32, its bytes by hand, and what it is refused with."""

import importlib.util

import pytest
import torch
from torch import nn

from accord.errors import BadInput
from accord.parsing import parse
from accord.training import checkpoint
from accord.training.footprint import SCALED, state_bytes
from accord.training.memory import measure
from accord.training.optimizer import build_optimizer, set_rate
from tests.conftest import checkpoint_of

RATE = 1e-2
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'accord[bits]'"
)


def matrix(seed=0):
    """Large enough for moments of 8 bits, and a vector that keeps f32."""
    torch.manual_seed(seed)
    return nn.Linear(96, 64)


def stepped(module, bits, steps, first=0, optimizer=None):
    """Steps with gradients that are the same for everyone."""
    if optimizer is None:
        optimizer = build_optimizer(module.parameters(), weight_decay=0.1, bits=bits)
    set_rate(optimizer, RATE)
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer


@needs_package
def test_the_first_steps_are_those_of_f32_but_for_the_rounding():
    """The first is made before anything was rounded. Then a byte of a moment is off by few hundredths of its number."""
    for steps, bound in ((1, 1e-6), (2, 0.05), (6, 0.15)):
        ours, theirs = matrix(), matrix()
        stepped(ours, 8, steps)
        stepped(theirs, 32, steps)
        off = (ours.weight - theirs.weight).abs().mean() / RATE
        assert off <= bound and (off > 1e-4) == (steps > 1)
        assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)  # 64 numbers keep f32


@needs_package
def test_a_moment_takes_a_byte_a_number_and_its_scales():
    module = matrix()
    optimizer = stepped(module, 8, 1)
    tensors = [value for value in optimizer.state[module.weight].values() if isinstance(value, torch.Tensor)]
    codes = [256 * 4, 256 * 4]  # what each byte stands for, of either moment; all matrices share them
    moments = 2 * (96 * 64 + 4 * 96 * 64 / 256)
    assert sum(tensor.nbytes for tensor in tensors) == moments + sum(codes)
    assert moments + 4 * 96 * 64 == state_bytes(96 * 64, bits=8)
    assert sum(t.dtype == torch.uint8 and t.shape == module.weight.shape for t in tensors) == 2
    assert 2 * (1 + 4 / SCALED) == 2.03125


def test_the_need_of_a_step_knows_the_bits():
    model = nn.Linear(3, 2, bias=False)
    need = measure(lambda items: model(torch.cat(items)).tanh().sum(), torch.ones(10, 3), 10, [model], bits=8)
    assert need.fixed == 6 * (4 + 2 * (1 + 4 / 256))


@needs_package
def test_a_checkpoint_has_every_bit_of_it(tmp_path):
    module = matrix()
    optimizer = stepped(module, 8, 3)
    checkpoint.save(tmp_path, 3, {"model": module}, {"adamw": optimizer}, {})
    other = matrix(1)
    fresh = build_optimizer(other.parameters(), weight_decay=0.1, bits=8)
    checkpoint.load(checkpoint.latest(tmp_path), {"model": other}, {"adamw": fresh})
    stepped(module, 8, 3, 3, optimizer)
    stepped(other, 8, 3, 3, fresh)
    assert torch.equal(module.weight, other.weight) and torch.equal(module.bias, other.bias)
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        for name, value in optimizer.state[mine].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(fresh.state[theirs][name])), name


@needs_package
@pytest.mark.parametrize("name", ["sft", pytest.param("preference", marks=pytest.mark.slow), "ppo"])
def test_a_run_that_goes_on_ends_with_the_same_bits(name, commands, stop_after, same_run, tmp_path):
    changes = {"optimizer_bits": 8} | ({"steps": 3} if name == "ppo" else {})
    assert commands.run(name, tmp_path / "whole", **changes) == 0
    stop_after(2)
    assert commands.run(name, tmp_path / "run", **changes) == 1
    stop_after(-1)
    assert commands.run(name, tmp_path / "run", resume="true", **changes) == 0
    same_run(tmp_path / "run", tmp_path / "whole")
    saved, _ = checkpoint_of(tmp_path / "run")
    assert any(tensor.dtype == torch.uint8 for tensor in saved.values())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--optimizer_bits", "16"], "neither 32 nor 8"),
        (["--optimizer_bits", "8", "--shard", "true"], "not divided by --shard"),
        (["--optimizer_bits", "8"], "pip install 'accord[bits]'"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_knob(flags, said, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as refused:
        parse("sft", ["--model", "m", "--data", "d", "--out", "o", *flags])
    assert "--optimizer_bits" in str(refused.value) and said in str(refused.value)
