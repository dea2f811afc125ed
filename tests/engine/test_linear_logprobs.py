"""Log-probs in tiles against all logits at once: values, gradients, and the largest tensor on the way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from accord.engine.forward import linear_logprobs as readout_module
from accord.engine.forward.causal import hidden_states, logprobs_and_entropy, token_logprobs
from accord.engine.forward.linear_logprobs import LogitTransform, linear_logprobs, linear_logprobs_and_entropy
from accord.engine.packing import pack, reply_group
from accord.models.policy import new_policy

ROWS, WIDTH, VOCAB = 13, 6, 50


def draw(vocab=VOCAB, rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator)
    weight, bias = torch.randn(vocab, WIDTH, generator=generator), torch.randn(vocab, generator=generator)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    flow = torch.randn(rows, generator=generator)
    return hidden, weight, bias, targets, flow


def tiles_of(monkeypatch, numbers, rows=2048, kept=0):
    monkeypatch.setattr(readout_module, "TILE", {"cpu": numbers})
    monkeypatch.setattr(readout_module, "ROWS", rows)
    monkeypatch.setattr(readout_module, "ROWS_OF_ALL", 3)
    monkeypatch.setattr(readout_module, "KEPT", kept)


def test_what_stands_between_the_product_and_the_logits_by_hand():
    """Factor, cap, temperature, in this order; the slope is the derivative."""
    raw = torch.tensor([-2.0, 0.5, 4.0], dtype=torch.float32, requires_grad=True)
    for transform, expected in (
        (LogitTransform(), lambda x: x),
        (LogitTransform(0.5, 0.0, 0.7), lambda x: 0.5 * x / 0.7),
        (LogitTransform(2.0, 3.0, 1.3), lambda x: 3 * math.tanh(2 * x / 3) / 1.3),
        (LogitTransform(cap=3.0), lambda x: 3 * math.tanh(x / 3)),
        (LogitTransform(1.5, 0.0, 1.0), lambda x: 1.5 * x),
        (LogitTransform(1.0, 0.0, 1.5), lambda x: x / 1.5),
    ):
        logits = transform(raw)
        assert logits.tolist() == pytest.approx([expected(x) for x in raw.tolist()], abs=1e-6)
        (slope,) = torch.autograd.grad(logits.sum(), raw)
        assert torch.allclose(torch.as_tensor(transform.slope(logits)).expand(3), slope, atol=1e-6)
    assert transform(raw.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("numbers", "tiled"), [(ROWS * VOCAB, 0), (ROWS * VOCAB - 1, 1)])
def test_as_many_exponentials_as_agreed_are_kept(monkeypatch, numbers, tiled):
    tiles_of(monkeypatch, 10**6, kept=numbers)
    called = []
    plain = readout_module._Tiled.apply
    monkeypatch.setattr(readout_module._Tiled, "apply", lambda *given: called.append(given) or plain(*given))
    hidden, weight, _, targets, _ = draw()
    linear_logprobs(hidden, weight, None, targets, LogitTransform())
    assert len(called) == tiled


def test_tiles_cover_rows_and_vocabulary_once_and_hold_no_more_than_agreed(monkeypatch):
    tiles_of(monkeypatch, 12, rows=4)
    hidden, weight = torch.zeros(6, 2), torch.zeros(5, 2)
    assert list(readout_module._tiles(hidden, weight)) == [
        (slice(0, 4), slice(0, 3)),
        (slice(0, 4), slice(3, 5)),
        (slice(4, 6), slice(0, 5)),
    ]
    tiles_of(monkeypatch, 1, rows=4)
    assert len(list(readout_module._tiles(hidden, weight))) == 30


@pytest.mark.parametrize("kept", [0, ROWS * VOCAB], ids=["again", "kept"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("readout", [LogitTransform(), LogitTransform(0.5, 0.0, 0.7), LogitTransform(2.0, 3.0, 1.3)])
@pytest.mark.parametrize(
    ("tile", "rows"),
    [
        pytest.param(1, 2048, marks=pytest.mark.slow),
        (15, 2048),
        (60, 5),
        (4 * VOCAB, 2048),
        (10_000, 2048),
        (10_000, 4),
    ],
)
def test_tiles_equal_the_whole_with_gradients(monkeypatch, readout, with_bias, tile, rows, kept):
    """And each logit is computed once, or twice where probabilities are not kept."""
    tiles_of(monkeypatch, tile, rows, kept)
    products = []
    plain = readout_module._logits
    monkeypatch.setattr(readout_module, "_logits", lambda *a: products.append(len(a[0]) * len(a[1])) or plain(*a))
    hidden, weight, bias, targets, flow = draw()
    leaves = [hidden, weight, *([bias] if with_bias else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    offset = bias if with_bias else None
    ours, entropy = linear_logprobs_and_entropy(hidden, weight, offset, targets, readout)
    assert sum(products) == ROWS * VOCAB
    assert torch.equal(ours, linear_logprobs(hidden, weight, offset, targets, readout))
    logs = F.log_softmax(readout(F.linear(hidden, weight, offset)), -1)
    theirs = logs.gather(1, targets[:, None])[:, 0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(entropy, -(logs.exp() * logs).sum(-1), atol=1e-5) and not entropy.requires_grad
    mine = torch.autograd.grad((flow * ours).sum(), leaves)
    for a, b in zip(mine, torch.autograd.grad((flow * theirs).sum(), leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert sum(products) == (2 if kept and not readout.cap else 3) * ROWS * VOCAB  # of two forwards and a backward


@pytest.mark.parametrize("kept", [0, ROWS * VOCAB])
def test_a_frozen_head_gets_no_gradient_and_hidden_states_do(monkeypatch, kept):
    tiles_of(monkeypatch, 100, kept=kept)
    hidden, weight, _, targets, flow = draw()
    hidden.requires_grad_()
    ours = linear_logprobs(hidden, weight, None, targets, LogitTransform())
    (flow * ours).sum().backward()
    assert hidden.grad is not None and weight.grad is None


@pytest.mark.parametrize("kept", [0, ROWS * VOCAB])
def test_bf16_products_are_reduced_in_f32(monkeypatch, kept):
    tiles_of(monkeypatch, 100, kept=kept)
    hidden, weight, bias, targets, flow = draw()
    leaves = [hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_logprobs(hidden, weight, bias, targets, LogitTransform())
        theirs = F.log_softmax(F.linear(hidden, weight).float() + bias, -1).gather(1, targets[:, None])[:, 0]
    assert ours.dtype == torch.float32 and torch.allclose(ours, theirs, atol=1e-6)
    mine = torch.autograd.grad((flow * ours).sum(), leaves)
    for a, b in zip(mine, torch.autograd.grad((flow * theirs).sum(), leaves), strict=True):
        assert a.dtype == torch.float32 and torch.allclose(a, b, atol=3e-2)


def test_without_gradients_nothing_is_kept_and_the_numbers_are_the_same(monkeypatch):
    """A pass that only scores holds a tile at a time; an untrained policy is at exactly 0 nats from its reference."""
    tiles_of(monkeypatch, 200, kept=10**6)
    hidden, weight, _, targets, _ = draw(rows=100)
    learned = linear_logprobs(hidden, weight.requires_grad_(), None, targets, LogitTransform())
    with Largest() as seen, torch.no_grad():
        assert torch.equal(linear_logprobs(hidden, weight, None, targets, LogitTransform()), learned)
    assert seen.numbers == VOCAB * WIDTH  # the head; a tile is 4 rows of 50


def test_of_frozen_parameters_nothing_is_kept_either(monkeypatch):
    tiles_of(monkeypatch, 200, kept=10**6)
    hidden, weight, bias, targets, _ = draw(rows=100)
    for offset in (None, bias):
        with Largest() as seen:
            linear_logprobs(hidden, weight, offset, targets, LogitTransform())
        assert seen.numbers == VOCAB * WIDTH


@pytest.mark.parametrize("kept", [0, ROWS * VOCAB], ids=["again", "kept"])
def test_large_logits_overflow_nothing(monkeypatch, kept):
    tiles_of(monkeypatch, 100, kept=kept)
    hidden, weight, bias, targets, flow = draw()
    hidden = (100 * hidden).requires_grad_()
    ours, entropy = linear_logprobs_and_entropy(hidden, weight, bias, targets, LogitTransform())
    logs = F.log_softmax(F.linear(hidden, weight, bias), -1)
    theirs = logs.gather(1, targets[:, None])[:, 0]
    assert logs.min() < -200 and torch.allclose(ours, theirs, rtol=1e-5, atol=1e-3)
    assert torch.allclose(entropy, -(logs.exp() * logs).sum(-1), atol=1e-3)
    mine, other = (torch.autograd.grad((flow * out).sum(), hidden, retain_graph=True)[0] for out in (ours, theirs))
    assert torch.allclose(mine, other, atol=1e-3)


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
            (flow * linear_logprobs(hidden, weight, None, targets, LogitTransform())).sum().backward()
        assert seen.numbers <= max(4096, weight.numel(), vocab)
    with Largest() as seen:
        F.log_softmax(hidden @ weight.T, -1)
    assert seen.numbers == 200 * 8000


class Other(torch.nn.Linear):
    """A head that is more than its matrix, like an adapted one."""


def test_a_policy_takes_tiles_and_one_with_another_head_all_logits(monkeypatch, tokenizer, nano):
    model = new_policy(nano, tokenizer, max_length=64, seed=0)
    packing = pack([reply_group((5, 6, 7), (8, 9, 10), (11, 12))])
    calls = []
    plain = readout_module._logits
    monkeypatch.setattr(readout_module, "_logits", lambda *a: calls.append(a) or plain(*a))
    tiled = token_logprobs(model, packing, temperature=0.7)
    both = logprobs_and_entropy(model, packing, hidden_states(model, packing), temperature=0.7)
    assert len(calls) == 2
    model.lm_head.__class__ = Other
    whole = token_logprobs(model, packing, temperature=0.7)
    assert torch.allclose(tiled, whole, atol=1e-6)
    again = logprobs_and_entropy(model, packing, hidden_states(model, packing), temperature=0.7)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(again, both, strict=True))
    assert len(calls) == 2


@pytest.mark.parametrize("kept", [0, ROWS * VOCAB])
def test_gradients_are_computed_as_the_forward_pass_was(monkeypatch, kept):
    """A backward pass inside autocast, of a forward pass outside, is in f32 too."""
    tiles_of(monkeypatch, 100, kept=kept)
    hidden, weight, _, targets, flow = draw()
    hidden.requires_grad_()
    exact, again = (linear_logprobs(hidden, weight, None, targets, LogitTransform()) for _ in range(2))
    wanted = torch.autograd.grad((flow * exact).sum(), hidden)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.autograd.grad((flow * again).sum(), hidden)[0], wanted)


@pytest.mark.parametrize(
    ("tile", "rows", "heights"), [(1, 99, [3, 3, 3, 3, 1]), (350, 99, [7, 6]), (999, 5, [5, 5, 3])]
)
def test_products_whose_exponentials_are_kept_have_some_rows_at_least(monkeypatch, tile, rows, heights):
    tiles_of(monkeypatch, tile, rows, kept=ROWS * VOCAB)
    seen = []
    plain = readout_module._logits
    monkeypatch.setattr(readout_module, "_logits", lambda h, *a: seen.append(len(h)) or plain(h, *a))
    hidden, weight, _, targets, _ = draw()
    linear_logprobs(hidden, weight.requires_grad_(), None, targets, LogitTransform())
    assert seen == heights
