"""A linear layer and its adapter in one node, against peft's own forward pass and by what the graph keeps."""

import copy

import peft
import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn

from accord.engine.forward.low_rank import LowRankLinear, in_one_node
from accord.training.compilation import compile_parts, plain_again
from accord.training.memory import kept_for_backward
from accord.training.precision import lowered


class Little(nn.Module):
    def __init__(self, bias=True, dtype=torch.float32):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 5, bias=bias, dtype=dtype), nn.Tanh(), nn.Linear(5, 4, dtype=dtype))

    def forward(self, x, **more):
        return self.mlp(x)


def adapted(*, names=("default",), bias=True, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    config = peft.LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["mlp.0", "mlp.2"], **changes})
    model = peft.get_peft_model(Little(bias, dtype), config, adapter_name=names[0], autocast_adapter_dtype=False)
    for name in names[1:]:
        model.add_adapter(name, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def both(model):
    """The model in one node a layer, and as peft computes it."""
    theirs = copy.deepcopy(model)
    ours = in_one_node(model)
    assert all(type(layer) is Linear for layer in layers(theirs))
    assert all(type(layer) is LowRankLinear for layer in layers(ours))
    return ours, theirs


def layers(model):
    return [module for module in model.modules() if isinstance(module, Linear)]


def passed(model, x, *, precision="f32", gradient=True):
    x = x.clone().requires_grad_(gradient)
    with lowered(precision, x.device):
        out = model(x)
    out.float().square().sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_values_and_gradients_are_those_of_peft(bias, precision):
    near = {"rtol": 1e-5, "atol": 1e-5} if precision == "f32" else {"rtol": 0.05, "atol": 0.5}  # sums of two roundings
    x = torch.randn(3, 7, 6)
    ours, theirs = (passed(model, x, precision=precision) for model in both(adapted(bias=bias)))
    assert [t.dtype for t in ours] == [t.dtype for t in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **near)


def test_gradients_are_those_of_differences():
    model = in_one_node(adapted(dtype=torch.float64))
    layer = layers(model)[0]
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.autograd.gradcheck(lambda *_: layer(x), (x, down, up))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_base_in_bf16_gives_the_same_bits_where_products_are_in_bf16(precision):
    held = in_one_node(adapted())
    cast = copy.deepcopy(held)
    for layer in layers(held):
        layer.base_layer.weight.data = layer.base_layer.weight.data.bfloat16()
    x = torch.randn(5, 6)
    same = [torch.equal(*pair) for pair in zip(*(passed(m, x, precision=precision) for m in (held, cast)), strict=True)]
    assert all(same) == (precision == "bf16")


def test_a_pass_without_gradients_has_the_same_bits():
    model = in_one_node(adapted())
    x = torch.randn(5, 6)
    with torch.no_grad():
        scored = model(x)
    assert torch.equal(scored, passed(model, x)[0])


def test_nothing_is_kept_but_what_goes_in():
    ours, theirs = both(adapted())
    x = torch.randn(50, 6)
    kept = []
    for model in (ours, theirs):
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept.append(kept_for_backward(lambda some, model=model: model(torch.cat(list(some))), [x], weights))
    inputs = 4 * 50 * (6 + 5)  # x, and tanh's result, which is also what tanh keeps
    assert kept == [inputs, inputs + 2 * 4 * 50 * 2]  # peft: A x of both layers, two numbers a row


def test_frozen_inputs_get_no_gradient():
    ours, theirs = both(adapted())
    x = torch.randn(5, 6)
    mine, other = (passed(model, x, gradient=False) for model in (ours, theirs))
    assert mine[1] is None
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


OTHER_KINDS = {
    "dropout": {"lora_dropout": 0.5},
    "weight-decomposed": {"use_dora": True},
    "bias": {"lora_bias": True},
    "two": {"names": ("default", "other")},
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_of_adapters_are_left_to_peft(kind):
    model = adapted(**OTHER_KINDS[kind])
    if kind == "two":
        model.base_model.set_adapter(["default", "other"])
    ours, theirs = both(model)
    for model in (ours, theirs):
        model.train()
    x = torch.randn(5, 6)
    for mine, other in zip(*([torch.manual_seed(1), passed(model, x)][1] for model in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other)


def test_adapters_that_are_off_or_merged_are_no_part_of_it():
    ours, theirs = both(adapted())
    x = torch.randn(5, 6)
    with ours.disable_adapter():
        off = ours(x)
    with theirs.disable_adapter():
        assert torch.equal(off, theirs(x))
    on = ours(x)
    ours.merge_adapter()
    torch.testing.assert_close(ours(x), on)
    assert not torch.allclose(off, on, atol=1e-2)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, of its tracing
def test_parts_that_are_compiled_compute_the_same():
    model = in_one_node(adapted())
    x = torch.randn(5, 6)
    plain = passed(model, x)
    model.zero_grad()
    compile_parts([model])
    try:
        for mine, other in zip(passed(model, x), plain, strict=True):
            torch.testing.assert_close(mine, other)
    finally:
        plain_again([model])
