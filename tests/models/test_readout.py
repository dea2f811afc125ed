"""Log-probs in tiles against all logits at once: values, gradients, and the largest tensor on the way."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from accord.data.batches import build_plan, reply_group
from accord.models import readout as readout_module
from accord.models.loading import new_policy
from accord.models.policy import hidden_states, logprobs_and_entropy, token_logprobs
from accord.models.readout import Readout, linear_logprobs, linear_logprobs_and_entropy

ROWS, WIDTH, VOCAB = 13, 6, 50


def draw(vocab=VOCAB, rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator)
    weight, bias = torch.randn(vocab, WIDTH, generator=generator), torch.randn(vocab, generator=generator)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    flow = torch.randn(rows, generator=generator)
    return hidden, weight, bias, targets, flow


def tiles_of(monkeypatch, numbers, rows=2048):
    monkeypatch.setattr(readout_module, "TILE", {"cpu": numbers})
    monkeypatch.setattr(readout_module, "ROWS", rows)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("readout", [Readout(), Readout(0.5, 0.0, 0.7), Readout(2.0, 3.0, 1.3)])
@pytest.mark.parametrize(("tile", "rows"), [(1, 2048), (60, 5), (4 * VOCAB, 2048), (10_000, 2048), (10_000, 4)])
def test_tiles_equal_the_whole_with_gradients(monkeypatch, readout, with_bias, tile, rows):
    tiles_of(monkeypatch, tile, rows)
    hidden, weight, bias, targets, flow = draw()
    leaves = [hidden, weight, *([bias] if with_bias else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    offset = bias if with_bias else None
    ours, entropy = linear_logprobs_and_entropy(hidden, weight, offset, targets, readout)
    assert torch.equal(ours, linear_logprobs(hidden, weight, offset, targets, readout))
    logs = F.log_softmax(readout(F.linear(hidden, weight, offset)), -1)
    theirs = logs.gather(1, targets[:, None])[:, 0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(entropy, -(logs.exp() * logs).sum(-1), atol=1e-5) and not entropy.requires_grad
    mine = torch.autograd.grad((flow * ours).sum(), leaves)
    for a, b in zip(mine, torch.autograd.grad((flow * theirs).sum(), leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_frozen_head_gets_no_gradient_and_hidden_states_do(monkeypatch):
    tiles_of(monkeypatch, 100)
    hidden, weight, _, targets, flow = draw()
    hidden.requires_grad_()
    ours = linear_logprobs(hidden, weight, None, targets, Readout())
    (flow * ours).sum().backward()
    assert hidden.grad is not None and weight.grad is None


def test_bf16_products_are_reduced_in_f32(monkeypatch):
    tiles_of(monkeypatch, 100)
    hidden, weight, _, targets, _ = draw()
    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_logprobs(hidden, weight, None, targets, Readout())
        theirs = F.log_softmax(F.linear(hidden, weight).float(), -1).gather(1, targets[:, None])[:, 0]
    assert ours.dtype == torch.float32 and torch.allclose(ours, theirs, atol=1e-6)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_memory_does_not_grow_with_rows_times_vocabulary(monkeypatch):
    """200 rows: all logits at once are 200 V numbers; in tiles no tensor is larger than the bound or the head."""
    tiles_of(monkeypatch, 4096)
    for vocab in (1000, 8000):
        hidden, weight, _, targets, flow = draw(vocab, 200)
        weight.requires_grad_()
        hidden.requires_grad_()
        with Largest() as seen:
            (flow * linear_logprobs(hidden, weight, None, targets, Readout())).sum().backward()
        assert seen.numbers <= max(4096, weight.numel(), vocab)
    with Largest() as seen:
        F.log_softmax(hidden @ weight.T, -1)
    assert seen.numbers == 200 * 8000


def test_a_policy_takes_tiles_when_they_are_needed(monkeypatch, tokenizer, nano):
    model = new_policy(nano, tokenizer, max_length=64, seed=0)
    plan = build_plan([reply_group((5, 6, 7), (8, 9, 10), (11, 12))])
    whole = token_logprobs(model, plan, temperature=0.7)
    both = logprobs_and_entropy(model, plan, hidden_states(model, plan), temperature=0.7)
    monkeypatch.setattr(readout_module, "LOGITS_AT_ONCE", 2 * len(tokenizer))
    calls = []
    plain = readout_module._tiles
    monkeypatch.setattr(readout_module, "_tiles", lambda *a: calls.append(a) or plain(*a))
    assert torch.allclose(token_logprobs(model, plan, temperature=0.7), whole, atol=1e-6)
    again = logprobs_and_entropy(model, plan, hidden_states(model, plan), temperature=0.7)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(again, both, strict=True))
    assert len(calls) == 2
