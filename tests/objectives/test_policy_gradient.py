"""The clipped surrogate and the clipped value loss by hand; poison and cuts change nothing."""

import math

import pytest
import torch
from torch import tensor

from accord.objectives.policy_gradient import effective_share, ppo_loss, truncated_ratios, value_loss

NAN = float("nan")


def loss_of(ratio, advantage, clip=0.2):
    logprobs = tensor([[math.log(ratio)]])
    return ppo_loss(logprobs, torch.zeros(1, 1), tensor([[advantage]]), tensor([[True]]), clip=clip, count=1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "clipped"),
    [
        (1.5, 1.0, -1.2, 1.0),  # gains nothing beyond 1.2
        (1.5, -1.0, 1.5, 0.0),  # a bad token that became likelier keeps its full gradient
        (0.5, 1.0, -0.5, 0.0),
        (0.5, -1.0, 0.8, 1.0),
        (1.1, 2.0, -2.2, 0.0),
        (1.0, 3.0, -3.0, 0.0),
    ],
)
def test_clips_only_the_side_that_would_gain(ratio, advantage, expected, clipped):
    loss, metrics = loss_of(ratio, advantage)
    assert torch.isclose(loss, tensor(expected))
    assert metrics["policy/clip_fraction"] == clipped
    assert torch.isclose(metrics["policy/ratio"], tensor(ratio))
    k3 = ratio - 1 - math.log(ratio)
    assert torch.isclose(metrics["policy/kl_old_new"], tensor(k3), atol=1e-6)


def test_clipped_tokens_have_no_gradient_and_others_the_ratio_times_the_advantage():
    logprobs = tensor([[math.log(1.5), math.log(1.1)]], requires_grad=True)
    loss, _ = ppo_loss(
        logprobs, torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), clip=0.2, count=2
    )
    loss.backward()
    assert torch.allclose(logprobs.grad, tensor([[0.0, -0.55]]))


def test_the_loss_of_a_batch_by_hand():
    """Ratios 1.5, 0.9 and 0.5 to what drew the tokens, advantages 2, −3 and −1, weights 0.5, 2 and 3, a count of 8."""
    old = tensor([[math.log(0.2), math.log(0.5), NAN], [math.log(0.8), NAN, NAN]])
    new = tensor([[math.log(0.3), math.log(0.45), NAN], [math.log(0.4), NAN, NAN]], requires_grad=True)
    mask = tensor([[True, True, False], [True, False, False]])
    advantages, weights = tensor([[2.0, -3.0, 9.0], [-1.0, 9.0, 9.0]]), tensor([[0.5, 2.0, 9.0], [3.0, 9.0, 9.0]])
    loss, metrics = ppo_loss(new, old, advantages, mask, clip=0.2, count=8, weights=weights)
    expected = -(0.5 * 1.2 * 2.0 + 2.0 * 0.9 * -3.0 + 3.0 * 0.8 * -1.0) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    ratios = (1.5, 0.9, 0.5)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "loss/policy": expected,
            "policy/clip_fraction": 2 / 8,
            "policy/kl_old_new": sum(r - 1 - math.log(r) for r in ratios) / 8,
            "policy/ratio": sum(ratios) / 8,
        },
        rel=1e-5,
    )
    assert not any(value.requires_grad for value in metrics.values())
    loss.backward()
    assert torch.allclose(new.grad, tensor([[0.0, 2.0 * 0.9 * 3.0 / 8, 0.0], [0.0, 0.0, 0.0]]))


def test_the_value_loss_of_a_batch_by_hand():
    """Old values 1, 2 and 3, moves of 0.4, −0.1 and −0.8 clipped at 0.25, a count of 5."""
    values = tensor([[1.4, 1.9], [2.2, NAN]], requires_grad=True)
    old, returns = tensor([[1.0, 2.0], [3.0, NAN]]), tensor([[2.0, 0.5], [3.0, NAN]])
    mask = tensor([[True, True], [True, False]])
    loss, metrics = value_loss(values, old, returns, mask, clip=0.25, count=5)
    # 0.75² of the clipped one, 1.4², 0.8² unclipped
    expected = 0.5 * (0.75**2 + 1.4**2 + 0.8**2) / 5
    assert loss.item() == pytest.approx(expected, rel=1e-5) == metrics["loss/value"].item()
    loss.backward()
    assert torch.allclose(values.grad, tensor([[0.0, 1.4 / 5], [-0.8 / 5, 0.0]]))


def test_value_loss_by_hand():
    # V = 2, R = 1, V_old = 0: unclipped (2−1)² = 1; clipped at 0.5: (0.5−1)² = 0.25; the larger counts
    arguments = (tensor([[2.0]]), tensor([[0.0]]), tensor([[1.0]]), tensor([[True]]))
    assert torch.isclose(value_loss(*arguments, clip=0.5, count=1)[0], tensor(0.5))
    # V = 1, R = 1, V_old = 0: unclipped 0; clipped (0.5−1)² = 0.25
    arguments = (tensor([[1.0]]), tensor([[0.0]]), tensor([[1.0]]), tensor([[True]]))
    assert torch.isclose(value_loss(*arguments, clip=0.5, count=1)[0], tensor(0.125))
    assert value_loss(*arguments, clip=0.0, count=1)[0] == 0.0


