"""Calibration against scikit-learn, hand-computed values and planted truth."""

import json
import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from accord.evaluation import calibration as cal
from accord.evaluation.statistics import pair_outcomes, share_interval
from accord.records import unit_hash


def planted(n=4000, sharpness=1.0, seed=0):
    """Margins whose true probability of agreement is σ(margin / sharpness)."""
    rng = np.random.default_rng(seed)
    size = np.abs(rng.normal(size=n)) * 2
    agreed = rng.random(n) < 1 / (1 + np.exp(-size / sharpness))
    return np.where(agreed, size, -size)


@pytest.fixture
def predictions():
    rng = np.random.default_rng(1)
    p = rng.random(500)
    return p, (rng.random(500) < p**1.5).astype(float)


@pytest.mark.parametrize(("ours", "theirs"), [("mass", "quantile"), ("width", "uniform")])
def test_bins_agree_with_scikit_learn(predictions, ours, theirs):
    p, y = predictions
    bins = cal.reliability_bins(p, y, 8, ours)
    accuracy, confidence = calibration_curve(y, p, n_bins=8, strategy=theirs)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.confidence for b in bins] == pytest.approx(confidence)
    assert sum(b.n for b in bins) == 500
    assert all(b.low < b.accuracy < b.high for b in bins)


def test_equal_mass_bins_hold_equally_many_and_do_not_depend_on_order(predictions):
    p, y = predictions
    bins = cal.reliability_bins(p, y, 10)
    assert {b.n for b in bins} == {50}
    order = np.random.default_rng(0).permutation(p.size)
    shuffled = cal.reliability_bins(p[order], y[order], 10)
    assert [b.accuracy for b in shuffled] == pytest.approx([b.accuracy for b in bins])
    same = cal.reliability_bins([0.7] * 6, [1, 1, 1, 0, 0, 0], 3)
    assert [(b.accuracy, b.n) for b in same] == [(0.5, 6)]


def test_what_differs_by_rounding_alone_is_in_one_bin():
    """The last bit of a probability is another on another machine; it once parted right verdicts from wrong ones."""
    right, wrong = np.full(90, 0.75), np.full(30, np.nextafter(0.75, 1))
    p, y = np.concatenate([right, wrong]), np.repeat([1.0, 0.0], [90, 30])
    assert [b.n for b in cal.reliability_bins(p, y)] == [120]
    assert cal.ece_interval(p, y, cal.mass_edges(p, 10)).mean == pytest.approx(0, abs=1e-12)
    margins = np.where(y, 1, -1) * np.log(p / (1 - p))
    assert cal.preference_calibration(margins).ece == pytest.approx(0, abs=1e-9)
    assert cal.calibration_intervals(margins)["ece"].mean == pytest.approx(0, abs=1e-9)
    assert [b["n"] for b in cal.difference_curve(margins)] == [120]


def test_ece_by_hand():
    # Bins at .25 (2 of 4 right) and .75 (all 4 right): (4·|.5-.25| + 4·|1-.75|) / 8 = .25
    p = [0.25] * 4 + [0.75] * 4
    y = [1, 1, 0, 0, 1, 1, 1, 1]
    assert cal.expected_calibration_error(cal.reliability_bins(p, y, 2, "width")) == pytest.approx(0.25)
    # Unequal bins weigh by their counts: (1·.9 + 3·.1) / 4
    uneven = cal.reliability_bins([0.1, 0.9, 0.9, 0.9], [1, 1, 1, 1], 2, "width")
    assert cal.expected_calibration_error(uneven) == pytest.approx(0.3)
    assert math.isnan(cal.expected_calibration_error([]))


def test_brier_and_log_loss_agree_with_scikit_learn(predictions):
    p, y = predictions
    assert cal.brier(p, y) == pytest.approx(brier_score_loss(y, p))
    logits = np.log(p / (1 - p))
    assert cal.log_loss(logits, y) == pytest.approx(sklearn_log_loss(y, p))
    assert cal.log_loss([1e4, -1e4], [1, 1]) == pytest.approx(5000)


def test_a_judge_who_tosses_a_coin_has_the_brier_score_of_one():
    """A margin of 0 is right half of the time: said as ½ that is ¼, however the halves are counted."""
    undecided = [0.0] * 40
    assert cal.preference_calibration(undecided).brier == pytest.approx(0.25)
    assert cal.calibration_intervals(undecided, resamples=20)["brier"].mean == pytest.approx(0.25)
    some = cal.brier([0.5, 0.5, 0.9, 0.9], [0.5, 0.5, 1, 1])
    assert some == pytest.approx((2 * 0.25 + 2 * brier_score_loss([1], [0.9])) / 4)


def test_slope_agrees_with_scikit_learn(predictions):
    p, y = predictions
    logits = np.log(p / (1 - p))
    ours = cal.reliability_slope(logits, y)
    theirs = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(logits[:, None], y)
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], rel=1e-4)
    scaled = cal.reliability_slope(logits * 1000, y)
    assert scaled.slope == pytest.approx(ours.slope / 1000, rel=1e-4)
    through_zero = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000, fit_intercept=False).fit(logits[:, None], y)
    assert cal.reliability_slope(logits, y, intercept=False).slope == pytest.approx(through_zero.coef_[0, 0], rel=1e-4)


