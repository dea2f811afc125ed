"""KL: exact by hand, estimators against the full vocabulary, the controller."""

import math

import pytest
import torch
from torch import tensor

from accord.objectives.kl import (
    EXACT,
    SAMPLED,
    adapt_kl_coefficient,
    annealed,
    exact_forward_kl,
    exact_kl,
    k1,
    k2,
    k3,
    kl_loss,
    sqrt_kl,
)


def test_exact_kl_by_hand_and_its_direction():
    p, q = tensor([0.5, 0.5]), tensor([0.9, 0.1])
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert torch.isclose(exact_kl(p.log(), q.log()), tensor(forward))
    assert not torch.isclose(exact_kl(q.log(), p.log()), tensor(forward))
    assert exact_kl(p.log(), p.log() + 3.0).abs() < 1e-7  # logits are defined up to a constant


def test_the_forward_kl_is_that_of_the_reference_and_names_are_of_their_functions():
    p, q = tensor([[0.5, 0.5]]), tensor([[0.9, 0.1]])
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert exact_forward_kl(p.log(), q.log()).item() == pytest.approx(expected, abs=1e-6)
    assert {"k1": k1, "k2": k2, "k3": k3} == SAMPLED
    assert {"exact": exact_kl, "exact-forward": exact_forward_kl} == EXACT


def test_the_loss_of_a_kl_by_hand():
    """Tokens of weights 0.5, 2 and 3 in a batch of 8; what is masked is nothing, in the gradient too."""
    kl = tensor([[0.2, 0.4, math.nan], [0.7, math.nan, math.nan]], requires_grad=True)
    mask = tensor([[True, True, False], [True, False, False]])
    weights = tensor([[0.5, 2.0, 9.0], [3.0, 9.0, 9.0]])
    loss, metrics = kl_loss(kl, mask, coefficient=0.1, count=8.0, weights=weights)
    assert loss.item() == pytest.approx(0.1 * (0.5 * 0.2 + 2.0 * 0.4 + 3.0 * 0.7) / 8) == metrics["loss/kl"].item()
    assert not metrics["loss/kl"].requires_grad
    loss.backward()
    assert torch.allclose(kl.grad, tensor([[0.05, 0.2, 0.0], [0.3, 0.0, 0.0]]) / 8)
    plain, _ = kl_loss(kl.detach(), mask, coefficient=0.1, count=8.0)
    assert plain.item() == pytest.approx(0.1 * 1.3 / 8)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (2, 0.05), (3, 0.1 * 0.25**0.75), (4, 0.025)])
def test_an_annealed_weight_falls_in_equal_ratios(step, expected):
    assert annealed(0.1, 0.25, step, 5) == pytest.approx(expected)
    assert annealed(0.1, 0.25, 0, 1) == 0.1  # one iteration is both the first and the last
    assert annealed(0.1, 0.25, 1, 2) == pytest.approx(0.025)


def policies():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, generator=generator).double(), torch.randn(7, generator=generator).double()


def test_c27_the_estimators_agree_with_the_exact_kl_in_expectation_over_the_vocabulary():
    """C27: an option named KL is one: the expectation of k1 and k3 over the policy is KL(policy ‖ reference)."""
    policy, reference = policies()
    p, q = torch.log_softmax(policy, -1), torch.log_softmax(reference, -1)
    exact = (p.exp() * (p - q)).sum()
    assert torch.isclose((p.exp() * k1(p, q)).sum(), exact)
    assert torch.isclose((p.exp() * k3(p, q)).sum(), exact)
    assert (k3(p, q) >= 0).all()
    assert torch.isclose(exact_kl(policy, reference).double(), exact, atol=1e-6)
    # k2 is biased, but close where the two are close
    near = torch.log_softmax(policy + 0.01 * reference, -1)
    assert torch.isclose((p.exp() * k2(p, near)).sum(), (p.exp() * (p - near)).sum(), rtol=0.05)


