"""Best of n and rejection sampling against enumeration of everything that could be drawn."""

import itertools
import math

import pytest
import torch
from torch import tensor

from accord.objectives.best_of import acceptance, best_of_kl_bound, best_of_kl_estimate


def enumerated(probabilities, n):
    """The distribution of the best of n draws, the last outcome being the best, by going through all of them."""
    out = torch.zeros(len(probabilities), dtype=torch.float64)
    for drawn in itertools.product(range(len(probabilities)), repeat=n):
        out[max(drawn)] += math.prod(probabilities[i] for i in drawn)
    return out


def kl(p, q):
    return float((p * (p / q).log()).sum())


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("probabilities", [(0.25, 0.25, 0.25, 0.25), (0.6, 0.3, 0.1), (0.05, 0.05, 0.9)])
def test_the_bound_is_one_and_is_loose_where_replies_are_few(probabilities, n):
    exact = kl(enumerated(probabilities, n), tensor(probabilities, dtype=torch.float64))
    assert exact <= best_of_kl_bound(n) + 1e-12
    if n > 1:
        assert exact < 0.99 * best_of_kl_bound(n)


def test_the_bound_is_reached_by_many_improbable_replies():
    count, n = 20_000, 4
    top = torch.arange(1, count + 1, dtype=torch.float64) / count
    best = top**n - (top - 1 / count) ** n
    assert kl(best, torch.full((count,), 1 / count, dtype=torch.float64)) == pytest.approx(
        best_of_kl_bound(n), rel=1e-3
    )


def test_the_estimate_is_exact_for_one_probable_reply_above_many_improbable_ones():
    """The best reply has mass 0.3; below it 20,000 replies share the rest."""
    n, top, rest = 4, 0.3, 20_000
    below = torch.arange(1, rest + 1, dtype=torch.float64) / rest * (1 - top)
    best = torch.cat([below**n - (below - (1 - top) / rest) ** n, tensor([1 - (1 - top) ** n], dtype=torch.float64)])
    policy = torch.cat([torch.full((rest,), (1 - top) / rest, dtype=torch.float64), tensor([top], dtype=torch.float64)])
    exact = kl(best, policy)
    assert float(best_of_kl_estimate(tensor([math.log(top)]), n)) == pytest.approx(exact, rel=1e-3)
    assert exact < 0.96 * best_of_kl_bound(n)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_the_estimate_lies_between_0_and_the_bound(n):
    found = best_of_kl_estimate(tensor([0.0, -0.01, -1.0, -5.0, -60.0]), n)
    assert found.min() >= -1e-9 and found.max() <= best_of_kl_bound(n) + 1e-9
    assert found[0] == pytest.approx(0.0, abs=1e-6) and found[-1] == pytest.approx(best_of_kl_bound(n), abs=1e-9)


@pytest.mark.parametrize(("probability", "n"), [(0.3, 4), (0.05, 2), (0.9, 3)])
def test_the_estimate_is_the_papers_formula(probability, n):
    q = (1 - probability) ** n
    expected = q * (math.log(n) + (n - 1) * math.log(1 - probability) - (n - 1) / n)
    expected += (1 - q) * math.log((1 - q) / probability)
    assert best_of_kl_estimate(tensor([math.log(probability)], dtype=torch.float64), n).item() == pytest.approx(
        expected
    )


def test_what_is_accepted_follows_the_tilted_policy():
    probabilities, scores, beta = tensor([0.5, 0.3, 0.2]), tensor([0.0, 1.0, 2.0]), 0.7
    kept = probabilities * acceptance(scores, beta=beta, highest=2.0)
    tilted = probabilities * (scores / beta).exp()
    assert torch.allclose(kept / kept.sum(), tilted / tilted.sum())
    assert acceptance(tensor([3.0]), beta=beta, highest=2.0) == 1.0
