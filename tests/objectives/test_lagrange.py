"""Multipliers of both rules by hand."""

import math

import pytest

from accord.objectives.lagrange import (
    RULES,
    Multiplier,
    cost_error,
    fixed,
    proportional_integral,
    safe_rlhf,
    unsafe_error,
    window_mean,
)

MOVING = [RULES["pi"], RULES["safe-rlhf"]]


def test_proportional_integral_by_hand():
    # λ_I = 2·exp(0.05·0.6), λ = λ_I·exp(1·0.6)
    state = proportional_integral(Multiplier(2.0, 2.0), error=0.6, rate=0.05, gain=1.0, bound=10.0)
    assert state.integral == pytest.approx(2 * math.exp(0.03))
    assert state.value == pytest.approx(2 * math.exp(0.63))
    # the next step starts from the integral alone; satisfied: both fall
    state = proportional_integral(state, error=-0.3, rate=0.05, gain=1.0, bound=10.0)
    assert state.integral == pytest.approx(2 * math.exp(0.015))
    assert state.value == pytest.approx(2 * math.exp(0.015 - 0.3))


def test_gain_0_is_the_integral_alone():
    state = proportional_integral(Multiplier(1.0, 7.0), error=1.0, rate=0.1, gain=0.0, bound=10.0)
    assert state.value == state.integral == pytest.approx(math.exp(0.1))


def test_safe_rlhf_by_hand():
    # log λ += 0.1 · 2 · 0.5
    state = safe_rlhf(Multiplier(9.9, 2.0), error=0.5, rate=0.1, gain=99.0, bound=10.0)
    assert state.value == state.integral == pytest.approx(2 * math.exp(0.1))


@pytest.mark.parametrize("rule", MOVING)
def test_d6_violation_raises_and_slack_lowers_the_multiplier(rule):
    start = Multiplier(1.0, 1.0)
    settings = {"rate": 0.05, "gain": 1.0, "bound": 10.0}
    assert rule(start, cost_error(0.5, 0.0, 2.0), **settings).value > 1.0
    assert rule(start, cost_error(-0.5, 0.0, 2.0), **settings).value < 1.0
    assert rule(start, cost_error(-0.5, -0.5, 2.0), **settings).value == 1.0
    # a negative limit is violated by a cost that a limit of 0 allows
    assert rule(start, cost_error(-0.2, -0.5, 2.0), **settings).value > 1.0
    assert rule(start, unsafe_error(0.3, 0.2), **settings).value > 1.0
    assert rule(start, unsafe_error(0.1, 0.2), **settings).value < 1.0


def test_the_error_of_a_cost_is_in_deviations_and_that_of_a_share_is_of_expected_signs():
    assert cost_error(32.0, 1.5, 8.0) == pytest.approx(3.8125)
    assert cost_error(320.0, 15.0, 80.0) == pytest.approx(3.8125)
    # mean(2σ − 1) − (2 · 0.2 − 1)
    assert unsafe_error(0.35, 0.2) == pytest.approx((2 * 0.35 - 1) - (2 * 0.2 - 1)) == pytest.approx(0.3)


@pytest.mark.parametrize("rule", MOVING)
def test_bound_caps_and_zero_stays_zero(rule):
    settings = {"rate": 1.0, "gain": 1.0, "bound": 3.0}
    state = Multiplier(2.9, 2.9)
    for _ in range(5):
        state = rule(state, 1.0, **settings)
    assert state.value == 3.0 and state.integral <= 3.0
    assert rule(Multiplier(0.0, 0.0), 5.0, **settings).value == 0.0


def test_d4_a_small_multiplier_recovers_under_the_default_rule_and_not_under_safe_rlhfs():
    """D4: from λ = 1e-4 with the cost 1 over its limit, λ reaches 1 within 200 steps of rate 0.05, 100 of 0.1."""

    def steps_until_one(rule, rate=0.05):
        state = Multiplier(1e-4, 1e-4)
        for step in range(1, 1001):
            state = rule(state, 1.0, rate=rate, gain=1.0, bound=10.0)
            if state.value >= 1.0:
                return step
        return None

    # log(1e4) = 9.21 = 0.05·n + 1 gives n = 165
    assert steps_until_one(proportional_integral) == 165
    assert steps_until_one(proportional_integral, rate=0.1) == 83
    assert steps_until_one(safe_rlhf) is None


def test_a_fixed_multiplier_stays_what_it_is():
    state = fixed(Multiplier(0.7, 99.0), 5.0, rate=0.1, gain=1.0, bound=0.1)
    assert state == Multiplier(0.7, 0.7)


def test_every_reply_of_a_window_weighs_the_same():
    assert window_mean([(1.0, 1), (-0.5, 3)]) == pytest.approx((1.0 - 1.5) / 4)
    # one iteration is itself, to the bit, as a mean of f32 numbers has room in f64 for its product with a count
    assert window_mean([(0.10000000149011612, 3)]) == 0.10000000149011612


@pytest.mark.parametrize("rule", MOVING)
def test_an_error_of_any_size_overflows_nothing(rule):
    settings = {"rate": 1.0, "gain": 1.0, "bound": 10.0}
    assert rule(Multiplier(1.0, 1.0), 1e9, **settings).value == 10.0
    assert rule(Multiplier(1.0, 1.0), -1e9, **settings).value == 0.0
    assert rule(Multiplier(0.0, 0.0), 1e9, **settings).value == 0.0