def test_estimators_by_hand():
    p, q = tensor(math.log(0.5)), tensor(math.log(0.25))
    assert torch.isclose(k1(p, q), tensor(math.log(2)))
    assert torch.isclose(k2(p, q), tensor(0.5 * math.log(2) ** 2))
    assert torch.isclose(k3(p, q), tensor(0.5 - 1 + math.log(2)))


def test_c9_gradient_of_the_kl_estimators_against_the_exact_one():
    """The expected gradient of k2 is that of the KL; k1's score-function form gives it too, k1's own gradient is 0."""
    policy, reference = policies()

    def gradient(function):
        theta = policy.clone().requires_grad_(True)
        function(torch.log_softmax(theta, -1), torch.log_softmax(reference, -1)).backward()
        return theta.grad

    exact = gradient(lambda p, q: (p.exp() * (p - q)).sum())
    weights = torch.softmax(policy, -1)
    assert torch.allclose(gradient(lambda p, q: (weights * k2(p, q)).sum()), exact, atol=1e-12)
    score = gradient(lambda p, q: (weights * p * k1(p, q).detach()).sum())
    assert torch.allclose(score, exact, atol=1e-12)
    assert gradient(lambda p, q: (weights * k1(p, q)).sum()).abs().max() < 1e-12


def test_c7_one_step_on_kl_alone_lowers_it():
    """C7: the reward stream carries −β·kl; following its policy gradient brings the policy nearer."""
    from accord.objectives.advantage import gae, token_signals
    from accord.objectives.policy_gradient import ppo_loss

    torch.manual_seed(0)
    reference = torch.randn(6)
    theta = torch.randn(6, requires_grad=True)
    tokens = torch.distributions.Categorical(logits=theta.detach()).sample((512,))
    mask = torch.ones(512, 1, dtype=torch.bool)
    old = torch.log_softmax(theta.detach(), -1)[tokens].unsqueeze(1)
    kl = k1(old, torch.log_softmax(reference, -1)[tokens].unsqueeze(1))
    stream = token_signals(torch.zeros(512), kl, mask, kl_weight=-0.1)
    advantages, _ = gae(stream, torch.zeros(512, 1), mask, gamma=1.0, lam=0.95)
    new = torch.log_softmax(theta, -1)[tokens].unsqueeze(1)
    loss, _ = ppo_loss(new, old, advantages, mask, clip=0.2, count=512)
    before = exact_kl(theta, reference)
    loss.backward()
    with torch.no_grad():
        after = exact_kl(theta - 0.5 * theta.grad, reference)
    assert after < before


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # on target
        (12.0, 0.2 * (1 + 0.2 * 100 / 1000)),  # error clipped at +0.2
        (0.0, 0.2 * (1 - 0.2 * 100 / 1000)),  # and at −0.2
        (6.6, 0.2 * (1 + 0.1 * 100 / 1000)),
    ],
)
def test_c12_the_controller_by_hand(kl, expected):
    actual = adapt_kl_coefficient(0.2, kl, target=6.0, horizon=1000.0, samples=100)
    assert actual == pytest.approx(expected)


def test_c12_the_controller_brings_a_responding_kl_to_its_target():
    coefficient = 0.05
    for _ in range(2000):
        kl = 1.0 / coefficient  # a policy whose KL falls as its price rises
        coefficient = adapt_kl_coefficient(coefficient, kl, target=4.0, horizon=1000.0, samples=50)
    assert 1.0 / coefficient == pytest.approx(4.0, rel=0.01)


def test_sqrt_kl_of_a_negative_estimate_is_zero():
    assert sqrt_kl(4.0) == 2.0 and sqrt_kl(0.25) == 0.5 and sqrt_kl(-0.01) == 0.0


def test_c10_nothing_is_clamped():
    assert k1(tensor(-1.0), tensor(-101.0)) == 100.0
    assert torch.isclose(exact_kl(tensor([50.0, 0.0]), tensor([0.0, 50.0])), tensor(50.0), rtol=1e-5)
