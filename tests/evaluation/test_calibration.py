"""Calibration against scikit-learn, hand-computed values and planted truth."""

import json
import math

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from accord.evaluation import calibration as cal
from accord.evaluation.statistics import (
    bootstrap,
    pair_outcomes,
    percentile_tail,
    resample_weights,
    share_interval,
    wilson,
)
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


def test_bins_in_full_by_hand():
    """Of (0.5, 1) cut in two: .5, .6 and .75 in the lower, .8 and .95 in the upper, right in 2 of 3 and in 1½ of 2."""
    low, high = cal.reliability_bins([0.95, 0.5, 0.75, 0.6, 0.8], [1, 1, 0, 1, 0.5], 2, "width", (0.5, 1.0))
    for found, confidence, right, n in ((low, 1.85 / 3, 2, 3), (high, 1.75 / 2, 1.5, 2)):
        share = wilson(right, n)
        assert (found.confidence, found.accuracy, found.n) == (pytest.approx(confidence), right / n, n)
        assert (found.low, found.high) == (share.low, share.high)
        assert found.json() == {
            "confidence": found.confidence, "accuracy": right / n, "low": share.low, "high": share.high, "n": n,
        }  # fmt: skip
    assert cal.mass_edges([4.0, 1.0, 2.0], 2).tolist() == [1.0, 2.0, 4.0]
    assert len(cal.reliability_bins([0.5, 0.5 + 4e-13], [1, 0], 2)) == 1
    assert len(cal.reliability_bins([0.5, 0.5 + 4e-12], [1, 0], 2)) == 2
    assert cal.reliability_bins([], []) == [] and math.isnan(cal.brier([], [])) and math.isnan(cal.log_loss([], []))


@pytest.mark.parametrize("clusters", [None, list("aabbccddab")])
def test_the_interval_of_a_calibration_error_by_hand(clusters):
    """The bootstrap's, centred, of Σ |right − confidence| by bin over n; carried over to the logarithm."""
    p, y = [0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.7, 0.8, 0.9, 0.95], [0, 1, 0, 0, 1, 0, 1, 0.5, 1, 1]
    lower = np.array(p) < 0.5

    def gap(w):
        apart = w * (np.array(y) - p)
        return (np.abs(apart[:, lower].sum(1)) + np.abs(apart[:, ~lower].sum(1))) / w.sum(1)

    drawn = {"clusters": clusters, "resamples": 90, "seed": 3}
    plain = bootstrap(gap, 10, centred=True, **drawn)
    found = cal.ece_interval(p, y, [0.0, 0.5, 1.0], clusters, resamples=90, seed=3)
    reach = math.exp((plain.high - plain.mean) / plain.mean)
    assert found.mean == pytest.approx((0.05 + 0.15) / 10) and found.n == 10
    assert (found.low, found.high) == pytest.approx((found.mean / reach, min(found.mean * reach, 1)))
    many = cal.ece_interval(p * 9, y * 9, [0.0, 0.5, 1.0])
    assert many == cal.ece_interval(p * 9, y * 9, [0.0, 0.5, 1.0], None, resamples=2000, seed=0)
    assert many.low < many.mean < many.high < 1


def test_a_calibration_error_of_nothing_reaches_from_none_to_all():
    """A gap of a millionth with deviations far above it, and none at all."""
    p, y = np.full(40, 0.750001), np.repeat([1, 0], [30, 10])
    found = cal.ece_interval(p, y, [0.0, 1.0], resamples=100)
    assert found.mean == pytest.approx(1e-6, rel=1e-4) and 0 <= found.low < 1e-300 and found.high == 1
    none = cal.ece_interval([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], [0.0, 1.0], resamples=100)
    assert (none.mean, none.low) == (0, 0) and 0 < none.high < 1


def likeliest(z, w, y=None):
    """The b of Σ w (y log σ(bz) + (1 − y) log σ(−bz)) whose derivative is 0, between bounds that hold it."""
    y = np.ones_like(z) if y is None else y
    reach = 500 / np.abs(z).max()
    return optimize.brentq(lambda b: float(w @ (z * (y - expit(b * z)))), -reach, reach, xtol=1e-300, rtol=1e-14)


def test_a_slope_through_zero_by_its_root():
    for logits, said in (
        ([1.0, 2.0, 3.0], [1, 1, 0]),
        ([2.0, -1.0, 0.5], [1, 0.5, 1]),  # a tie away from 0 holds the slope of verdicts that are always right
        ([0.3, -0.2, 0.7, -1.1], [0, 1, 0, 1]),
    ):
        found = cal.reliability_slope(logits, said, intercept=False)
        if said[-2:] != [0, 1]:
            assert found.slope == pytest.approx(likeliest(np.array(logits), np.ones(3), np.array(said)), rel=1e-5)
        else:
            assert found.slope == -math.inf, "always wrong"
        assert found.intercept == 0
    assert cal.reliability_slope([0.2, 0.1, -0.1], [1, 1, 0], intercept=False) == (math.inf, 0)
    assert cal.reliability_slope([-2.0, -3.0], [1, 1], intercept=False) == (-math.inf, 0)
    for nothing in ([], [0.0, 0.0]):
        slope, intercept = cal.reliability_slope(nothing, np.ones(len(nothing)), intercept=False)
        assert math.isnan(slope) and intercept == 0 and math.isnan(cal.fit_temperature(nothing, np.ones(len(nothing))))


