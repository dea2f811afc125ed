"""Multipliers for limits on expected cost.

A limit says: mean raw cost ≤ limit. Its multiplier λ ≥ 0 grows while that is violated and shrinks while it is
not. λ sees the raw mean cost (no KL, no clip, no scaling) and moves once per rollout batch, before the policy step.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Multiplier:
    """`integral` is the memory that must survive a resume; `value` is the λ that weighs the cost now."""

    integral: float
    value: float


def proportional_integral(
    state: Multiplier, cost: float, limit: float, *, rate: float, gain: float, bound: float
) -> Multiplier:
    """log λ_I += α (C − d), then λ = λ_I · exp(k (C − d)).

    Integral control in log space with a proportional term (PID Lagrangian, Stooke et al. 2020,
    arXiv:2007.03964, carried to log space): the proportional term damps the cycles that the integral alone
    runs into. `rate` is α, `gain` is k (0 leaves the integral alone), `bound` caps both.
    """
    error = cost - limit
    integral = _scaled(state.integral, rate * error, bound)
    return Multiplier(integral, _scaled(integral, gain * error, bound))


def safe_rlhf(state: Multiplier, cost: float, limit: float, *, rate: float, gain: float, bound: float) -> Multiplier:
    """log λ += α λ (C − d): gradient ascent on log λ, Safe RLHF (arXiv:2310.12773), appendix B.

    The step shrinks with λ, so a small λ recovers slowly. `gain` is not used.
    """
    value = _scaled(state.value, rate * state.value * (cost - limit), bound)
    return Multiplier(value, value)


def _scaled(value: float, exponent: float, bound: float) -> float:
    """min(value · e^exponent, bound), for any exponent: a raw cost has no bound of its own."""
    return min(value * math.exp(min(exponent, 700.0)), bound)


def fixed(state: Multiplier, cost: float, limit: float, *, rate: float, gain: float, bound: float) -> Multiplier:
    """λ stays: a weighted sum of reward and costs with weights 1 / (1 + Σλ) and λ / (1 + Σλ), the usual baseline."""
    return Multiplier(state.integral, state.integral)


def window_mean(window: list[tuple[float, int]]) -> float:
    """Mean cost over a window of iterations, each given as (mean, replies): every reply weighs the same."""
    return sum(mean * count for mean, count in window) / sum(count for _, count in window)


RULES = {"pi": proportional_integral, "safe-rlhf": safe_rlhf, "fixed": fixed}
