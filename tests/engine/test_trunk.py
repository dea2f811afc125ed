"""The layers' own forward: its norm, its rotation, its last layer, and the roads beside it."""

import functools

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from accord.engine.forward import causal, trunk
from accord.engine.forward.causal import hidden_states, padded_hidden_states, token_logprobs
from accord.engine.packing import Group, pack, reply_group
from tests.engine.test_packed_forward import ARCHITECTURES, GROUPS, gradients, make, plain_logprobs

LAYERED = [name for name, (kind, *_) in ARCHITECTURES.items() if kind.startswith(("Llama", "Qwen", "Mistral"))]


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


@pytest.mark.parametrize("shape", [(5, 8), (5, 3, 8)])
def test_the_norm_is_the_module_s_with_its_gradients(shape):
    module = LlamaRMSNorm(8, eps=1e-3)
    module.weight.data = drawn(8, seed=1).detach()
    x, flow = drawn(*shape), drawn(*shape, seed=2).detach()
    ours, theirs = trunk._norm(module, x), module(x)
    assert ours.grad_fn is not None and type(ours.grad_fn).__name__ == "_RMSNormBackward"
    assert torch.allclose(ours, theirs, atol=1e-6)
    wanted = torch.autograd.grad(theirs, (x, module.weight), flow)
    for a, b in zip(torch.autograd.grad(ours, (x, module.weight), flow), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_norm_s_gradient_is_computed_in_f32_whatever_autocast_says():
    """A backward pass may run where its forward pass did: inside autocast, which would round its product to bf16."""
    module, flow = LlamaRMSNorm(8), drawn(5, 8, seed=2).detach()
    x = drawn(5, 8)
    exact = torch.autograd.grad(trunk._norm(module, x), x, flow)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.autograd.grad(trunk._norm(module, x), x, flow)[0], exact)


def test_the_norm_of_other_types_is_the_module_s_own():
    module = LlamaRMSNorm(8).bfloat16()
    x = drawn(5, 8).detach().bfloat16()
    assert torch.equal(trunk._norm(module, x), module(x)) and trunk._norm(module, x).dtype == torch.bfloat16


def test_frozen_norms_get_no_gradient():
    module = LlamaRMSNorm(8).requires_grad_(False)
    x = drawn(5, 8)
    trunk._norm(module, x).sum().backward()
    assert x.grad is not None and module.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rotation_is_the_library_s_with_its_gradient(dtype):
    """In bf16 the queries are, and the angles are not, as under autocast."""
    x, flow = drawn(7, 3, 8).detach().to(dtype).requires_grad_(), drawn(7, 3, 8, seed=1).detach()
    angles = drawn(7, 4, seed=2).detach().repeat(1, 2)
    cosine, sine = angles.cos(), angles.sin()
    ours = trunk._rotated(x, (cosine.unsqueeze(1), sine.unsqueeze(1)))
    theirs = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cosine[None], sine[None])[0]
    assert ours.dtype == torch.float32 and torch.allclose(ours, theirs[0].transpose(0, 1), atol=1e-6)
    mine = torch.autograd.grad(ours, x, flow)[0]
    wanted = torch.autograd.grad(theirs, x, flow.transpose(0, 1)[None])[0]
    assert mine.dtype == dtype and torch.allclose(mine, wanted, atol=1e-6 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("rows", ["targets", "last"])
def test_whatever_rows_are_read_the_states_and_gradients_are_the_padded_ones(name, rows):
    """Tokens without loss inside a reply, a reply without any, scores at last tokens."""
    masked = Group((1, 5), ((7, 2, 8, 11, 12), (4, 6, 3)), ((False, True, False, True, False), (False,) * 3))
    packing = pack([*GROUPS, masked], rows=rows)
    model = make(name)
    flow = torch.randn(len(packing.rows), 16, generator=torch.Generator().manual_seed(1))
    ours, theirs = trunk.trunk_states(model.base_model, packing), padded_hidden_states(model, packing)
    if name == "mistral-window":
        assert not torch.allclose(ours, theirs, atol=1e-2)  # which is why it has another road
        return
    assert torch.allclose(ours, theirs, atol=1e-5)
    wanted = gradients(model, (theirs * flow).sum())
    for key, grad in gradients(model, (ours * flow).sum()).items():
        assert torch.allclose(grad, wanted[key], atol=2e-5 * float(wanted[key].abs().max().clamp(min=1))), key


def test_adapters_are_called_as_they_are():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make("llama"), LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "lora_B" in key:
                value.fill_(0.3)
    packing = pack(GROUPS)
    ours = token_logprobs(model, packing)
    assert model.get_base_model()._accord_way is causal._by_layers
    assert torch.allclose(ours, plain_logprobs(model, GROUPS), atol=1e-5)
    assert not torch.allclose(ours, plain_logprobs(make("llama"), GROUPS), atol=1e-2)


def test_compiled_parts_are_called_as_they_are(monkeypatch):
    model, packing = make("llama"), pack([reply_group((1, 2), (3, 4))])
    token_logprobs(model, packing)
    called = []
    layer = model.base_model.layers[0]
    for name in ("mlp", "input_layernorm"):
        seen = functools.partial(lambda name, x: called.append((name, x.shape)) or x, name)
        monkeypatch.setattr(getattr(layer, name), "_compiled_call_impl", seen)
    hidden_states(model, packing)
    assert called == [("input_layernorm", (3, 16)), ("mlp", (3, 16))]


@pytest.mark.parametrize("failure", [AttributeError, RuntimeError, None])
def test_layers_of_another_make_take_the_model_s_own_forward(monkeypatch, failure, capsys):
    """What raises, or gives other numbers, is not used; the model still packs."""
    right = trunk.trunk_states

    def other(base, packing):
        if failure:
            raise failure("of another make")
        return right(base, packing) * 1.01

    monkeypatch.setattr(causal, "trunk_states", other)
    model = make("llama")
    assert torch.allclose(token_logprobs(model, pack(GROUPS)), plain_logprobs(make("llama", "sdpa"), GROUPS), atol=1e-5)
    assert model._accord_way is causal._by_attention and not capsys.readouterr().out


@pytest.mark.parametrize("name", ["gpt2", "gemma"])
def test_other_families_take_the_model_s_own_forward(name):
    model = make(name)
    assert causal.packs(model) and model._accord_way is causal._by_attention