def test_a_slope_with_an_intercept_needs_both_outcomes_and_logits_that_differ():
    for logits, said in (([], []), ([1.0], [1]), ([0.5, 0.5, 0.5], [0, 1, 0]), ([1.0, 2.0], [1, 1])):
        assert all(math.isnan(value) for value in cal.reliability_slope(logits, said))
    for logits, said, slope in (([-1.0, 1.0], [0, 1], math.inf), ([0.2, 0.9, 0.4], [0, 1, 1], math.inf),
                                ([0.4, 0.9, 0.4], [1, 0, 0.5], -math.inf)):  # fmt: skip
        found = cal.reliability_slope(logits, said)
        assert found.slope == slope and math.isnan(found.intercept)
    z, y = np.array([0.0, 0.4, 0.7, 1.0]), np.array([0, 1, 0.5, 0.5])
    found = cal.reliability_slope(z, y)
    away = y - expit(found.intercept + found.slope * z)
    assert (away.sum(), away @ z) == pytest.approx((0, 0), abs=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6])
@pytest.mark.parametrize(
    "margins",
    [[3.0, 2.0, 4.0, 5.0, -0.01], [-3.0, -2.0, -4.0, 0.02, -0.5, 0.3], [0.5, -0.4, 0.3, -0.2, 0.1, 1.5, -1.0]],
    ids=["nearly always right", "nearly always wrong", "about a coin"],
)
def test_slopes_of_resamples_by_their_roots(margins, scale):
    z = scale * np.array(margins)
    found = cal.calibration_intervals(z, resamples=60, seed=2)["slope"]
    assert found.mean == pytest.approx(likeliest(z, np.ones(z.size)), rel=1e-9)
    (weights,) = resample_weights(z.size, 60, 2)
    drawn = [likeliest(z, w) for w in weights if w @ (z > 0) and w @ (z < 0)]
    tail = percentile_tail(z.size)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, (tail, 1 - tail)), rel=1e-9)
    alone = [cal._slopes(z)(w[None])[0] for w in weights if w @ (z > 0) and w @ (z < 0)]
    assert alone == pytest.approx(drawn, rel=1e-9, abs=1e-12 / scale), "each by itself as all together"


def test_every_number_of_a_calibration_by_hand():
    margins = np.array([2.0, -1.0, 0.0, 0.5, 1.5, -0.25, 3.0, 0.75])
    right, p = (margins > 0) + 0.5 * (margins == 0), 1 / (1 + np.exp(-np.abs(margins)))
    keys = list("aabbccdd")
    found = cal.preference_calibration(margins, 2, keys)
    assert (found.n, found.tie_rate, found.accuracy) == (8, 1 / 8, share_interval(right, keys))
    assert found.bins == tuple(cal.reliability_bins(p, right, 2)) and len(found.bins) == 2
    assert found.ece == pytest.approx(
        sum(abs((right - p)[np.isin(p, half)].sum()) for half in np.sort(p).reshape(2, 4)) / 8
    )
    upper = p > 0.75
    assert found.ece_width == pytest.approx((abs((right - p)[upper].sum()) + abs((right - p)[~upper].sum())) / 8)
    assert found.brier == pytest.approx(np.mean(right * (1 - p) ** 2 + (1 - right) * p**2))
    assert found.log_loss == pytest.approx(-np.mean(right * np.log(p) + (1 - right) * np.log(1 - p)))
    assert found.slope == pytest.approx(likeliest(margins, np.ones(8)), rel=1e-5)
    plain = found.json()
    assert plain.pop("bins") == [b.json() for b in found.bins]
    assert plain.pop("accuracy_interval") == found.accuracy.json() and plain.pop("accuracy") == found.accuracy.mean
    assert plain == {name: getattr(found, name) for name in plain} and "temperature" in plain and plain["n"] == 8
    assert len(cal.preference_calibration(planted(300)).bins) == 10


