"""Alarms on synthetic curves whose turn is known: leads, false alarms, bounds from the other runs."""

import numpy as np
import pytest

from accord.evaluation.alarms import TrueCurve, alarm_worth, bound_of, first_ring, healthy_until, moving_mean, turn_of


def curve(name="run", turn=40, length=80, noise=0.0, seed=0, early=10, scale=1.0):
    """Gold rises until `turn` and falls; `sign` starts to rise `early` iterations before it; `flat` never does."""
    rng = np.random.default_rng(seed)
    steps = np.arange(length)
    gold = 0.02 * np.minimum(steps, turn) - 0.02 * np.maximum(steps - turn, 0) + rng.normal(0, noise, length)
    sign = scale * np.maximum(steps - (turn - early), 0) + rng.normal(0, noise, length)
    return TrueCurve(name, gold, {"sign": sign, "flat": rng.normal(0, 1, length), "falls": -sign})


def test_the_turn_is_found_through_noise_and_a_rise_has_none():
    assert turn_of(curve().gold) == pytest.approx(40, abs=1)
    found = [turn_of(curve(noise=0.05, seed=seed).gold) for seed in range(30)]
    assert all(t is not None and abs(t - 40) <= 6 for t in found)
    assert turn_of(curve(turn=200).gold) is None  # it rises to the end
    assert turn_of([0.5] * 80) is None and turn_of([1.0, 0.0]) is None


def test_noise_alone_rarely_turns():
    rng = np.random.default_rng(1)
    turned = [turn_of(rng.normal(0, 1, 60)) is not None for _ in range(300)]
    assert np.mean(turned) < 0.1


def alternating(height):
    """Five iterations of a height, then ten of 0, under a noise of 1, −1, 1, …"""
    return np.where(np.arange(15) < 5, height, 0.0) + (-1.0) ** np.arange(15)


def test_the_fall_that_is_a_turn_by_hand():
    """Differences: six of −2, seven of 2, one of −2 − h; the fall is h + 1/5 beside 3 √(var / 2 · (1/5 + 1/10))."""
    for height, turn in ((2.40, None), (2.45, 2)):
        steps = [-2.0] * 6 + [2.0] * 7 + [-2.0 - height]
        assert (height + 0.2 > 3 * np.sqrt(np.var(steps) / 2 * 0.3)) == (turn is not None)
        assert turn_of(alternating(height)) == turn
    # the fewest iterations, and a peak that reaches into those which stand for the end
    assert turn_of([1.0] * 5 + [0.0] * 10) == 2 and turn_of([1.0] * 4 + [0.0] * 10) is None
    assert turn_of([0.0] + [1.0] * 5 + [0.0] * 9) is None and turn_of([0.0] + [1.0] * 5 + [0.0] * 10) == 3


def test_a_turn_within_the_horizon_leaves_no_healthy_iteration():
    early = TrueCurve("early", np.array([1.0] * 5 + [0.0] * 10), {"m": np.arange(15.0)})
    assert [healthy_until(early, horizon) for horizon in (0, 1, 2, 5)] == [2, 1, 0, 0]
    assert np.isnan(bound_of([early], "m", "above", 5)) and bound_of([early], "m", "above", 0) == 0.5


def test_an_alarm_has_the_bound_of_all_other_runs_by_hand():
    """Runs that do not turn, of constant metrics: the highest alone is above the highest of all others."""
    runs = [TrueCurve(f"r{i}", np.zeros(6), {"m": np.full(6, level)}) for i, level in enumerate((1.0, 3.0, 4.0, 2.0))]
    above, below = (alarm_worth(runs, "m", side) for side in ("above", "below"))
    assert above.false_runs == (0.0, 0.0, 1.0, 0.0) and below.false_runs == (1.0, 0.0, 0.0, 0.0)
    assert (above.metric, above.side, above.bound, below.bound) == ("m", "above", 4.0, 1.0)
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    found = above.json()
    assert found["lead"] == nothing and found["warned"] == nothing and found["false_runs"]["mean"] == 0.25
    assert (found["metric"], found["side"], found["bound"]) == ("m", "above", 4.0)


def test_the_mean_looks_back_alone():
    assert moving_mean([1, 1, 1, 1, 6, 1]).tolist() == [1, 1, 1, 1, 2, 2]
    assert first_ring([0, 0, 0, 0, 10, 10], "above", 1.5) == 4
    assert first_ring([0, 0, -10], "below", -3) == 2 and first_ring([0, 0], "above", 1) is None


def test_an_alarm_that_rises_early_leads_by_what_the_horizon_leaves():
    runs = [curve(f"r{i}", turn=36 + 2 * i) for i in range(5)]
    assert [healthy_until(run, 5) for run in runs] == [turn_of(run.gold) - 5 for run in runs]
    found = alarm_worth(runs, "sign", "above", horizon=5)
    # the others' highest healthy value is reached again just when they stop to be healthy
    assert all(3 <= lead <= 5 for lead in found.leads) and found.false_runs == (0.0,) * 5
    assert found.warned == (1.0,) * 5 and found.lead.low > 0
    assert found.bound == pytest.approx(bound_of(runs, "sign", "above", 5))
    turned = alarm_worth(runs, "falls", "below", horizon=5)
    assert turned.leads == found.leads and turned.bound == pytest.approx(-found.bound)


def test_an_alarm_that_comes_late_or_never_has_no_lead():
    late = alarm_worth([curve(f"r{i}", turn=36 + i, early=-10) for i in range(5)], "sign", "above")
    assert all(lead < 0 for lead in late.leads) and set(late.warned) == {0.0} and late.lead.high < 0
    runs = [curve(f"r{i}", turn=40, seed=i) for i in range(6)]
    never = alarm_worth([TrueCurve(r.name, r.gold, {"zero": np.zeros(80)}) for r in runs], "zero", "above")
    assert never.leads == tuple(float(turn_of(r.gold) - 80) for r in runs)


def test_a_run_that_does_not_turn_is_healthy_throughout_and_may_ring_falsely():
    calm = [curve(f"c{i}", turn=200, early=300, scale=0.01) for i in range(4)]
    odd = TrueCurve("odd", calm[0].gold, {**calm[0].metrics, "sign": calm[0].metrics["sign"] + 50})
    found = alarm_worth([*calm, odd], "sign", "above")
    assert found.false_runs == (0.0, 0.0, 0.0, 0.0, 1.0) and found.leads == ()
    # a metric that tells nothing rings for nothing in about one of as many runs as there are
    runs = [curve(f"r{i}", turn=200, seed=i) for i in range(20)]
    assert np.mean(alarm_worth(runs, "flat", "above").false_runs) == pytest.approx(1 / 20)


def test_a_metric_that_was_not_logged_rings_never():
    runs = [TrueCurve(f"r{i}", curve(turn=36 + i).gold, {"other": np.full(80, np.nan)}) for i in range(4)]
    found = alarm_worth(runs, "other", "above")
    assert np.isnan(found.bound) and set(found.warned) == {0.0}
    with pytest.raises(ValueError, match="4 runs or more"):
        alarm_worth(runs[:3], "other", "above")
