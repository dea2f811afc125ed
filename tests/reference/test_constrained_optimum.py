"""Oracle: a table policy with a known constrained optimum, optimised with the package's own formulas.

8 positions, 6 tokens. Token 1 earns 1 and costs 1, token 2 earns 0.6 and costs 0, the rest earn and cost nothing. With
p the chance of token 1 the reward is 8·(p + 0.6·(1 − p)) = 4.8 + 3.2·p and the cost 8·p: the optimum under cost ≤ d is
4.8 + 0.4·d, and 8 without a limit.
"""

import pytest
import torch

from accord.objectives.advantage import combine_advantages, gae
from accord.objectives.lagrange import Multiplier, proportional_integral
from accord.objectives.masked import whiten
from accord.objectives.policy_gradient import ppo_loss

POSITIONS, TOKENS, BATCH = 8, 6, 256
EARNS = torch.tensor([0.0, 1.0, 0.6, 0.0, 0.0, 0.0])
COSTS = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def optimise(limit: float | None, steps: int) -> tuple[float, float, float]:
    """Mean reward and cost over the last quarter of the steps, and the last multiplier."""
    torch.manual_seed(0)
    theta = torch.zeros(POSITIONS, TOKENS, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=0.05)
    multiplier = Multiplier(0.2, 0.2)
    mask = torch.ones(BATCH, POSITIONS, dtype=torch.bool)
    seen = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 if step < steps // 2 else 0.015
        with torch.no_grad():
            tokens = torch.distributions.Categorical(logits=theta).sample((BATCH,))
            old = torch.log_softmax(theta, -1).expand(BATCH, -1, -1).gather(2, tokens[..., None])[..., 0]
        earned, cost = EARNS[tokens], COSTS[tokens]
        seen.append((float(earned.sum(1).mean()), float(cost.sum(1).mean())))
        # the value of a position is the mean of what came after it: a perfect critic of this problem
        parts = {}
        for name, stream in (("r", earned), ("c", cost)):
            values = stream.flip(1).cumsum(1).flip(1).mean(0, keepdim=True).expand(BATCH, -1)
            parts[name], _ = gae(stream, values, mask, gamma=1.0, lam=0.95)
        limits = {}
        if limit is not None:
            multiplier = proportional_integral(multiplier, seen[-1][1], limit, rate=0.05, gain=0.5, bound=10.0)
            limits = {"c": torch.full((BATCH,), multiplier.value)}
        combined = combine_advantages(parts["r"], {"c": parts["c"]} if limits else {}, limits)
        advantages = whiten(combined, mask)
        for _ in range(2):
            new = torch.log_softmax(theta, -1).expand(BATCH, -1, -1).gather(2, tokens[..., None])[..., 0]
            loss, _ = ppo_loss(new, old, advantages, mask, clip=0.2, count=BATCH * POSITIONS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    last = seen[-steps // 4 :]
    return sum(r for r, _ in last) / len(last), sum(c for _, c in last) / len(last), multiplier.value


@pytest.mark.parametrize("limit", [2.0, 0.5])
def test_the_constrained_optimum_is_reached_within_5_percent(limit):
    reward, cost, multiplier = optimise(limit, 400)
    optimum = 4.8 + 0.4 * limit
    assert reward == pytest.approx(optimum, rel=0.05)
    assert cost == pytest.approx(limit, rel=0.05, abs=0.05)
    # at the optimum the multiplier is the price of a unit of cost: 0.4
    assert multiplier == pytest.approx(0.4, abs=0.15)


def test_without_a_limit_the_unconstrained_optimum_is_reached():
    reward, cost, _ = optimise(None, 200)
    assert reward == pytest.approx(8.0, rel=0.05)
    assert cost == pytest.approx(8.0, rel=0.05)
