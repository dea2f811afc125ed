"""Oracle: texts of 8 tokens from a table policy with a known constrained optimum, by the package's own formulas.

Token 1 earns 1 and harms by 1, token 3 earns 0.9 and is dishonest by 1, token 2 earns 0.6 and costs nothing, the rest
earn and cost nothing. A text's reward and costs are sums over its tokens. Every token 1 in the place of a 2 gains 0.4
and every 3 gains 0.3, so the optimum under limits uses each limit up: 4.8 + 0.4 · harm + 0.3 · dishonesty, with the
multipliers 0.4 and 0.3. Without limits it is 8.
"""

import pytest
import torch

from accord.objectives.advantage import combine_advantages, gae, leave_one_out
from accord.objectives.lagrange import Multiplier, cost_error, proportional_integral
from accord.objectives.masked import whiten
from accord.objectives.policy_gradient import ppo_loss

POSITIONS, TOKENS, BATCH = 8, 6, 256
EARNS = torch.tensor([0.0, 1.0, 0.6, 0.9, 0.0, 0.0])
COSTS = {"harm": torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), "lies": torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])}
PRICES = {"harm": 0.4, "lies": 0.3}
MASK = torch.ones(BATCH, POSITIONS, dtype=torch.bool)


def with_critic(stream):
    """GAE with a perfect critic of this problem: the value of a position is the mean of what came from it on."""
    values = stream.flip(1).cumsum(1).flip(1).mean(0, keepdim=True).expand(BATCH, -1)
    return gae(stream, values, MASK, gamma=1.0, lam=0.95)[0]


def without_critic(stream):
    """RLOO: whole texts against the others of the batch, which all answer one prompt."""
    return leave_one_out(stream.sum(1), BATCH).unsqueeze(1).expand(-1, POSITIONS)


def optimise(limits, steps, advantage=with_critic):
    """Mean reward and costs over the last quarter of the steps, and the multipliers' means there."""
    torch.manual_seed(0)
    theta = torch.zeros(POSITIONS, TOKENS, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=0.05)
    multipliers = {name: Multiplier(0.2, 0.2) for name in limits}
    seen = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 if step < steps // 2 else 0.015
        with torch.no_grad():
            tokens = torch.distributions.Categorical(logits=theta).sample((BATCH,))
            old = torch.log_softmax(theta, -1).expand(BATCH, -1, -1).gather(2, tokens[..., None])[..., 0]
        costs = {name: COSTS[name][tokens] for name in limits}
        means = {name: float(cost.sum(1).mean()) for name, cost in costs.items()}
        for name, limit in limits.items():
            multipliers[name] = proportional_integral(
                multipliers[name], cost_error(means[name], limit, 1.0), rate=0.05, gain=0.5, bound=10.0
            )
        seen.append([float(EARNS[tokens].sum(1).mean()), *means.values(), *(m.integral for m in multipliers.values())])
        weights = {name: torch.full((BATCH,), multiplier.value) for name, multiplier in multipliers.items()}
        parts = {name: advantage(cost) for name, cost in costs.items()}
        advantages = whiten(combine_advantages(advantage(EARNS[tokens]), parts, weights), MASK)
        for _ in range(2):
            new = torch.log_softmax(theta, -1).expand(BATCH, -1, -1).gather(2, tokens[..., None])[..., 0]
            loss, _ = ppo_loss(new, old, advantages, MASK, clip=0.2, count=BATCH * POSITIONS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    last = torch.tensor(seen[-steps // 4 :]).mean(0).tolist()
    names = list(limits)
    return last[0], dict(zip(names, last[1:], strict=False)), dict(zip(names, last[1 + len(names) :], strict=True))


@pytest.mark.parametrize(
    ("limits", "steps", "advantage"),
    [
        pytest.param({"harm": 2.0, "lies": 0.0001}, 500, with_critic, marks=pytest.mark.slow),
        pytest.param({"harm": 0.5, "lies": 0.0001}, 500, with_critic, marks=pytest.mark.slow),
        ({"harm": 2.0, "lies": 1.5}, 300, with_critic),
        pytest.param({"harm": 0.5, "lies": 2.5}, 500, with_critic, marks=pytest.mark.slow),
        ({"harm": 2.0, "lies": 1.5}, 300, without_critic),
    ],
)
def test_the_constrained_optimum_is_reached_within_3_percent(limits, steps, advantage):
    reward, costs, prices = optimise(limits, steps, advantage)
    assert reward == pytest.approx(4.8 + sum(PRICES[name] * limit for name, limit in limits.items()), rel=0.03)
    for name, limit in limits.items():
        assert costs[name] == pytest.approx(limit, rel=0.03, abs=0.05)
        if limit > 0.01:  # a limit that forbids a token altogether has no price of its own
            assert prices[name] == pytest.approx(PRICES[name], abs=0.1)


def test_one_limit_leaves_what_it_does_not_name_alone():
    """With a limit on harm alone the best harmless token is 3: 7.2 + 0.1 · harm."""
    reward, costs, _ = optimise({"harm": 2.0}, 300)
    assert reward == pytest.approx(7.2 + 0.1 * 2.0, rel=0.03)
    assert costs["harm"] == pytest.approx(2.0, rel=0.05, abs=0.1)


def test_without_a_limit_the_unconstrained_optimum_is_reached():
    assert optimise({}, 200)[0] == pytest.approx(8.0, rel=0.03)
