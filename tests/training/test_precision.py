"""bf16 where a probe says that it pays, weights cast once per step, and the same losses to 2e-3."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.models.loading import load_policy
from accord.training import precision
from accord.training.distributed import World
from accord.training.precision import choose_precision, lowered, one_cast, speed_up

CPU = torch.device("cpu")


@pytest.fixture
def timings(monkeypatch):
    """`timings(*rounds)` are the seconds in f32 and bf16 that the probe finds."""
    asked = []

    def install(*rounds):
        speed_up.cache_clear()
        monkeypatch.setattr(precision, "rounds", lambda device: asked.append(device) or list(rounds))
        return asked

    yield install
    speed_up.cache_clear()


@pytest.mark.parametrize(
    ("rounds", "chosen"),
    [
        ([(4.0, 2.0)], "bf16"),
        ([(3.9, 2.0)], "f32"),
        ([(1.0, 3.0)], "f32"),
        ([(1.0, 3.0)] * 2 + [(4.0, 2.0)] * 6, "bf16"),
        ([(1.0, 3.0)] * 3 + [(9.0, 2.0)] * 5, "f32"),
    ],
)
def test_bf16_is_chosen_where_three_rounds_in_four_are_twice_as_fast(timings, rounds, chosen):
    asked = timings(*rounds)
    assert [choose_precision(World(0, 1, CPU)) for _ in range(3)] == [chosen] * 3
    assert asked == ["cpu"]  # measured once per process


def test_ranks_agree(timings, monkeypatch):
    timings((4.0, 1.0))
    monkeypatch.setattr(World, "gather", lambda self, value: [value, False])
    assert choose_precision(World(0, 2, CPU)) == "f32"


def test_a_device_that_is_not_known_stays_with_f32():
    assert speed_up("mps") == 0.0


@pytest.fixture(scope="module")
def measured():
    return precision.rounds("cpu")


def test_the_probe_measures_both_types(measured):
    assert len(measured) == precision.ROUNDS and all(seconds > 0 for pair in measured for seconds in pair)


def test_a_processor_without_units_for_bf16_stays_with_f32(timings, measured):
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        pytest.skip("this one has them")
    timings(*measured)
    assert speed_up("cpu") < precision.PAYS


class Casts(TorchDispatchMode):
    """Counts casts of matrices to bf16."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].shape == self.shape:
            self.count += (kwargs or {}).get("dtype") == torch.bfloat16
        return function(*args, **(kwargs or {}))


def step(model, parts, low="bf16"):
    """Casts of one weight, and all gradients, over the micro-batches of a step."""
    model.zero_grad()
    with Casts(model.base_model.layers[0].mlp.down_proj.weight.shape) as casts, one_cast(low, CPU):
        for part in parts:
            with lowered(low, CPU):
                loss = -token_logprobs(model, pack(part)).mean()
            loss.backward()
    return casts.count, {name: p.grad.clone() for name, p in model.named_parameters()}


def test_weights_are_cast_once_per_step_and_all_gradients_arrive(snapshots):
    model = load_policy(str(snapshots / "policy"))
    parts = [[reply_group((), range(a, a + 9))] for a in (5, 40, 80)]
    step(model, parts)  # the probe of the packed forward
    count, together = step(model, parts)
    assert count == len(model.base_model.layers)
    alone = [step(model, [part])[1] for part in parts]
    for name, gradient in together.items():
        assert torch.allclose(gradient, sum(one[name] for one in alone), rtol=1e-2, atol=1e-5), name
    assert step(model, parts, "f32")[0] == 0


@pytest.mark.parametrize(
    ("name", "losses"),
    [("sft", ["loss"]), pytest.param("cost", ["loss"], marks=pytest.mark.slow), ("dpo", ["loss"])],
)
def test_a_bf16_run_has_the_losses_of_f32(name, losses, commands, tmp_path):
    rows = []
    for low in ("f32", "bf16"):
        assert commands.run(name, tmp_path / low, precision=low, micro_tokens=300) == 0
        text = (tmp_path / low / "metrics.jsonl").read_text()
        rows.append([json.loads(line) for line in text.splitlines()])
    for a, b in zip(*rows, strict=True):
        for key in losses:
            assert a[key] == pytest.approx(b[key], rel=2e-3), (a["step"], key)
