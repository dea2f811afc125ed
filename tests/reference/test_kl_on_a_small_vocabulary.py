"""Oracle: every KL term of PPO against exact gradients, by enumeration of all 400 replies of two tokens out of 20.

The policy is a table: logits of the first token, and of the second after each first one. The sequence KL is
Σ_y π(y) log π(y)/π_ref(y); its gradient has two parts, KL of each step at the states as they are, and how the states
become more or less likely.
"""

import pytest
import torch

from accord.objectives.advantage import gae, token_signals
from accord.objectives.kl import EXACT, SAMPLED, kl_loss
from accord.objectives.policy_gradient import ppo_loss
from accord.stages.ppo.config import Ppo

V = 20
FIRST, SECOND = (t.flatten() for t in torch.meshgrid(torch.arange(V), torch.arange(V), indexing="ij"))
MASK = torch.ones(V * V, 2, dtype=torch.bool)


def tables(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((V,), (V, V))]


REFERENCE = tables(1)


def token_logs(theta):
    """Log-probs (400, 2) of the tokens of every reply."""
    return torch.stack([theta[0].log_softmax(0)[FIRST], theta[1].log_softmax(1)[FIRST, SECOND]], dim=1)


def rows(theta):
    """Logits (400, 2, V) at every token of every reply."""
    return torch.stack([theta[0].expand(V * V, V), theta[1][FIRST]], dim=1)


def gradient(loss_of):
    theta = [t.clone().requires_grad_(True) for t in tables(0)]
    loss_of(theta).backward()
    return torch.cat([t.grad.flatten() for t in theta])


def probabilities(theta):
    return token_logs(theta).sum(1).exp()


def sequence_kl(theta):
    return (probabilities(theta) * (token_logs(theta) - token_logs(REFERENCE)).sum(1)).sum()


def fixed_state_kl(name):
    """Σ over states, weighted as they are reached now, of the exact KL of the next token."""

    def loss(theta):
        kl = EXACT[name](rows(theta), rows(REFERENCE))
        return (probabilities(theta).detach().unsqueeze(1) * kl).sum()

    return loss


def k1_in_the_reward(beta):
    """The policy loss of a reward that is −β·k1 alone, each reply weighing as much as it is likely."""

    def loss(theta):
        new = token_logs(theta)
        kl = SAMPLED["k1"](new.detach(), token_logs(REFERENCE))
        stream = token_signals(torch.zeros(V * V, dtype=torch.float64), kl, MASK, kl_weight=-beta)
        advantages, _ = gae(stream, torch.zeros_like(stream), MASK, gamma=1.0, lam=1.0)
        weights = probabilities(theta).detach().unsqueeze(1)
        return ppo_loss(new, new.detach(), advantages, MASK, clip=0.2, count=1, weights=weights)[0]

    return loss


def in_the_loss(name):
    """The KL term of the loss, each reply weighing as much as it is likely."""

    def loss(theta):
        if name in EXACT:
            kl = EXACT[name](rows(theta), rows(REFERENCE))
        else:
            kl = SAMPLED[name](token_logs(theta), token_logs(REFERENCE))
        weights = probabilities(theta).detach().unsqueeze(1)
        return kl_loss(kl, MASK, coefficient=0.3, count=1, weights=weights)[0]

    return loss


def same(a, b):
    return torch.allclose(a, b, rtol=1e-5, atol=1e-7)  # the exact KL is computed in f32


def test_c9_k1_in_the_reward_with_gamma_and_lambda_1_has_the_gradient_of_the_sequence_kl():
    assert same(gradient(k1_in_the_reward(0.3)), 0.3 * gradient(sequence_kl))


@pytest.mark.parametrize(("name", "of"), [("k2", "exact"), ("exact", "exact"), ("k3", "exact-forward")])
def test_c9_kl_in_the_loss_has_the_gradient_at_fixed_states(name, of):
    """k2 and the exact KL that of KL(π ‖ π_ref), k3 that of KL(π_ref ‖ π); none that of the sequence KL."""
    found = gradient(in_the_loss(name))
    assert same(found, 0.3 * gradient(fixed_state_kl(of)))
    assert not torch.allclose(found, 0.3 * gradient(sequence_kl), rtol=0.05)
    assert "fixed states" in kl_loss.__doc__


def test_the_directions_differ():
    exact, forward = (gradient(fixed_state_kl(name)) for name in EXACT)
    assert not torch.allclose(exact, forward, rtol=0.05)


def test_c9_k1_as_a_loss_pulls_nowhere_and_is_refused():
    assert gradient(in_the_loss("k1")).abs().max() < 1e-12
    with pytest.raises(ValueError, match="expected gradient of 0"):
        Ppo(model="m", data="d", out="o", rewards={"r": "r"}, kl_in="loss")


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_c27_what_pulls_away_from_the_reference_is_refused_in_the_reward(name):
    """As a reward k2 and k3 punish a token for being too unlikely by making it less likely still."""
    policy, reference = torch.tensor([0.2, 0.8]).log(), torch.tensor([0.8, 0.2]).log()
    theta = policy.clone().requires_grad_(True)
    logs = theta.log_softmax(0)
    punished = SAMPLED[name](logs.detach(), reference)
    (logs.exp().detach() * logs * (punished - (logs.exp().detach() * punished).sum())).sum().backward()
    step = -theta.grad  # of descent on the penalty
    pull = torch.softmax(policy + 0.01 * step, 0)[0] - 0.2
    towards = {"k2": pull.abs() < 1e-6, "k3": pull < 0}[name]  # nowhere, although KL is not 0; away
    assert towards
    with pytest.raises(ValueError, match="wrong sign"):
        Ppo(model="m", data="d", out="o", rewards={"r": "r"}, kl_estimator=name)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_c27_logged_estimates_sum_to_the_sequence_kl_in_expectation(name):
    theta = tables(0)
    kl = SAMPLED[name](token_logs(theta), token_logs(REFERENCE)).sum(1)
    assert torch.isclose((probabilities(theta) * kl).sum(), sequence_kl(theta))
