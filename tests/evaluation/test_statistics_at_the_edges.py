"""Statistics of few, equal and extreme values, by hand: what is refused, and what lies just beside it."""

import math

import numpy as np
import pytest
from scipy import special, stats

from accord.evaluation import statistics as st


@pytest.mark.parametrize("outcome", [-0.01, 1.01])
def test_an_outcome_that_is_no_share_is_refused_on_either_side(outcome):
    assert st.paired_shares([0.0, 1.0], [1.0, 0.5]).mean == -0.25
    for a, b in (([0.5, outcome], [0.5, 0.5]), ([0.5, 0.5], [outcome, 0.5])):
        with pytest.raises(ValueError, match="a share needs outcomes between 0 and 1"):
            st.paired_shares(a, b)
    for refused in (
        lambda: st.share_interval([0.2, outcome]),
        lambda: st.nested_interval([[0.2, outcome], [0.1]], "share"),
    ):
        with pytest.raises(ValueError, match="a share needs outcomes between 0 and 1"):
            refused()
    assert st.nested_interval([[0.2, outcome], [0.1]]).sizes == (2, 1)
    with pytest.raises(ValueError, match=rf"a share lies in \[0, 1\], but the seeds have \[0.5, {outcome}\]"):
        st.interval_of_seeds([0.5, outcome], [4, 5], "share")
    with pytest.raises(ValueError, match=r"a r2 lies in \[-1, 1\], but the seeds have"):
        st.interval_of_seeds([0.5, outcome * 1.1 - (outcome < 0)], [4, 5], "r2")


def test_where_everybody_changed_both_ways_of_erring_add_up():
    """All of three rose: at most what Wilson leaves of those that rose, and of those that fell, together."""
    low = stats.binomtest(3, 3).proportion_ci(method="wilson").low
    up, down = st.paired_shares([1, 1, 1], [0, 0, 0]), st.paired_shares([0, 0, 0], [1, 1, 1])
    assert (up.low, up.mean, up.high, up.n) == pytest.approx((1 - 2 * (1 - low), 1, 1, 3))
    assert (down.low, down.mean, down.high) == pytest.approx((-1, -1, 2 * (1 - low) - 1))


def test_a_single_number_of_one_seed_has_no_interval_whatever_its_kind():
    for kind in ("mean", "share", "r2"):
        found = st.nested_interval([[0.4]], kind)
        assert found.mean == 0.4 and math.isnan(found.low) and math.isnan(found.high)
    one = st.nested_interval([[0.9, 0.8, 0.95]], "r2")
    assert math.isnan(one.low) and one.sizes == (3,), "an R² of one seed is no mean of outcomes"
    unknown = st.nested_interval([[0.9, math.nan]])
    assert math.isnan(unknown.mean) and math.isnan(unknown.low) and unknown.n == 2


@pytest.mark.parametrize("kind", ["mean", "share"])
def test_one_seeds_interval_says_what_it_was_computed_from(kind):
    found = st.nested_interval([[1.0, 0.0, 0.0, 1.0, 0.0]], kind, 0.8)
    inner = st.share_interval if kind == "share" else st.mean_interval
    plain = inner([1.0, 0.0, 0.0, 1.0, 0.0], level=0.8)
    assert (found.mean, found.low, found.high, found.n) == (plain.mean, plain.low, plain.high, 5)
    assert (found.kind, found.values, found.sizes) == (kind, (0.4,), (5,))


def test_a_table_is_no_seeds_outcomes():
    with pytest.raises(ValueError, match="from every seed"):
        st.nested_interval([[[1.0, 2.0]], [3.0]])


def test_seeds_at_another_level():
    values = [0.3, 0.5, 0.45]
    found, theirs = st.nested_interval(values, level=0.8), stats.ttest_1samp(values, 0).confidence_interval(0.8)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("unknown", [math.inf, math.nan])
@pytest.mark.parametrize("kind", ["mean", "share", "r2"])
def test_a_seed_without_a_number_leaves_the_bounds_unknown(kind, unknown):
    found = st.interval_of_seeds([0.3, unknown, 0.2], [10, 20, 30], kind)
    assert math.isnan(found.low) and math.isnan(found.high) and not math.isfinite(found.mean)
    assert found.n == 60


def test_seeds_of_unequal_size_agree_as_far_as_rounding_hides():
    """2 of 10, 4 of 20 and 8 of 40: the smallest deviation is √(Σ 1 / (12 · n²)) / 3, on the logit of 15 of 72."""
    found = st.interval_of_seeds([0.2] * 3, [10, 20, 40], "share")
    centre = 15 / 72
    error = math.sqrt((1 / 10**2 + 1 / 20**2 + 1 / 40**2) / 12) / 3
    reach = stats.t.ppf(0.975, 2) * error / (centre * (1 - centre))
    assert (found.low, found.high) == pytest.approx(
        tuple(special.expit(special.logit(centre) + reach * np.array([-1, 1])))
    )


def test_seeds_to_decide_go_beyond_those_there_are():
    values = [1.0, 1.2, 0.9, 1.1]
    assert st.seeds_to_decide(st.nested_interval(values), 100.0) == 5
    assert st.seeds_to_decide(st.nested_interval([0.4]), 0.1) is None
    found = st.seeds_to_decide(st.nested_interval(values), 1.0, level=0.8)
    assert found == next(
        n for n in range(5, 99) if stats.t.ppf(0.9, n - 1) * np.std(values, ddof=1) / math.sqrt(n) < 0.05
    )


