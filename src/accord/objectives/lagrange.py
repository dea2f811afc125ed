"""Multipliers for limits on expected cost.

A limit says: mean raw cost ≤ limit, or expected share of unsafe replies ≤ limit. Its multiplier λ ≥ 0 grows while
that is violated and shrinks while it is not, by an error that does not depend on the units of the cost. λ sees raw
costs (no KL, no clip, no normaliser) and moves once per rollout batch, before the policy step.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Multiplier:
    """`integral` is the memory that must survive a resume; `value` is the λ that weighs the cost now."""

    integral: float
    value: float


def cost_error(mean: float, limit: float, deviation: float) -> float:
    """(C − d) / s, with s > 0 the deviation of the raw cost: a head and a limit ten times as large give the same."""
    return (mean - limit) / deviation


def unsafe_error(share: float, limit: float) -> float:
    """2 (share − d), shares in [0, 1]: the mean of 2σ(C) − 1, the expected sign of harm, less what d makes of it."""
    return 2 * (share - limit)


def proportional_integral(state: Multiplier, error: float, *, rate: float, gain: float, bound: float) -> Multiplier:
    """log λ_I += α · error, then λ = λ_I · exp(k · error).

    Integral control in log space with a proportional term (PID Lagrangian, Stooke et al. 2020,
    arXiv:2007.03964, carried to log space): the proportional term damps the cycles that the integral alone
    runs into. `rate` is α, `gain` is k (0 leaves the integral alone), `bound` caps both.
    """
    integral = _scaled(state.integral, rate * error, bound)
    return Multiplier(integral, _scaled(integral, gain * error, bound))


def safe_rlhf(state: Multiplier, error: float, *, rate: float, gain: float, bound: float) -> Multiplier:
    """log λ += α · λ · error: gradient ascent on log λ, Safe RLHF (arXiv:2310.12773), appendix B.

    The step shrinks with λ, so a small λ recovers slowly. `gain` is not used.
    """
    value = _scaled(state.value, rate * state.value * error, bound)
    return Multiplier(value, value)


def _scaled(value: float, exponent: float, bound: float) -> float:
    """min(value · e^exponent, bound), for any exponent: an error has no bound of its own."""
    return min(value * math.exp(min(exponent, 700.0)), bound)


def fixed(state: Multiplier, error: float, *, rate: float, gain: float, bound: float) -> Multiplier:
    """λ stays: a weighted sum of reward and costs with weights 1 / (1 + Σλ) and λ / (1 + Σλ), the usual baseline."""
    return Multiplier(state.integral, state.integral)


def window_mean(window: list[tuple[float, int]]) -> float:
    """Mean over a window of iterations, each given as (mean, replies): every reply weighs the same."""
    return sum(mean * count for mean, count in window) / sum(count for _, count in window)


RULES = {"pi": proportional_integral, "safe-rlhf": safe_rlhf, "fixed": fixed}
