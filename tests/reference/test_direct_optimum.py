"""On one prompt with five replies everything is known: what each road of the direct family must end in, exactly.

The optimum of E[r] − β KL(π ‖ π_ref) is π_ref · exp(r / β) / Z. Comparisons are Bradley–Terry on r, every pair weighted
by its probability, so the data are infinite; the policy is a table.
"""

import itertools

import pytest
import torch

from accord.objectives.direct import LOSSES, Pairs

DOUBLE = torch.float64
REFERENCE = torch.log_softmax(torch.tensor([0.3, -0.5, 1.0, 0.0, -1.2], dtype=DOUBLE), 0)
HELPFUL = torch.tensor([1.0, -0.5, 0.2, 1.4, 0.0], dtype=DOUBLE)
HARMLESS = torch.tensor([-1.0, 0.8, 0.1, -1.5, 0.5], dtype=DOUBLE)
PAIRS = list(itertools.permutations(range(5), 2))
BETTER, WORSE = ([pair[side] for pair in PAIRS] for side in (0, 1))


def optimum(reference, reward, beta):
    return torch.log_softmax(reference + reward / beta, 0)


def align(reference, criterion, *, loss="dpo", margins=None, flips=0.0, **keywords):
    """The table that minimises a loss on infinitely many comparisons by `criterion`, a share of them turned round."""
    logits = reference.clone().requires_grad_()
    clean = torch.sigmoid(criterion[BETTER] - criterion[WORSE])
    weights = (1 - flips) * clean + flips * (1 - clean)
    margin = torch.zeros(len(PAIRS), dtype=DOUBLE) if margins is None else margins[BETTER] - margins[WORSE]
    ones = torch.ones(len(PAIRS), dtype=DOUBLE)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        logs = torch.log_softmax(logits, 0)
        batch = Pairs(logs[BETTER], logs[WORSE], reference[BETTER], reference[WORSE], ones, ones, weights, margin)
        value, _ = LOSSES[loss](batch, count=float(weights.sum()), **keywords)
        value.backward()
        return value

    optimizer.step(closure)
    return torch.log_softmax(logits.detach(), 0)


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("loss", ["dpo", "dpo_norm"])
def test_dpo_ends_in_the_optimum_of_reward_and_kl(loss, beta):
    assert torch.allclose(align(REFERENCE, HELPFUL, loss=loss, beta=beta), optimum(REFERENCE, HELPFUL, beta), atol=1e-4)


def test_robust_dpo_ends_there_although_labels_are_turned():
    """Under the debiased loss; DPO itself ends short of it."""
    expected = optimum(REFERENCE, HELPFUL, 1.0)
    robust = align(REFERENCE, HELPFUL, loss="robust", flips=0.2, label_smoothing=0.2, beta=1.0)
    assert torch.allclose(robust, expected, atol=1e-4)
    assert not torch.allclose(align(REFERENCE, HELPFUL, flips=0.2, beta=1.0), expected, atol=1e-2)


def test_modpo_margins_end_in_the_optimum_of_the_weighted_sum():
    """Comparisons by helpfulness and margins of 0.7 · harmlessness: the policy of helpfulness + 0.7 · harmlessness."""
    found = align(REFERENCE, HELPFUL, margins=0.7 * HARMLESS, beta=0.5)
    assert torch.allclose(found, optimum(REFERENCE, HELPFUL + 0.7 * HARMLESS, 0.5), atol=1e-4)


@pytest.mark.parametrize("order", ["helpful first", "harmless first"])
def test_stepwise_alignment_with_the_theorys_beta_ends_in_the_same_place(order):
    """SACPO: β for the first criterion, β / λ for the second, from the policy of the first; either order."""
    beta, lam = 0.5, 2.0
    if order == "helpful first":
        second = align(align(REFERENCE, HELPFUL, beta=beta), HARMLESS, beta=beta / lam)
    else:
        second = align(align(REFERENCE, HARMLESS, beta=beta / lam), HELPFUL, beta=beta)
    assert torch.allclose(second, optimum(REFERENCE, HELPFUL + lam * HARMLESS, beta), atol=1e-3)
