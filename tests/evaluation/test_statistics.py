"""Intervals against scipy, hand-computed values and simulated truth."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from accord.evaluation import statistics as st


@pytest.fixture
def values():
    return np.random.default_rng(3).exponential(size=80)


@pytest.mark.parametrize(("method", "scipys"), [("percentile", "percentile"), ("bca", "BCa")])
def test_bootstrap_agrees_with_scipy(values, method, scipys):
    ours = st.mean_interval(values, resamples=20_000, method=method)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method=scipys, rng=1).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.01)
    assert ours.n == 80


def test_bca_is_skewed_where_the_data_is(values):
    bca, plain = (st.mean_interval(values, resamples=20_000, method=m) for m in ("bca", "percentile"))
    assert bca.low > plain.low + 0.005
    assert bca.high > plain.high + 0.005


def test_expanded_is_wider_on_few_values_and_the_same_on_many(values):
    few = [st.mean_interval(values[:8], method=m) for m in ("expanded", "percentile")]
    assert few[0].high - few[0].low > 1.15 * (few[1].high - few[1].low)
    many = [st.mean_interval(np.tile(values, 20), method=m) for m in ("expanded", "percentile")]
    assert many[0].high - many[0].low == pytest.approx(many[1].high - many[1].low, rel=0.01)


def test_same_seed_same_interval_and_another_seed_another(values):
    assert st.mean_interval(values, seed=4) == st.mean_interval(values, seed=4)
    assert st.mean_interval(values, seed=4) != st.mean_interval(values, seed=5)


def test_clusters_are_drawn_whole():
    # Two clusters of equal values: a resample's mean is 0, ½ or 1 with probability ¼, ½, ¼.
    got = st.mean_interval([0.0] * 5 + [1.0] * 5, ["a"] * 5 + ["b"] * 5, method="percentile")
    assert (got.mean, got.low, got.high, got.n) == (0.5, 0.0, 1.0, 10)
    assert st.mean_interval([0.0] * 5 + [1.0] * 5, method="percentile").low > 0


def test_each_value_weighs_the_same_in_unequal_clusters():
    assert st.mean_interval([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]).mean == 2.0
    same = st.mean_interval([3.0] * 4, ["a", "a", "a", "b"])
    assert (same.low, same.high) == pytest.approx((3.0, 3.0))


def test_one_value_or_one_cluster_has_no_interval():
    for got in (st.mean_interval([2.0]), st.mean_interval([1.0, 3.0], ["a", "a"])):
        assert got.mean == 2.0
        assert math.isnan(got.low) and math.isnan(got.high)
        assert not got.above(-1) and not got.below(9)
        assert got.json()["low"] is None


def test_no_values_and_values_that_are_not_finite():
    assert st.mean_interval([]).n == 0
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        st.mean_interval([1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match="2 cluster keys for 3 values"):
        st.mean_interval([1.0, 2.0, 3.0], ["a", "b"])


def test_ten_thousand_resamples_of_a_thousand_values_are_quick(values):
    st.mean_interval(values)
    start = time.perf_counter()
    st.mean_interval(np.tile(values, 13)[:1000])
    assert time.perf_counter() - start < 1.5


def test_paired_difference_is_narrower_than_the_parts():
    rng = np.random.default_rng(0)
    prompt = rng.normal(size=200) * 3
    a, b = prompt + 0.5 + rng.normal(size=200) * 0.1, prompt + rng.normal(size=200) * 0.1
    got = st.paired_difference(a, b)
    assert got.mean == pytest.approx((a - b).mean())
    assert got.low > 0.45 and got.high < 0.55
    with pytest.raises(ValueError, match="same prompts"):
        st.paired_difference(a, b[:-1])


# Four simulations of the truth. 600 trials: the standard error of a coverage of .95 is .009.
TRIALS = 600


def covers(draw, interval, truth):
    rng = np.random.default_rng(11)
    got = [interval(draw(rng), trial) for trial in range(TRIALS)]
    return np.mean([i.low <= truth <= i.high for i in got])


@pytest.mark.parametrize(("n", "method"), [(60, "expanded"), (60, "percentile"), (60, "bca"), (12, "expanded")])
def test_g3_interval_covers_the_truth_95_percent_of_the_time(n, method):
    coverage = covers(
        lambda rng: rng.normal(size=n),
        lambda v, i: st.mean_interval(v, seed=i, resamples=1000, method=method),
        0.0,
    )
    assert 0.92 <= coverage <= 0.98


def test_g3_clustered_interval_covers_and_the_unclustered_one_does_not():
    keys = np.repeat(np.arange(40), 5).tolist()

    def draw(rng):
        return np.repeat(rng.normal(size=40), 5) + 0.3 * rng.normal(size=200)

    clustered = covers(draw, lambda v, i: st.mean_interval(v, keys, seed=i, resamples=500), 0.0)
    naive = covers(draw, lambda v, i: st.mean_interval(v, seed=i, resamples=500), 0.0)
    assert 0.92 <= clustered <= 0.98
    assert naive < 0.75


def test_g3_few_seeds_cover_as_the_module_says():
    three = covers(lambda rng: rng.normal(size=3), lambda v, i: st.mean_interval(v, seed=i, resamples=500), 0.0)
    assert 0.65 <= three <= 0.85


def test_g3_hierarchical_interval_covers_with_many_seeds():
    def draw(rng):
        return rng.normal(size=(25, 1)) * 0.5 + rng.normal(size=(25, 12))

    assert 0.91 <= covers(draw, lambda v, i: st.hierarchical_interval(v, seed=i, resamples=400), 0.0) <= 0.99


def test_hierarchical_interval_sees_the_spread_between_seeds():
    rng = np.random.default_rng(1)
    seeds = [rng.normal(size=200) * 0.1 + mean for mean in (0.0, 1.0, 2.0)]
    nested = st.hierarchical_interval(seeds)
    assert nested.mean == pytest.approx(np.mean([s.mean() for s in seeds]))
    assert nested.low < 0.1 and nested.high > 1.9 and nested.n == 600
    pooled = st.mean_interval(np.concatenate(seeds))
    assert nested.high - nested.low > 5 * (pooled.high - pooled.low)


def test_hierarchical_interval_weighs_seeds_not_values():
    assert st.hierarchical_interval([[1.0] * 9, [3.0]]).mean == 2.0


def test_crossed_prompts_are_drawn_for_all_seeds_at_once():
    # Only the prompts differ: nested draws average that away over 20 seeds, crossed draws must not.
    prompts = np.random.default_rng(2).normal(size=50)
    table = [prompts] * 20
    crossed = st.hierarchical_interval(table, crossed=True, resamples=4000)
    single = st.mean_interval(prompts, method="percentile", resamples=4000)
    assert crossed.high - crossed.low == pytest.approx(single.high - single.low, rel=0.06)
    nested = st.hierarchical_interval(table, resamples=4000)
    assert nested.high - nested.low < 0.4 * (crossed.high - crossed.low)
    with pytest.raises(ValueError, match="same prompts"):
        st.hierarchical_interval([[1.0], [1.0, 2.0]], crossed=True)


def test_wilson_by_hand_and_at_the_edges():
    # Newcombe 1998, table I: 81 of 263 gives .2553 to .3662.
    got = st.wilson(81, 263)
    assert (round(got.low, 4), round(got.high, 4)) == (0.2553, 0.3662)
    theirs = stats.binomtest(0, 20).proportion_ci(method="wilson")
    zero = st.wilson(0, 20)
    assert (zero.mean, zero.low) == (0.0, 0.0)
    assert zero.high == pytest.approx(theirs.high)
    assert st.wilson(20, 20).high == 1.0
    assert math.isnan(st.wilson(0, 0).mean)
    with pytest.raises(ValueError):
        st.wilson(3, 2)


def test_share_interval_has_width_where_all_agree():
    assert st.share_interval([0, 0, 0, 0]) == st.wilson(0, 4)
    clustered = st.share_interval([0, 0, 0, 0], ["a", "a", "b", "b"])
    assert clustered.high == st.wilson(0, 2).high and clustered.n == 4
    assert st.share_interval([1, 0, 1, 1], ["a", "a", "b", "b"]).mean == 0.75
    with pytest.raises(ValueError, match="0 or 1"):
        st.share_interval([0.2])


def test_b5_a_tie_is_half_a_win_and_reported_apart():
    got = st.win_rate([1.0, 2.0, 3.0, 0.0], [1.0, 1.0, 3.0, 5.0])
    assert (got.wins, got.ties, got.losses) == (1, 2, 1)
    assert (got.rate.mean, got.tie_rate) == (0.5, 0.5)
    assert st.pair_outcomes([0.2, -0.3, 0.05], ties_within=0.1).tolist() == [1.0, 0.0, 0.5]


def test_a_win_rate_without_losses_is_not_certain():
    assert st.win_rate([1.0] * 10, [0.0] * 10).rate.low == pytest.approx(st.wilson(10, 10).low)


def test_r_squared_by_hand_and_against_scipy():
    # y = 1, 2, 2 on x = 0, 1, 2: slope ½, residuals -1/6, 1/3, -1/6, so R² = 1 - (1/6) / (2/3).
    assert st.r_squared([0, 1, 2], [1, 2, 2]) == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = 2 * x + rng.normal(size=50)
    assert st.r_squared(x, y) == pytest.approx(stats.linregress(x, y).rvalue ** 2)
    assert st.r_squared(x + 1e6, y - 1e6) == pytest.approx(stats.linregress(x, y).rvalue ** 2, abs=1e-6)
    assert math.isnan(st.r_squared([1, 1, 1], [1, 2, 3]))


def test_r2_difference_tells_root_from_line():
    rng = np.random.default_rng(5)
    kl = np.linspace(0.05, 4, 40)
    reward = np.sqrt(kl) + 0.02 * rng.normal(size=40)
    got = st.r2_difference_interval(np.sqrt(kl), kl, reward)
    assert got.mean == pytest.approx(st.r_squared(np.sqrt(kl), reward) - st.r_squared(kl, reward))
    assert 0 < got.low < got.mean < got.high
    assert st.r2_difference_interval(kl, kl, reward).high == 0.0
    with pytest.raises(ValueError, match="at least 3"):
        st.r2_difference_interval([1, 2], [1, 2], [1, 2])