def test_every_interval_of_a_calibration_is_of_its_own_number():
    margins, keys = planted(60, seed=4), [f"p{i // 2}" for i in range(60)]
    right, p = pair_outcomes(margins), expit(np.abs(margins))
    drawn = {"clusters": keys, "resamples": 50, "seed": 6}
    found = cal.calibration_intervals(margins, 4, keys, resamples=50, seed=6)
    assert found["ece"] == cal.ece_interval(p, right, np.quantile(p, np.linspace(0, 1, 5)), **drawn)
    assert found["ece_width"] == cal.ece_interval(p, right, np.linspace(0.5, 1, 5), **drawn)
    for name, each in (("brier", (p - right) ** 2), ("log_loss", -np.log(np.where(right > 0, p, 1 - p)))):
        plain = bootstrap(lambda w, each=each: w @ each / w.sum(1), 60, **drawn)
        assert (found[name].mean, found[name].low, found[name].high) == pytest.approx(
            (plain.mean, plain.low, plain.high)
        )
    slope, elo = found["slope"], found["elo_per_point"]
    points = 400 / math.log(10)
    assert (elo.mean, elo.low, elo.high) == pytest.approx(
        (points * slope.mean, points * slope.low, points * slope.high)
    )
    assert elo.n == slope.n == 60
    few = margins[:12]
    assert cal.calibration_intervals(few) == cal.calibration_intervals(few, 10, None, resamples=2000, seed=0)


FIRST = [name for name in (f"c{i}" for i in range(40)) if unit_hash(f"calibration {name}") < 0.5][:6]
SECOND = [name for name in (f"c{i}" for i in range(40)) if unit_hash(f"calibration {name}") >= 0.5][:6]


@pytest.mark.parametrize(
    ("others", "temperature"),
    [
        ([2.0, 3.0, -1.0, 2.5, 4.0, -0.5], None),
        ([0.3, 0.2, -0.4, 0.25, 0.5, 0.1], None),  # a temperature below 1
        ([1.0, 2.0, 3.0, 1.0, 2.0, 3.0], 1.0),  # always right: 0
        ([1.0, -2.0, -3.0, 1.0, -2.0, -3.0], 1.0),  # worse than chance: infinite
    ],
)
def test_margins_are_divided_by_the_temperature_of_the_other_half(others, temperature):
    own = [1.0, 0.7, -0.6, 2.0, -3.0, 1.5]
    mixed = np.array([value for pair in zip(own, others, strict=True) for value in pair])
    clusters = [name for pair in zip(FIRST, SECOND, strict=True) for name in pair]
    of_own = 1 / likeliest(np.array(own), np.ones(6))
    of_others = temperature or 1 / likeliest(np.array(others), np.ones(6))
    found, temperatures = cal.refitted(mixed, clusters)
    assert temperatures == pytest.approx((of_others, of_own), rel=1e-5)
    assert found[::2] == pytest.approx(np.array(own) / of_others, rel=1e-5)
    assert found[1::2] == pytest.approx(np.array(others) / of_own, rel=1e-5)


@pytest.mark.parametrize("clusters", [FIRST, SECOND], ids=["first", "second"])
def test_what_is_all_in_one_half_keeps_its_margins(clusters):
    margins = np.array([2.0, 3.0, -1.0, 2.5, 4.0, -0.5])
    fitted = 1 / likeliest(margins, np.ones(6))
    found, temperatures = cal.refitted(margins, clusters)
    assert np.array_equal(found, margins)
    assert temperatures == pytest.approx((1.0, fitted) if clusters is FIRST else (fitted, 1.0), rel=1e-5)
    assert np.array_equal(cal.refitted_isotonic(margins, clusters), margins)


def test_an_isotonic_map_by_hand():
    """Right at 3 and 4, one of two at 1 and 2, which pool to a half: (y · 4 + ½) / 5 of a half and of 1."""
    found = cal.fit_isotonic([1.0, -2.0, 3.0, 4.0])
    assert found.margins == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert found.probabilities == pytest.approx((0.5, 0.5, 0.5, 0.9, 0.9))
    halfway = 0.7  # between 2 and 3
    assert found.logits([2.5, -2.5, -9.0, 1.5]) == pytest.approx(
        [math.log(halfway / (1 - halfway)), -math.log(halfway / (1 - halfway)), -math.log(9), 0]
    )


def test_a_curve_of_differences_by_hand():
    low, high = cal.difference_curve([0.5, -1.0, 2.0, -3.0, 1.5, 0.0], 2)
    for found, away, right in ((low, [0.5, 1.0, 0.0], 1.5), (high, [2.0, 3.0, 1.5], 2.0)):
        share = wilson(right, 3)
        expected = {"difference": sum(away) / 3, "expected": float(np.mean(expit(away))), "accuracy": right / 3}
        assert found == pytest.approx(expected | {"low": share.low, "high": share.high, "n": 3})
    assert len(cal.difference_curve(planted(200))) == 10


def test_a_row_of_confidences_lies_within_and_including_its_bounds():
    assert cal.brier([0.0, 1.0, 0.5], [0, 1, 0.5]) == pytest.approx(0.25 / 3)
    for p, y, why in (
        ([-0.01], [1], "confidences must lie"),
        ([[0.5]], [[1]], "beside"),
        ([0.5], [2], "outcomes must be"),
    ):
        with pytest.raises(ValueError, match=why):
            cal.brier(p, y)
