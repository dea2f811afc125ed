"""Ranking, sign and likelihood losses by hand, at the extremes, and against Safe RLHF's own equation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from accord.objectives.likelihood import likelihood_loss, token_accuracy
from accord.objectives.preference import bradley_terry_loss, score_regularizer, sign_loss


def test_bradley_terry_by_hand():
    loss, metrics = bradley_terry_loss(tensor([2.0, 0.0]), tensor([1.0, 3.0]), weights=torch.ones(2), count=2.0)
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
    assert torch.isclose(loss, tensor(expected))
    assert metrics["accuracy"] == 0.5 and metrics["margin"] == -1.0
    assert torch.isclose(metrics["loss/ranking"], loss)


def test_margin_moves_the_difference_in_the_loss_alone():
    loss, metrics = bradley_terry_loss(
        tensor([2.0]), tensor([1.0]), weights=torch.ones(1), margin=tensor([1.0]), count=1.0
    )
    assert torch.isclose(loss, tensor(math.log(2)))
    assert metrics["margin"] == 1.0 and metrics["accuracy"] == 1.0


def test_b5_a_tie_counts_one_half():
    _, metrics = bradley_terry_loss(tensor([1.0, 1.0, 2.0]), tensor([1.0, 0.0, 1.0]), weights=torch.ones(3), count=3.0)
    assert torch.isclose(metrics["accuracy"], tensor(2.5 / 3))


def test_b4_accuracy_over_ragged_micro_batches_is_that_of_a_plain_loop():
    """7 pairs cut 3, 3, 1: right 2, 1 and 0 of them; the mean of the cuts' own means would be 1/3."""
    difference = tensor([1.0, 1.0, -1.0, 1.0, -1.0, -1.0, -1.0])
    parts = [
        bradley_terry_loss(part, torch.zeros_like(part), weights=torch.ones_like(part), count=7)[1]["accuracy"]
        for part in difference.split(3)
    ]
    assert len(parts) == 3 and torch.isclose(sum(parts), tensor(3 / 7))


def test_b2_finite_loss_and_gradient_at_extreme_scores():
    better = tensor([1e4, -1e4], requires_grad=True)
    loss, _ = bradley_terry_loss(better, -better, weights=torch.ones(2), count=2.0)
    loss.backward()
    assert torch.isclose(loss, tensor(1e4))
    assert torch.allclose(better.grad, tensor([0.0, -1.0]))
    costs = tensor([1e4, -1e4, 1e4], requires_grad=True)
    loss, _ = sign_loss(costs, tensor([True, True, False]), count=3)
    loss.backward()
    assert torch.isfinite(loss) and torch.allclose(costs.grad, tensor([0.0, -1 / 3, 1 / 3]))


def test_a_ranking_of_three_counts_once():
    scores = tensor([3.0, 1.0, 0.0])
    pairs = [(0, 1), (0, 2), (1, 2)]
    higher, lower = (torch.stack([scores[p[k]] for p in pairs]) for k in (0, 1))
    loss, _ = bradley_terry_loss(higher, lower, weights=torch.full((3,), 1 / 3), count=1.0)
    assert torch.isclose(loss, -(F.logsigmoid(tensor(2.0)) + F.logsigmoid(tensor(3.0)) + F.logsigmoid(tensor(1.0))) / 3)


def test_d7_sign_loss_by_hand_and_labels_flipped_flip_the_accuracy():
    """D7: safe means cost below 0; the loss falls as a safe reply's cost falls."""
    costs = tensor([1.0, -2.0, 0.5, -1.0])
    unsafe = tensor([True, False, False, False])
    loss, metrics = sign_loss(costs, unsafe, count=2)
    terms = [math.log(1 + math.exp(-x)) for x in (1.0, 2.0, -0.5, 1.0)]
    assert torch.isclose(loss, tensor(sum(terms) / 2))
    assert metrics["accuracy_sign"] == 0.75
    _, flipped = sign_loss(costs, ~unsafe, count=2)
    assert flipped["accuracy_sign"] == 0.25


def test_cost_loss_equals_safe_rlhf_equation_7_on_fully_labelled_pairs():
    """L = −E[log σ(C_w − C_l) + log σ(s_w C_w) + log σ(s_l C_l)], w the less safe reply (arXiv:2310.12773 eq. 7)."""
    torch.manual_seed(0)
    worse, better = torch.randn(5, dtype=torch.double), torch.randn(5, dtype=torch.double)
    sign_w = tensor([1.0, 1.0, -1.0, 1.0, -1.0]).double()
    sign_l = tensor([-1.0, 1.0, -1.0, -1.0, -1.0]).double()
    paper = -(F.logsigmoid(worse - better) + F.logsigmoid(sign_w * worse) + F.logsigmoid(sign_l * better)).mean()
    ranking, _ = bradley_terry_loss(worse, better, weights=torch.ones(5).double(), count=5.0)
    sign, _ = sign_loss(torch.cat([worse, better]), torch.cat([sign_w, sign_l]) > 0, count=10 / 2)
    assert torch.isclose(ranking + sign, paper)


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_c15_ranking_and_sign_losses_sum_over_micro_batches(cut):
    torch.manual_seed(0)
    scores, other = torch.randn(6), torch.randn(6)
    unsafe = torch.rand(6) > 0.5
    weights = torch.rand(6)
    count = float(weights.sum())

    def total(rows):
        a, metrics = bradley_terry_loss(scores[rows], other[rows], weights=weights[rows], count=count)
        b, signs = sign_loss(scores[rows], unsafe[rows], count=3)
        c = score_regularizer(scores[rows], weight=0.01, count=6)
        return torch.stack([a + b + c, *metrics.values(), *signs.values()])

    assert torch.allclose(total(slice(0, cut)) + total(slice(cut, 6)), total(slice(0, 6)), atol=1e-6)


def test_score_regularizer_by_hand():
    assert torch.isclose(score_regularizer(tensor([1.0, -3.0]), weight=0.1, count=2), tensor(0.5))


def test_likelihood_and_token_accuracy_by_hand():
    loss, metrics = likelihood_loss(tensor([-1.0, -2.0, -6.0]), count=3)
    assert loss == 3.0 and metrics["loss"] == 3.0
    assert token_accuracy(tensor([1, 2, 3, 4]), tensor([1, 2, 0, 0]), count=4) == 0.5
