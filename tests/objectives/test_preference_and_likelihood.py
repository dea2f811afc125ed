"""Ranking, sign and likelihood losses by hand, at the extremes, and against Safe RLHF's own equation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from accord.objectives.likelihood import likelihood_loss
from accord.objectives.preference import (
    bradley_terry_loss,
    centring_loss,
    davidson_loss,
    rating_loss,
    score_regularizer,
    sign_loss,
    smooth_labels,
)
from accord.objectives.ranking import plackett_luce_values, ranked_pairs, tied_pairs, worse_of


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
    loss, metrics = sign_loss(costs, unsafe, count=4)
    terms = [math.log(1 + math.exp(-x)) for x in (1.0, 2.0, -0.5, 1.0)]
    assert torch.isclose(loss, tensor(sum(terms) / 4))
    assert metrics["accuracy_sign"] == 0.75
    _, flipped = sign_loss(costs, ~unsafe, count=4)
    assert flipped["accuracy_sign"] == 0.25


def test_cost_loss_equals_safe_rlhf_equation_7_on_fully_labelled_pairs():
    """L = −E[log σ(C_w − C_l) + log σ(s_w C_w) + log σ(s_l C_l)], w the less safe reply (arXiv:2310.12773 eq. 7)."""
    torch.manual_seed(0)
    worse, better = torch.randn(5, dtype=torch.double), torch.randn(5, dtype=torch.double)
    sign_w = tensor([1.0, 1.0, -1.0, 1.0, -1.0]).double()
    sign_l = tensor([-1.0, 1.0, -1.0, -1.0, -1.0]).double()
    paper = -(F.logsigmoid(worse - better) + F.logsigmoid(sign_w * worse) + F.logsigmoid(sign_l * better)).mean()
    ranking, _ = bradley_terry_loss(worse, better, weights=torch.ones(5).double(), count=5.0)
    sign, _ = sign_loss(torch.cat([worse, better]), torch.cat([sign_w, sign_l]) > 0, count=10)
    assert torch.isclose(ranking + 2 * sign, paper)


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


def test_likelihood_by_hand():
    loss, metrics = likelihood_loss(tensor([-1.0, -2.0, -6.0]), count=3)
    assert loss == 3.0 and metrics["loss"] == 3.0


# Every kind of label


def test_a_soft_label_by_hand_is_least_at_its_own_log_odds():
    """p = 0.75, d = 1: −0.75 log σ(1) − 0.25 log σ(−1); the gradient σ(d) − p is 0 at d = log 3."""
    d = tensor([1.0, math.log(3)], requires_grad=True)
    loss, _ = bradley_terry_loss(d, torch.zeros(2), weights=torch.ones(2), probability=tensor(0.75), count=1.0)
    expected = [0.75 * math.log(1 + math.exp(-x)) + 0.25 * math.log(1 + math.exp(x)) for x in (1.0, math.log(3))]
    assert loss.item() == pytest.approx(sum(expected), abs=1e-6)
    loss.backward()
    assert d.grad.tolist() == pytest.approx([1 / (1 + math.exp(-1)) - 0.75, 0.0], abs=1e-6)


def test_a_half_says_nothing_about_the_order():
    for a, b in ((0.3, 1.1), (1.1, 0.3)):
        loss, _ = bradley_terry_loss(tensor([a]), tensor([b]), weights=torch.ones(1), probability=0.5, count=1.0)
        assert loss.item() == pytest.approx(0.5 * (math.log1p(math.exp(-0.8)) + math.log1p(math.exp(0.8))), abs=1e-6)


def test_smoothing_turns_a_label_round_with_its_share():
    """ε = 0.1: 1 → 0.9, 0.75 → 0.9 · 0.75 + 0.1 · 0.25 = 0.7, ½ stays."""
    assert torch.allclose(smooth_labels(tensor([1.0, 0.75, 0.5]), 0.1), tensor([0.9, 0.7, 0.5]))


def test_an_unreliable_labeler_is_seen_through():
    """r = 0.8, d = log 3: P = 0.8 · 0.75 + 0.2 · 0.25 = 0.65; r = ½ says nothing and has no gradient."""
    d = tensor([math.log(3)], requires_grad=True)
    one = torch.ones(1)
    loss, _ = bradley_terry_loss(d, torch.zeros(1), weights=one, reliability=tensor([0.8]), count=1.0)
    assert loss.item() == pytest.approx(-math.log(0.65), abs=1e-6)
    loss, _ = bradley_terry_loss(d, torch.zeros(1), weights=one, reliability=tensor([0.5]), count=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6) and d.grad.item() == pytest.approx(0, abs=1e-7)


def test_a_soft_label_of_an_unreliable_labeler_by_hand():
    """P = 0.65 as above, 0.35 for the other answer; a soft label of 0.7 mixes both logarithms."""
    loss, _ = bradley_terry_loss(
        tensor([math.log(3)]),
        torch.zeros(1),
        weights=torch.ones(1),
        probability=0.7,
        reliability=tensor([0.8]),
        count=1.0,
    )
    assert loss.item() == pytest.approx(-0.7 * math.log(0.65) - 0.3 * math.log(0.35), abs=1e-6)


def test_davidson_by_hand_and_its_three_answers_add_up_to_one():
    """d = log 4, ν = ½: e^{d/2} = 2, e^{−d/2} = ½, so P = 2/3, 1/6, 1/6."""
    first, second = tensor([math.log(4)] * 3), torch.zeros(3)
    outcome = tensor([1.0, 0.0, math.nan])
    chances = [
        math.exp(-davidson_loss(*(x[i : i + 1] for x in (first, second, outcome)), log_ties=tensor(math.log(0.5)),
                                weights=torch.ones(1), count=1.0)[0].item())
        for i in range(3)
    ]  # fmt: skip
    assert chances == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-6) and sum(chances) == pytest.approx(1.0)


def test_davidson_without_ties_is_bradley_terry_and_a_tie_pulls_scores_together():
    torch.manual_seed(0)
    a, b, p = torch.randn(5), torch.randn(5), torch.rand(5)
    none = tensor(-1e4)
    loss, _ = davidson_loss(a, b, p, log_ties=none, weights=torch.ones(5), count=5.0)
    plain, _ = bradley_terry_loss(a, b, weights=torch.ones(5), probability=p, count=5.0)
    assert torch.isclose(loss, plain)
    d, nu = tensor([1.0], requires_grad=True), tensor(0.0, requires_grad=True)
    loss, _ = davidson_loss(d, tensor([0.0]), tensor([math.nan]), log_ties=nu, weights=torch.ones(1), count=1.0)
    loss.backward()
    assert d.grad > 0 > nu.grad and torch.isfinite(loss)


def test_davidson_is_finite_at_extreme_scores():
    d = tensor([1e4, -1e4, 1e4], requires_grad=True)
    outcome = tensor([1.0, 1.0, math.nan])
    loss, _ = davidson_loss(d, torch.zeros(3), outcome, log_ties=tensor(0.0), weights=torch.ones(3), count=1.0)
    loss.backward()
    assert torch.isclose(loss, tensor(1e4 + 5e3)) and torch.isfinite(d.grad).all()


def test_severity_weighs_a_label():
    """Weights 1 and 3 of a total of 4: the worse one counts three times, in the loss and in the accuracy."""
    loss, metrics = sign_loss(
        tensor([1.0, -2.0]), tensor([True, True]), weights=tensor([1.0, 3.0]), count=4.0, name="sign"
    )
    expected = (math.log1p(math.exp(-1.0)) + 3 * math.log1p(math.exp(2.0))) / 4
    assert loss.item() == pytest.approx(expected, abs=1e-6) and metrics["accuracy_sign"] == 0.25


def test_every_label_counts_by_its_weight():
    """Weights 0.5, 2 and 1.5 of a batch of 8 in all, in each loss and in what it logs."""
    a, b, w = tensor([1.0, -0.5, 2.0]), tensor([0.5, 1.5, 2.0]), tensor([0.5, 2.0, 1.5])
    loss, metrics = bradley_terry_loss(a, b, weights=w, count=8.0)
    values = [math.log1p(math.exp(-x)) for x in (0.5, -2.0, 0.0)]
    expected = (0.5 * values[0] + 2.0 * values[1] + 1.5 * values[2]) / 8
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"loss/ranking": expected, "accuracy": (0.5 + 1.5 / 2) / 8, "margin": (0.5 * 0.5 - 2.0 * 2.0) / 8}, abs=1e-6
    )
    loss, metrics = sign_loss(a, tensor([True, True, False]), weights=w, count=8.0, name="label")
    values = [math.log1p(math.exp(-x)) for x in (1.0, -0.5, -2.0)]
    expected = (0.5 * values[0] + 2.0 * values[1] + 1.5 * values[2]) / 8
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"loss/label": expected, "accuracy_label": 0.5 / 8}, abs=1e-6
    )
    loss, metrics = rating_loss(a, b, gain=0.5, bias=0.25, weights=w, count=8.0)
    expected = 0.5 * (0.5 * 0.25**2 + 2.0 * 1.5**2 + 1.5 * 0.75**2) / 8
    assert loss.item() == pytest.approx(expected, abs=1e-6) == metrics["loss/rating"].item()
    loss, metrics = centring_loss(a, b, weights=w, count=8.0)
    expected = (0.5 * 1.5**2 + 2.0 * 1.0**2 + 1.5 * 4.0**2) / 8
    assert loss.item() == pytest.approx(expected, abs=1e-6) == metrics["loss/centring"].item()
    # d = log 4 and ν = ½ as above: 2/3 of a win, 1/6 of a tie
    loss, metrics = davidson_loss(
        tensor([math.log(4)] * 2),
        torch.zeros(2),
        tensor([1.0, math.nan]),
        log_ties=tensor(math.log(0.5)),
        weights=tensor([0.5, 2.0]),
        count=8.0,
    )
    expected = (0.5 * math.log(3 / 2) + 2.0 * math.log(6)) / 8
    assert loss.item() == pytest.approx(expected, abs=1e-6) == metrics["loss/ranking"].item()


def test_rating_loss_by_hand():
    """Ratings 4 and 0 on a scale of 2 · score + 1: errors 1 and −2, so ½ (1 + 4) / 2."""
    loss, metrics = rating_loss(
        tensor([1.0, 0.5]), tensor([4.0, 0.0]), gain=2.0, bias=1.0, weights=torch.ones(2), count=2.0
    )
    assert loss == 1.25 and metrics["loss/rating"] == 1.25


def test_centring_by_hand():
    loss, _ = centring_loss(tensor([2.0, 1.0]), tensor([1.0, -1.0]), weights=tensor([1.0, 0.5]), count=1.5)
    assert loss == 6.0


def test_plackett_luce_of_three_by_hand():
    """Scores log 3, log 2, 0 in the order 1, 2, 3: P = 3/6 · 2/3; the order 3, 1, 2: 1/6 · 3/5."""
    scores = tensor([[math.log(3), math.log(2), 0.0]]).repeat(2, 1)
    values = plackett_luce_values(scores, tensor([[1, 2, 3], [2, 3, 1]]))
    assert values.exp().tolist() == pytest.approx([3.0, 10.0], rel=1e-5)


def test_plackett_luce_ignores_ties_and_slots_without_a_reply():
    scores = tensor([[math.log(3), 0.0, math.log(2), math.nan]], requires_grad=True)
    value = plackett_luce_values(scores, tensor([[1, 1, 2, 0]]))
    # each of the tied two is compared with the last alone: 3/5 and 1/3
    assert value.exp().item() == pytest.approx(5.0, rel=1e-5)
    value.sum().backward()
    assert scores.grad[0, 3] == 0 and torch.isfinite(scores.grad).all()


def test_what_is_ranked_worse_by_hand():
    """Of ranks 2, 0, 1 and 3 the third is above the first and the last; the second is no reply."""
    found = worse_of(tensor([[2, 0, 1, 3], [1, 1, 0, 0]]))
    assert found.nonzero().tolist() == [[0, 0, 3], [0, 2, 0], [0, 2, 3]]


def test_pairs_of_a_ranking_with_a_tie():
    assert ranked_pairs((2, 1, 2)) == ((1, 0), (1, 2)) and tied_pairs((2, 1, 2)) == ((0, 2),)


@pytest.mark.parametrize("cut", [1, 4])
def test_c15_the_other_losses_sum_over_micro_batches_too(cut):
    torch.manual_seed(1)
    a, b, w, p = torch.randn(6), torch.randn(6), torch.rand(6), torch.rand(6)
    p[2] = math.nan
    good, count = torch.rand(6) > 0.5, float(w.sum())

    def total(rows):
        x, y, weights = a[rows], b[rows], w[rows]
        return torch.stack(
            [
                davidson_loss(x, y, p[rows], log_ties=tensor(0.3), weights=weights, count=count)[0],
                *sign_loss(x, good[rows], weights=weights, count=count, name="label")[1].values(),
                rating_loss(x, y, gain=0.5, bias=0.1, weights=weights, count=count)[0],
                centring_loss(x, y, weights=weights, count=count)[0],
            ]
        )

    assert torch.allclose(total(slice(0, cut)) + total(slice(cut, 6)), total(slice(0, 6)), atol=1e-6)


# Against choix, which fits the same models without a gradient of ours


def test_bradley_terry_and_plackett_luce_values_are_choixs():
    choix = pytest.importorskip("choix")
    from choix.opt import PairwiseFcts, Top1Fcts

    torch.manual_seed(0)
    strengths = torch.randn(4, dtype=torch.double)
    pairs = [(0, 1), (2, 1), (3, 0), (1, 3)]
    theirs = PairwiseFcts(pairs, 0.0)
    i, j = (tensor([pair[k] for pair in pairs]) for k in (0, 1))
    strengths.requires_grad_(True)
    ours, _ = bradley_terry_loss(strengths[i], strengths[j], weights=torch.ones(4).double(), count=1.0)
    ours.backward()
    at = strengths.detach().numpy()
    assert ours.item() == pytest.approx(theirs.objective(at), abs=1e-6)
    assert strengths.grad.numpy() == pytest.approx(theirs.gradient(at), abs=1e-6)
    rankings = [(2, 0, 3), (1, 3, 0), (0, 1, 2)]
    choices = [(ranking[k], ranking[k + 1 :]) for ranking in rankings for k in range(2)]
    theirs = Top1Fcts(choices, 0.0)
    again = strengths.detach().clone().requires_grad_(True)
    ours = plackett_luce_values(torch.stack([again[list(r)] for r in rankings]), tensor([[1, 2, 3]] * 3)).sum()
    ours.backward()
    assert ours.item() == pytest.approx(theirs.objective(at), abs=1e-6)
    assert again.grad.numpy() == pytest.approx(theirs.gradient(at), abs=1e-6)
    assert choix.ilsr_rankings(4, rankings, alpha=0.1) is not None


def test_maximum_likelihood_strengths_are_choixs():
    """Our losses, minimised over free strengths, end where choix's own algorithms do."""
    choix = pytest.importorskip("choix")
    rng = torch.Generator().manual_seed(3)
    pairs = [tuple(torch.randperm(5, generator=rng)[:2].tolist()) for _ in range(80)]
    rankings = [tuple(torch.randperm(5, generator=rng)[:3].tolist()) for _ in range(40)]
    i, j = (tensor([pair[k] for pair in pairs]) for k in (0, 1))
    order = tensor(rankings)

    def fit(loss):
        theta = torch.zeros(5, dtype=torch.double, requires_grad=True)
        optimizer = torch.optim.LBFGS([theta], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

        def closure():
            optimizer.zero_grad()
            value = loss(theta)
            value.backward()
            return value

        for _ in range(5):
            optimizer.step(closure)
        return (theta - theta.mean()).detach().numpy()

    ones = torch.ones(80).double()
    ours = fit(lambda s: bradley_terry_loss(s[i], s[j], weights=ones, count=1.0)[0])
    assert ours == pytest.approx(choix.ilsr_pairwise(5, pairs, tol=1e-12), abs=1e-6)
    ours = fit(lambda s: plackett_luce_values(s[order], tensor([[1, 2, 3]] * 40)).sum())
    assert ours == pytest.approx(choix.ilsr_rankings(5, rankings, tol=1e-12), abs=1e-6)


def test_planted_scores_and_tie_rate_are_recovered():
    """6,000 answers about four items with ν = 0.6: `davidson_loss` is least near what was planted."""
    rng = torch.Generator().manual_seed(5)
    planted, nu = tensor([1.0, 0.3, -0.2, -1.1]).double(), 0.6
    i, j = (torch.randint(0, 4, (6000,), generator=rng) for _ in range(2))
    i, j = i[i != j], j[i != j]
    half = (planted[i] - planted[j]) / 2
    total = half.exp() + (-half).exp() + nu
    draw = torch.rand(len(i), generator=rng, dtype=torch.double) * total
    outcome = torch.where(draw < half.exp(), 1.0, torch.where(draw < half.exp() + nu, math.nan, 0.0))
    scores = torch.zeros(4, dtype=torch.double, requires_grad=True)
    log_ties = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores, log_ties], max_iter=100)
    ones = torch.ones(len(i)).double()

    def closure():
        optimizer.zero_grad()
        loss, _ = davidson_loss(scores[i], scores[j], outcome, log_ties=log_ties, weights=ones, count=len(i))
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert torch.allclose(scores - scores.mean(), planted - planted.mean(), atol=0.12)
    assert log_ties.exp().item() == pytest.approx(nu, abs=0.06)