def poisoned(kind, mask, tensors):
    return [torch.where(mask, t.detach(), torch.full_like(t, kind)) for t in tensors]


LOSSES = {
    "ppo": lambda a, b, c, mask, count: ppo_loss(a, b, c, mask, clip=0.2, count=count),
    "value": lambda a, b, c, mask, count: value_loss(a, b, c, mask, clip=0.1, count=count),
}


@pytest.mark.parametrize("poison", [NAN, 1e6, float("inf")])
@pytest.mark.parametrize("name", LOSSES)
def test_c5_c17_what_stands_in_masked_slots_changes_nothing(name, poison):
    """C5 and C17: neither loss, gradient nor metrics; a row without any token included."""
    torch.manual_seed(1)
    mask = tensor([[True, True, False], [True, False, False], [False, False, False]])
    tensors = [0.3 * torch.randn(3, 3) for _ in range(3)]

    def evaluate(tensors):
        first = tensors[0].clone().requires_grad_(True)
        loss, metrics = LOSSES[name](first, *tensors[1:], mask, 3)
        loss.backward()
        return loss.detach(), first.grad, metrics

    loss, gradient, metrics = evaluate(tensors)
    other = evaluate(poisoned(poison, mask, tensors))
    assert torch.equal(other[0], loss)
    assert torch.equal(other[1], gradient)
    assert torch.equal(gradient[~mask], torch.zeros(6))
    assert {k: v.item() for k, v in other[2].items()} == {k: v.item() for k, v in metrics.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_c6_a_batch_without_any_token_gives_zero_and_no_nan(name):
    mask = torch.zeros(2, 2, dtype=torch.bool)
    first = torch.full((2, 2), NAN, requires_grad=True)
    loss, metrics = LOSSES[name](first, first.detach(), first.detach(), mask, 1)
    loss.backward()
    assert loss == 0 and torch.equal(first.grad, torch.zeros(2, 2))
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("cuts", [(4,), (1, 3), (1, 1, 1, 1), (3, 1)])
def test_c15_micro_batches_sum_to_the_whole(name, cuts):
    torch.manual_seed(2)
    lengths = tensor([5, 1, 3, 2])
    mask = torch.arange(5)[None] < lengths[:, None]
    tensors = [torch.randn(4, 5) for _ in range(3)]
    count = int(mask.sum())

    def gradient(cuts):
        first = tensors[0].clone().requires_grad_(True)
        sums: dict[str, torch.Tensor] = {}
        start = 0
        for size in cuts:
            rows = slice(start, start + size)
            loss, metrics = LOSSES[name](first[rows], tensors[1][rows], tensors[2][rows], mask[rows], count)
            loss.backward()
            for key, value in metrics.items():
                sums[key] = sums.get(key, torch.zeros(())) + value
            start += size
        return first.grad, sums

    whole, metrics = gradient((4,))
    cut, parts = gradient(cuts)
    assert torch.allclose(cut, whole, atol=1e-7)
    for key in metrics:
        assert torch.isclose(parts[key], metrics[key], atol=1e-6), key


def test_c17_metrics_are_means_over_the_tokens():
    mask = tensor([[True, True, True], [True, False, False]])
    old = torch.zeros(2, 3)
    new = torch.log(tensor([[1.5, 1.0, 1.0], [1.5, 99.0, 99.0]]))
    _, metrics = ppo_loss(new, old, torch.ones(2, 3), mask, clip=0.2, count=4)
    assert torch.isclose(metrics["policy/clip_fraction"], tensor(0.5))
    assert torch.isclose(metrics["policy/ratio"], tensor(1.25))
    k3 = 2 * (0.5 - math.log(1.5)) / 4
    assert torch.isclose(metrics["policy/kl_old_new"], tensor(k3), atol=1e-6)


def test_ratios_of_older_weights_are_truncated_and_have_no_gradient():
    now = tensor(
        [[math.log(0.6), math.log(0.2), NAN], [math.log(0.9), math.log(0.5), math.log(0.3)]], requires_grad=True
    )
    drew = tensor([[math.log(0.5), math.log(0.4), NAN], [math.log(0.1), math.log(0.5), math.log(0.1)]])
    mask = tensor([[True, True, False], [True, True, False]])
    weights = truncated_ratios(now, drew, mask, cap=2.0)
    assert torch.allclose(weights, tensor([[1.2, 0.5, 0.0], [2.0, 1.0, 0.0]])) and not weights.requires_grad
    expected = (1.2 + 0.5 + 2 + 1) ** 2 / (4 * (1.2**2 + 0.5**2 + 2**2 + 1**2))
    assert torch.isclose(effective_share(weights, mask), tensor(expected))
    assert torch.isclose(effective_share(0.3 * torch.ones(2, 3), mask), tensor(1.0))