def test_slope_of_separable_data_is_infinite_and_of_no_data_unknown():
    assert cal.reliability_slope([-2.0, -1.0, 1.0, 3.0], [0, 0, 1, 1]).slope == math.inf
    assert cal.reliability_slope([-2.0, -1.0, 1.0, 3.0], [1, 1, 0, 0]).slope == -math.inf
    assert math.isnan(cal.reliability_slope([1.0, 2.0], [1, 1]).slope)
    assert cal.reliability_slope([1.0, -2.0], [1, 0], intercept=False).slope == math.inf
    assert cal.fit_temperature([1.0, -2.0], [1, 0]) == 0.0
    assert cal.fit_temperature([1.0, -2.0], [0, 1]) == math.inf


def test_a_planted_model_is_found_calibrated():
    got = cal.preference_calibration(planted(5000))
    assert got.slope == pytest.approx(1.0, abs=0.05)
    assert got.temperature == pytest.approx(1 / got.slope)
    assert got.ece < 0.02 and got.ece_width < 0.02
    assert got.n == 5000 and got.accuracy.low < got.accuracy.mean < got.accuracy.high
    assert all(0.5 <= b.confidence <= 1 for b in got.bins)


def test_an_over_confident_model_is_told_by_its_slope_and_mended_by_its_temperature():
    margins = planted(5000, sharpness=3.0)
    got = cal.preference_calibration(margins)
    assert got.slope == pytest.approx(1 / 3, abs=0.03)
    assert got.ece > 0.1
    mended = cal.preference_calibration(margins / got.temperature)
    assert mended.slope == pytest.approx(1.0, abs=1e-6)
    assert mended.ece < 0.02


def test_b5_ties_are_half_right_in_preference_accuracy():
    got = cal.preference_calibration([1.0, 0.0, 0.0, -1.0])
    assert (got.accuracy.mean, got.tie_rate) == (0.5, 0.5)


def test_b4_accuracy_does_not_depend_on_how_batches_were_cut():
    # 7 comparisons in batches of 3: the mean of per-batch means would be (2/3 + 1/3 + 0) / 3 = 1/3.
    margins = [1.0, 1.0, -1.0, 1.0, -1.0, -1.0, -1.0]
    assert cal.preference_calibration(margins).accuracy.mean == pytest.approx(3 / 7)
    prompts = list("aabbccd")
    found = cal.preference_calibration(margins, clusters=prompts).accuracy
    assert found == share_interval(pair_outcomes(margins), prompts)


def test_preference_calibration_goes_into_json_even_when_there_is_nothing():
    full = json.loads(json.dumps(cal.preference_calibration(planted(200)).json(), allow_nan=False))
    assert {"n", "accuracy", "ece", "tie_rate", "slope", "bins"} <= full.keys()
    assert {"confidence", "accuracy", "n"} <= full["bins"][0].keys()
    right = json.loads(json.dumps(cal.preference_calibration([1.0, 2.0]).json(), allow_nan=False))
    assert right["slope"] is None and right["accuracy"] == 1.0
    empty = json.loads(json.dumps(cal.preference_calibration([]).json(), allow_nan=False))
    assert empty["n"] == 0 and empty["ece"] is None and empty["bins"] == []


def test_bad_probabilities_and_outcomes_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        cal.brier([1.2], [1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        cal.brier([math.nan], [1])
    with pytest.raises(ValueError, match="outcomes"):
        cal.brier([0.2], [0.3])
    with pytest.raises(ValueError, match="beside"):
        cal.brier([0.2, 0.3], [1])


def test_an_isotonic_map_bends_where_one_temperature_cannot():
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.05, 4.0, 4000)
    truth = np.where(sizes < 2, 0.55, 0.9)  # no multiple of the margin is this
    margins = np.where(rng.random(4000) < truth, sizes, -sizes)
    clusters = [f"c{i}" for i in range(4000)]
    mapped = cal.refitted_isotonic(margins, clusters)
    assert (mapped * margins >= 0).all(), "no verdict turns"
    for low, high, share in ((0.2, 1.8, 0.55), (2.2, 3.8, 0.9)):
        inside = (sizes > low) & (sizes < high)
        assert np.mean(expit(np.abs(mapped[inside]))) == pytest.approx(share, abs=0.03)
    cooled, _ = cal.refitted(margins, clusters)
    errors = [cal.preference_calibration(m).ece for m in (mapped, cooled)]
    assert errors[0] < 0.03 < errors[1]


def test_an_isotonic_map_is_fitted_on_the_other_half_alone():
    margins, clusters = np.linspace(-1, 3, 60), [f"c{i}" for i in range(60)]
    before = cal.refitted_isotonic(margins, clusters)
    changed = margins.copy()
    changed[0] = 2.5
    after = cal.refitted_isotonic(changed, clusters)
    moved = [i for i in range(1, 60) if before[i] != after[i]]
    same_half = [i for i in range(60) if (unit_hash(f"calibration c{i}") < 0.5) == (unit_hash("calibration c0") < 0.5)]
    assert moved and not set(moved) & set(same_half)


def test_a_map_is_sure_of_nothing_and_says_a_half_of_nothing():
    always = cal.fit_isotonic([0.5, 1.0, 2.0])
    assert always.probabilities[0] == 0.5 and max(always.probabilities) == pytest.approx(3.5 / 4)
    assert always.logits([0.0])[0] == 0 and np.isfinite(always.logits([-1e9, 1e9])).all()
    assert (np.diff(cal.fit_isotonic([1.0, -2.0, 3.0, -0.5, 4.0]).probabilities) >= 0).all()
