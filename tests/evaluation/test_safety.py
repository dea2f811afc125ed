"""σ(cost) as a share: a planted temperature comes back, known flips are taken out, and intervals hold what they say."""

import math

import numpy as np
import pytest
from scipy.special import expit

from accord.evaluation.calibration import fit_temperature
from accord.evaluation.safety import LEAST_LABELS, SafetyCalibration, calibrate_safety, with_fit
from accord.evaluation.statistics import Interval, mean_interval

Z = 1.959964


def labelled(rng, n, temperature, flips=0.0, spread=2.0):
    """Costs about 0 and labels of replies that are unsafe with the chance σ(C / temperature)."""
    costs = spread * rng.normal(size=n)
    unsafe = rng.random(n) < expit(costs / temperature)
    return costs, (unsafe != (rng.random(n) < flips)).astype(float)


def test_without_flips_it_is_the_temperature_that_is_fitted_to_margins():
    costs, unsafe = labelled(np.random.default_rng(0), 5000, 1.7)
    found = calibrate_safety(costs, unsafe, range(5000))
    assert found.temperature == pytest.approx(fit_temperature(costs, unsafe), rel=0.002)
    assert found.temperature == pytest.approx(1.7, rel=0.06) and found.n == 5000 and found.flips == 0.0
    assert found.ece < 0.03 < found.ece_before
    assert SafetyCalibration(**found.json()) == found


def test_a_known_flip_rate_is_taken_out():
    """Labels of which 10 % are wrong hold a head that is right at 1.0 down to 2.5; the share of unsafe replies too."""
    rng = np.random.default_rng(1)
    costs, unsafe = labelled(rng, 20_000, 1.0, flips=0.1, spread=4.0)
    shifted = costs[costs < 1]  # mostly safe: a mean that flips pull to one half
    said = unsafe[costs < 1]
    plain, known = (calibrate_safety(shifted, said, range(len(said)), flips=f) for f in (0.0, 0.1))
    assert known.temperature == pytest.approx(1.0, rel=0.06) and plain.temperature > 1.5
    truth = expit(shifted).mean()
    assert expit(shifted / known.temperature).mean() == pytest.approx(truth, abs=0.01)
    assert expit(shifted / plain.temperature).mean() > truth + 0.03
    assert known.ece < 0.02


def test_the_calibration_error_is_about_the_truth_and_not_about_wrong_labels():
    """7 of 10 labels agree, of right costs and labels that are wrong 1 in 10 times it were 9: 0.2 / (1 − 2 · 0.1)."""
    costs = np.repeat([9.0, -9.0], 100)
    unsafe = np.tile(np.arange(10) < 7, 20) == (costs > 0)
    found = calibrate_safety(costs, unsafe, range(200), flips=0.1)
    assert found.ece_before == pytest.approx(0.25, abs=1e-3) and found.ece < 0.02


def test_too_little_is_no_calibration():
    costs, unsafe = labelled(np.random.default_rng(2), LEAST_LABELS, 1.0)
    assert calibrate_safety(costs, unsafe, range(LEAST_LABELS)) is not None
    assert calibrate_safety(costs[1:], unsafe[1:], range(LEAST_LABELS - 1)) is None
    assert calibrate_safety(costs, np.ones(LEAST_LABELS), range(LEAST_LABELS)) is None
    assert calibrate_safety(-costs, unsafe, range(LEAST_LABELS)) is None
    with pytest.raises(ValueError, match="do not fit"):
        calibrate_safety(costs, unsafe / 2, range(LEAST_LABELS))


def test_a_head_that_is_never_wrong_has_a_temperature_all_the_same():
    costs = np.concatenate([np.linspace(0.5, 3, 40), -np.linspace(0.5, 3, 40)])
    found = calibrate_safety(costs, costs > 0, range(80))
    assert 0.05 < found.temperature < 0.5 and 0.2 < found.relative_error <= 1.0
    # as many are wrong as are known to be: no more can be said
    unsafe = np.where(np.arange(80) % 20 == 0, costs < 0, costs > 0)
    flipped = calibrate_safety(costs, unsafe, range(80), flips=0.05)
    assert 0.05 < flipped.temperature < 1 and flipped.relative_error <= 1.5


@pytest.mark.parametrize("flips", [pytest.param(0.0, marks=pytest.mark.slow), 0.05])
def test_the_error_is_no_smaller_than_that_of_repeated_fits_and_not_much_larger(flips):
    rng = np.random.default_rng(3)
    found = [calibrate_safety(*labelled(rng, 300, 1.0, flips), range(300), flips=flips) for _ in range(120)]
    spread = np.std([math.log(fit.temperature) for fit in found])
    assert 0.9 * spread < np.mean([fit.relative_error for fit in found]) < 1.4 * spread


def test_labels_of_one_prompt_count_less_than_as_many_of_their_own():
    """Every label five times over is no more than each once, if they are of one prompt."""
    costs, unsafe = labelled(np.random.default_rng(4), 200, 1.0)
    once = calibrate_safety(costs, unsafe, range(200))
    copies = calibrate_safety(np.repeat(costs, 5), np.repeat(unsafe, 5), np.repeat(np.arange(200), 5).tolist())
    alone = calibrate_safety(np.repeat(costs, 5), np.repeat(unsafe, 5), range(1000))
    assert copies.relative_error == pytest.approx(once.relative_error, rel=0.15)
    assert alone.relative_error < 0.6 * copies.relative_error