def test_a_crossed_table_without_degrees_of_freedom_has_one():
    """Effects 3 of seeds, 4 of prompts and 5 of both make mean squares 36, 64 and 100, which add up to none."""
    found = st.crossed_interval([[22.0, 4.0], [6.0, 8.0]], level=0.8)
    half = stats.t.ppf(0.9, 1) * math.sqrt(100 / 4)
    assert (found.low, found.mean, found.high, found.n) == pytest.approx((10 - half, 10, 10 + half, 4))
    same = st.crossed_interval([[0.5] * 3] * 2)
    assert (same.low, same.mean, same.high, same.n) == (0.5, 0.5, 0.5, 6)
    for thin in ([[1.0, 2.0, 3.0]], [[1.0], [2.0], [3.0]]):
        found = st.crossed_interval(thin)
        assert (found.mean, found.n) == (2.0, 3) and math.isnan(found.low) and math.isnan(found.high)
    with pytest.raises(ValueError, match="same prompts"):
        st.crossed_interval([[], []])


def test_wilson_at_another_level_and_of_parts_of_outcomes():
    found, theirs = st.wilson(7, 12, 0.8), stats.binomtest(7, 12).proportion_ci(0.8, method="wilson")
    assert (found.low, found.mean, found.high, found.n) == pytest.approx((theirs.low, 7 / 12, theirs.high, 12))
    assert st.wilson(2.5, 5.6).n == 6 and st.wilson(2.5, 5.6).mean == 2.5 / 5.6
    assert (st.wilson(0, 0).n, st.wilson(5, 5).mean, st.wilson(0, 5).mean) == (0, 1.0, 0.0)
    for successes in (-1, 6):
        with pytest.raises(ValueError, match=f"{successes} successes of 5 trials"):
            st.wilson(successes, 5)


def test_one_outcome_has_an_interval_and_one_cluster_of_two_has_not():
    one, theirs = st.share_interval([1]), stats.binomtest(1, 1).proportion_ci(method="wilson")
    assert (one.low, one.high) == pytest.approx((theirs.low, 1))
    apart = st.share_interval([1, 0, 1, 1], ["a", "a", "b", "b"])
    assert 0 < apart.low < 0.75 < apart.high < 1, "two clusters have one"
    two = st.share_interval([1, 0], ["a", "a"])
    assert (two.mean, two.n) == (0.5, 2) and math.isnan(two.low) and math.isnan(two.high)


def test_what_clusters_are_worth_in_plain_sums():
    """Clusters of 1, 2 and 4: two of mean size 7/3 with successes alone and two with failures are added."""
    outcomes, keys = [1.0, 0.5, 0.0, 1.0, 1.0, 0.0, 1.0], list("abbcccc")
    size = 7 / 3
    p = (4.5 + 2 * size) / (7 + 4 * size)
    apart = [1 - p, 0.5 - 2 * p, 3 - 4 * p, *[size * (1 - p)] * 2, *[-size * p] * 2]
    worth = p * (1 - p) / (sum(a * a for a in apart) / (7 + 4 * size) ** 2) - 4
    assert st.effective_count(outcomes, keys) == pytest.approx(worth) and worth > 1
    assert st.effective_count([1, 1, 0, 1, 0]) == pytest.approx(5)
    assert st.effective_count([0] * 50 + [1] * 50, [*["a"] * 50, *range(50)]) == 1, "one is the least"
    for level in (0.95, 0.8):
        found, t = st.share_interval(outcomes, keys, level), stats.t.ppf((1 + level) / 2, 2)
        middle, n = (4.5 + t**2 * 7 / worth / 2) / (7 + t**2 * 7 / worth), worth + t**2
        half = t * math.sqrt(4.5 / 7 * 2.5 / 7 * worth + t**2 / 4) / n
        assert (found.low, found.high) == pytest.approx((middle - half, middle + half))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_an_interval_from_what_every_value_adds(level):
    """Clusters add .5, −.7 and .2 to seven times a share of .3; Student's t of three on the logit."""
    added, keys = [0.5, -0.4, -0.3, 0.1, 0.1, 0.3, -0.3], list("abbcccc")
    error = math.sqrt((0.5**2 + 0.7**2 + 0.2**2) * 3 / 2) / 7
    reach = stats.t.ppf((1 + level) / 2, 2) * error / (0.3 * 0.7)
    found = st.influence_interval(0.3, added, keys, level)
    bounds = special.expit(special.logit(0.3) + np.array([-reach, reach]))
    assert (found.low, found.mean, found.high, found.n) == pytest.approx((bounds[0], 0.3, bounds[1], 7))
    for share, clusters in ((0.0, keys), (1.0, keys), (0.3, ["a"] * 7)):
        found = st.influence_interval(share, added, clusters, level)
        assert (found.mean, found.n) == (share, 7) and math.isnan(found.low) and math.isnan(found.high)
    wild = st.influence_interval(0.3, [1e6, -1e6])
    assert (wild.low, wild.high) == pytest.approx((0, 1))


def test_margins_within_the_limit_tie_and_the_limit_itself_does():
    assert st.pair_outcomes([0.5, -0.5, 0.75, -0.75], ties_within=0.5).tolist() == [0.5, 0.5, 1.0, 0.0]
    assert st.pair_outcomes([0.0, 1e-9, -1e-9]).tolist() == [0.5, 1.0, 0.0]


def test_what_does_not_vary_has_no_r_squared():
    assert st.r_squared([1, 2], [3, 5]) == pytest.approx(1)
    for x, y in (([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])):
        assert math.isnan(st.r_squared(x, y))


def test_a_falling_functions_root_or_the_nearest_end():
    assert st.root_of_falling(lambda x: 2 - x**3, 1.0, 5.0) == pytest.approx(2 ** (1 / 3), abs=1e-12)
    assert st.root_of_falling(lambda x: 1 - 0 * x, 1.0, 5.0) == pytest.approx(5)
    assert st.root_of_falling(lambda x: -1 - x, 1.0, 5.0) == pytest.approx(1)