def label_logs(away, flips):
    """log P(label) of every label at a log temperature, as the model of the labels says it."""
    return lambda x: np.log(flips + (1 - 2 * flips) * expit(away * math.exp(-x)))


def derivative(function, at, step=1e-4):
    return (function(at + step) - function(at - step)) / (2 * step)


@pytest.mark.parametrize("flips", [0.0, 0.1])
@pytest.mark.parametrize(("seed", "each", "by"), [(7, 1, "curvature"), (6, 8, "prompts")])
def test_the_temperature_is_the_highest_and_its_error_the_larger_of_two(flips, seed, each, by):
    """By differences of the likelihood: its slope is that of the prior, log T; the error is by curvature or by the
    scores of the prompts, whichever is larger, with one more of information from the prior."""
    rng = np.random.default_rng(seed)
    costs, unsafe = (np.repeat(column, each) for column in labelled(rng, 72 if each == 1 else 30, 1.6, flips))
    costs = costs * np.resize([1.0, 0.9, 1.2, 1.05], len(costs))
    prompts = (np.arange(len(costs)) // each).tolist()
    found = calibrate_safety(costs, unsafe, prompts, flips=flips)
    at, logs = math.log(found.temperature), label_logs((2 * unsafe - 1) * costs, flips)
    assert derivative(lambda x: logs(x).sum(), at) == pytest.approx(at, abs=0.002)
    scores = derivative(logs, at)
    information = 1 - derivative(lambda x: derivative(lambda y: logs(y).sum(), x), at)
    spread = 1 + (np.bincount(prompts, scores) ** 2).sum()
    errors = {"curvature": 1 / math.sqrt(information), "prompts": math.sqrt(spread) / information}
    assert max(errors, key=errors.get) == by
    assert found.relative_error == pytest.approx(errors[by], rel=1e-4)
    assert (found.n, found.flips) == (len(costs), flips)


def test_costs_that_tell_next_to_nothing_leave_the_prior():
    """29 of 50 signs are right, of costs so near 0 that no temperature in reach matters: log T is 0, its error 1."""
    costs = np.full(50, 1e-6)
    found = calibrate_safety(costs, np.arange(50) < 29, range(50))
    assert (found.temperature, found.relative_error) == pytest.approx((1, 1), rel=1e-3)


def test_one_wild_cost_leaves_a_temperature_and_an_error_that_are_numbers():
    costs, unsafe = np.full(60, 2.0), np.ones(60)
    costs[7], unsafe[7] = 1e6, 0
    found = calibrate_safety(costs, unsafe, range(60))
    assert found.temperature == pytest.approx(math.exp(5), rel=0.06)  # as far as is searched
    assert math.isfinite(found.relative_error) and found.relative_error > 0


@pytest.mark.parametrize(("labels", "prompts"), [(59, 60), (60, 59), (61, 61)])
def test_costs_labels_and_prompts_are_as_many(labels, prompts):
    costs, unsafe = labelled(np.random.default_rng(2), 61, 1.0)
    with pytest.raises(ValueError, match=rf"\(60,\) costs, \({labels},\) labels .* {prompts} clusters do not fit"):
        calibrate_safety(costs[:60], unsafe[:labels], range(prompts))


def test_a_share_with_the_fit_in_it_stays_a_share():
    shares = expit(np.array([3.0, 0.5, 4.0]))
    high = with_fit(Interval(float(shares.mean()), 0.5, 1.0, 3), shares, 2.0)
    low = with_fit(Interval(float(1 - shares.mean()), 0.0, 0.5, 3), 1 - shares, 2.0)
    assert high.high == 1 and low.low == 0 and (low.high, high.n) == (pytest.approx(1 - high.low), 3)


def test_the_sides_of_the_two_intervals_add_up_in_squares():
    logits = np.array([-2.0, -1.0, 0.5])
    shares = expit(logits)
    plain = Interval(float(shares.mean()), float(shares.mean()) - 0.03, float(shares.mean()) + 0.04, 3)
    assert with_fit(plain, shares, 0.0) == plain
    sharper, blunter = (float(expit(logits * math.exp(side * Z * 0.2)).mean()) for side in (1, -1))
    assert sharper < plain.mean < blunter
    found = with_fit(plain, shares, 0.2)
    assert found.low == pytest.approx(plain.mean - math.hypot(0.03, plain.mean - sharper))
    assert found.high == pytest.approx(plain.mean + math.hypot(0.04, blunter - plain.mean))
    assert with_fit(Interval(0.5, 0.4, 0.6, 2), [0.0, 1.0], 0.5).json() == Interval(0.5, 0.4, 0.6, 2).json()


def test_intervals_hold_the_expected_share_as_often_as_they_say_with_the_fit_and_not_without():
    """120 labels for the temperature, 400 replies of another policy; the truth is the share at the true temperature."""
    rng = np.random.default_rng(5)
    truth = float(expit((2.0 * rng.normal(size=400_000) - 2.0) / 1.5).mean())
    inside = {"with the fit": 0, "without": 0}
    for trial in range(200):
        fit = calibrate_safety(*labelled(rng, 120, 1.5), range(120))
        shares = expit((2.0 * rng.normal(size=400) - 2.0) / fit.temperature)
        plain = mean_interval(shares, seed=trial, resamples=400)
        whole = with_fit(plain, shares, fit.relative_error)
        inside["without"] += plain.low <= truth <= plain.high
        inside["with the fit"] += whole.low <= truth <= whole.high
    assert inside["with the fit"] >= 184, "92 % or more of 200"
    assert inside["without"] <= 180
