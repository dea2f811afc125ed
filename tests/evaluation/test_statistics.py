"""Intervals against scipy, hand-computed values and simulated truth."""

import json
import math

import numpy as np
import pytest
from scipy import special, stats

from accord.evaluation import statistics as st


@pytest.fixture
def values():
    return np.random.default_rng(3).exponential(size=80)


@pytest.mark.parametrize("n", [6, 80])
def test_the_bootstrap_is_scipys_further_out(n):
    """Percentiles at the tails that Student's t and sqrt(n / (n - 1)) ask for (Hesterberg 2015)."""
    values = np.random.default_rng(3).exponential(size=n)
    level = 1 - 2 * stats.norm.sf(stats.t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1)))
    ours = st.mean_interval(values, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=level, method="percentile", rng=1
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.15 / math.sqrt(n))
    assert ours.n == n


def test_same_seed_same_interval_and_another_seed_another(values):
    assert st.mean_interval(values, seed=4) == st.mean_interval(values, seed=4)
    assert st.mean_interval(values, seed=4) != st.mean_interval(values, seed=5)


def test_clusters_are_drawn_whole():
    # Two clusters of equal values: a resample's mean is 0, ½ or 1 with probability ¼, ½, ¼.
    got = st.mean_interval([0.0] * 5 + [1.0] * 5, ["a"] * 5 + ["b"] * 5)
    assert (got.mean, got.low, got.high, got.n) == (0.5, 0.0, 1.0, 10)
    assert st.mean_interval([0.0] * 5 + [1.0] * 5).low > 0


def test_each_value_weighs_the_same_in_unequal_clusters():
    assert st.mean_interval([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]).mean == 2.0
    same = st.mean_interval([3.0] * 4, ["a", "a", "a", "b"])
    assert (same.low, same.high) == pytest.approx((3.0, 3.0))


def test_one_value_or_one_cluster_has_no_interval():
    for got in (st.mean_interval([2.0]), st.mean_interval([1.0, 3.0], ["a", "a"])):
        assert got.mean == 2.0
        assert math.isnan(got.low) and math.isnan(got.high)
        assert got.side_of(-1) == got.side_of(9) == "undecided"
        assert got.json()["low"] is None


def test_no_values_and_values_that_are_not_finite():
    assert st.mean_interval([]).n == 0
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        st.mean_interval([1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match="2 cluster keys for 3 values"):
        st.mean_interval([1.0, 2.0, 3.0], ["a", "b"])


def test_paired_difference_is_narrower_than_the_parts():
    rng = np.random.default_rng(0)
    prompt = rng.normal(size=200) * 3
    a, b = prompt + 0.5 + rng.normal(size=200) * 0.1, prompt + rng.normal(size=200) * 0.1
    got = st.paired_difference(a, b)
    assert got.mean == pytest.approx((a - b).mean())
    assert got.low > 0.45 and got.high < 0.55
    with pytest.raises(ValueError, match="same prompts"):
        st.paired_difference(a, b[:-1])


def test_seeds_have_students_t_over_their_own_means():
    rng = np.random.default_rng(1)
    seeds = [rng.normal(size=200) * 0.1 + mean for mean in (0.0, 1.0, 2.0)]
    got = st.nested_interval(seeds)
    means = [seed.mean() for seed in seeds]
    theirs = stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    assert (got.low, got.mean, got.high) == pytest.approx((theirs.low, np.mean(means), theirs.high))
    assert got.n == 600 and got.sizes == (200, 200, 200) and got.values == pytest.approx(means)
    assert st.nested_interval(means).low == pytest.approx(got.low), "a number stands for its outcomes"


def test_seeds_weigh_the_same_whatever_they_hold():
    assert st.nested_interval([[1.0] * 9, [3.0]]).mean == 2.0


def test_a_nested_interval_follows_from_the_values_that_are_saved():
    rng = np.random.default_rng(0)
    for kind, groups in (
        ("mean", rng.normal(size=(4, 30))),
        ("share", rng.random((5, 40)) < 0.1),
        ("r2", 1 - rng.random(6) / 5),
    ):
        saved = json.loads(json.dumps(st.nested_interval(list(groups), kind).json()))
        again = st.interval_of_seeds(saved["values"], saved["sizes"], saved["kind"])
        assert again.json() == saved


def test_a_share_of_seeds_by_the_delta_method_on_the_logit():
    """With the derivative of the logit by finite differences; one success and one failure are added to 300."""
    groups = [np.repeat([1, 0], [k, 100 - k]) for k in (4, 10, 7)]
    got = st.nested_interval(groups, "share")
    centre, step = (21 + 1) / 302, 1e-6
    slope = (special.logit(centre + step) - special.logit(centre - step)) / (2 * step)
    half = stats.t.ppf(0.975, 2) * np.std([0.04, 0.1, 0.07], ddof=1) / math.sqrt(3) * slope
    assert got.mean == pytest.approx(0.07)
    assert (got.low, got.high) == pytest.approx(tuple(special.expit(special.logit(centre) + half * np.array([-1, 1]))))


def test_an_r2_of_seeds_by_the_delta_method_on_the_inverse_cube_root():
    got = st.nested_interval([0.9, 0.95, 0.8], "r2")
    mean, step = np.mean([0.9, 0.95, 0.8]), 1e-6
    slope = (np.cbrt(1 - mean - step) ** -1 - np.cbrt(1 - mean + step) ** -1) / (2 * step)
    half = stats.t.ppf(0.975, 2) * np.std([0.9, 0.95, 0.8], ddof=1) / math.sqrt(3) * slope
    ends = 1 - (np.cbrt(1 - mean) ** -1 + half * np.array([-1, 1])) ** -3
    assert (got.low, got.high) == pytest.approx(tuple(ends))
    assert st.nested_interval([0.999, 0.1, 0.9], "r2").low == -1.0, "nothing is known of the lower end"
    assert st.nested_interval([1.0, 1.0], "r2").low == 1.0


@pytest.mark.parametrize("outcome", [0.0, 1.0, 0.5])
def test_seeds_that_agree_on_a_share_are_not_certain(outcome):
    got = st.nested_interval([[outcome] * 30] * 3, "share")
    assert got.mean == outcome and 0.01 < got.high - got.low < 0.3
    assert got.low <= outcome <= got.high


def test_one_seed_has_the_interval_of_its_prompts():
    prompts = np.random.default_rng(2).random(30) < 0.2
    assert st.nested_interval([prompts], "share").high == st.share_interval(prompts).high
    assert st.nested_interval([prompts]).high == st.mean_interval(prompts).high
    assert math.isnan(st.nested_interval([0.4]).low) and math.isnan(st.nested_interval([0.4], "r2").low)


def test_seeds_without_a_number_and_numbers_that_cannot_be():
    got = st.nested_interval([0.3, math.nan, 0.2])
    assert math.isnan(got.mean) and math.isnan(got.low) and got.json()["values"] == [0.3, None, 0.2]
    with pytest.raises(ValueError, match="from every seed"):
        st.nested_interval([[1.0], []])
    with pytest.raises(ValueError, match="from every seed"):
        st.nested_interval([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        st.nested_interval([[0.2, 1.2], [0.1]], "share")
    with pytest.raises(ValueError, match=r"r2 lies in \[-1, 1\]"):
        st.nested_interval([0.2, 1.2], "r2")


@pytest.mark.parametrize(
    ("values", "bound"), [([0.1, 0.4, -0.2], 0.0), ([1.0, 1.2, 0.9, 1.1], 1.2), ([3.0, 5.0], -2.0)]
)
def test_the_seeds_that_would_decide_are_the_first_that_do(values, bound):
    n = st.seeds_to_decide(st.nested_interval(values), bound)
    mean, deviation = np.mean(values), np.std(values, ddof=1)

    def outside(seeds):
        return stats.t.ppf(0.975, seeds - 1) * deviation / math.sqrt(seeds) < abs(mean - bound)

    assert n == next(seeds for seeds in range(len(values) + 1, 10_000) if outside(seeds))
    assert st.seeds_to_decide(st.nested_interval([1.0, 3.0]), 2.0) is None


def test_a_crossed_interval_is_that_of_the_two_way_table():
    """Mean squares by scipy's one-way analyses of the rows and of the columns."""
    table = np.random.default_rng(2).normal(size=(4, 9)) + np.arange(4)[:, None] + 3 * np.arange(9)
    got = st.crossed_interval(table)
    total = ((table - table.mean()) ** 2).sum()
    rows, columns = (9 * table.mean(1).var() * 4, 4 * table.mean(0).var() * 9)
    within = (total - rows) / 32
    assert rows / 3 / within == pytest.approx(stats.f_oneway(*table).statistic)
    rest = (total - rows - columns) / 24
    variance = rows / 3 + columns / 8 - rest
    degrees = variance**2 / ((rows / 3) ** 2 / 3 + (columns / 8) ** 2 / 8 + rest**2 / 24)
    assert got.high - got.mean == pytest.approx(stats.t.ppf(0.975, degrees) * math.sqrt(variance / 36))
    with pytest.raises(ValueError, match="same prompts"):
        st.crossed_interval([1.0, 2.0])
    assert math.isnan(st.crossed_interval([[1.0, 2.0]]).low)


def test_crossed_prompts_do_not_average_away_over_seeds():
    prompts = np.random.default_rng(2).normal(size=50)
    crossed = st.crossed_interval([prompts] * 20)
    single = stats.ttest_1samp(prompts, 0.0).confidence_interval(0.95)
    assert (crossed.low, crossed.high) == pytest.approx((single.low, single.high))


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


@pytest.mark.parametrize("successes", [0, 1, 13, 30])
def test_yes_and_no_have_wilsons_interval(successes):
    got = st.share_interval(np.repeat([1, 0], [successes, 30 - successes]))
    theirs = stats.binomtest(successes, 30).proportion_ci(method="wilson")
    assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert got.mean == successes / 30 and got.n == 30


def test_none_of_thirty_is_not_none():
    assert st.share_interval([0] * 30).high == pytest.approx(0.11, abs=0.005)


def test_clusters_that_all_agree_count_once_each():
    got = st.share_interval([0] * 60, np.repeat(np.arange(12), 5).tolist())
    shift = stats.t.ppf(0.975, 11) ** 2 / 12
    assert got.high == pytest.approx(shift / (1 + shift)) and got.n == 60
    split = st.share_interval([0, 1] * 30, np.repeat(np.arange(12), 5).tolist())
    assert split.high - split.low < 0.7 * (st.wilson(6, 12).high - st.wilson(6, 12).low), (
        "where clusters hold both, their outcomes count"
    )


def test_ties_alone_are_not_certain():
    """None of 30 was decided, so at most Wilson's .11 of all are, and the rate lies within half of that of 1/2."""
    got = st.win_rate([1.0] * 30, [1.0] * 30)
    reach = stats.binomtest(0, 30).proportion_ci(method="wilson").high / 2
    assert got.rate.mean == 0.5 and got.tie_rate == 1.0
    assert (got.rate.low, got.rate.high) == pytest.approx((0.5 - reach, 0.5 + reach), abs=0.005)


def test_shares_of_nothing_of_one_cluster_and_beyond_one():
    assert st.share_interval([]).n == 0 and math.isnan(st.share_interval([]).low)
    assert math.isnan(st.share_interval([1, 0], ["a", "a"]).low)
    assert st.share_interval([1, 0, 1, 1], ["a", "a", "b", "b"]).mean == 0.75
    with pytest.raises(ValueError, match="between 0 and 1"):
        st.share_interval([1.2])


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


def test_seeds_that_agree_are_as_wide_as_what_rounding_hides():
    """3 of 30 at each of four seeds: a share's own error is at least that of a uniform within one outcome."""
    found = st.interval_of_seeds([0.1] * 4, [30] * 4, "share")
    centre = (12 + 1) / (120 + 2)
    reach = stats.t.ppf(0.975, 3) * math.sqrt(4 / (12 * 30**2)) / 4 / (centre * (1 - centre))
    middle = math.log(centre / (1 - centre))
    assert (found.low, found.high) == pytest.approx(
        [1 / (1 + math.exp(-(middle + side * reach))) for side in (-1, 1)], rel=1e-9
    )


def test_what_is_saved_of_an_interval_of_seeds_and_of_a_win_rate():
    seeds = st.Nested(0.5, math.nan, 0.75, 9, "share", (0.25, math.inf), (4, 5))
    assert seeds.json() == {
        "mean": 0.5, "low": None, "high": 0.75, "n": 9, "kind": "share", "values": [0.25, None], "sizes": [4, 5],
    }  # fmt: skip
    won = st.win_rate([1.0, 2.0, 3.0, 0.0, 9.0], [1.0, 1.0, 3.0, 5.0, 1.0], level=0.8)
    assert won.rate == st.share_interval([0.5, 1, 0.5, 0, 1], level=0.8)
    assert won.json() == won.rate.json() | {"tie_rate": 0.4, "wins": 2, "ties": 2, "losses": 1}
    keys = ["a", "a", "b", "b", "c"]
    clustered = st.win_rate([1.0, 2.0, 3.0, 0.0, 9.0], [1.0, 1.0, 3.0, 5.0, 1.0], keys, ties_within=2.0)
    assert (clustered.wins, clustered.ties, clustered.losses) == (1, 3, 1)
    assert clustered.rate == st.share_interval([0.5, 0.5, 0.5, 0, 1], keys)
    nothing = st.win_rate([], [])
    assert (nothing.wins, nothing.ties, nothing.losses, nothing.rate.n) == (0, 0, 0, 0)
    assert math.isnan(nothing.tie_rate)


@pytest.mark.parametrize(
    ("bound", "side", "verdict"),
    [(0.1, "above", "not met"), (0.2, "undecided", "not decided"), (0.5, "undecided", "not decided"),
     (0.8, "undecided", "not decided"), (0.9, "below", "met")],
)  # fmt: skip
def test_a_bound_that_an_interval_holds_or_touches_is_not_decided(bound, side, verdict):
    cost = st.Interval(0.4, 0.2, 0.8, 7)
    assert (cost.side_of(bound), st.limit_verdict(cost, bound)) == (side, verdict)


def test_resamples_are_rows_of_counts_in_blocks_that_fit():
    (whole,) = st.resample_weights(4, 6, 9)
    index = np.random.default_rng(9).integers(0, 4, size=(6, 4))
    assert whole.tolist() == [np.bincount(row, minlength=4).tolist() for row in index]
    for width, rows in ((400_000, [2, 2, 1]), (500_000, [2, 2, 1]), (1_000_000, [1] * 5), (3_000_000, [1] * 5)):
        blocks = list(st.resample_weights(3, 5, 9, width))
        assert [len(block) for block in blocks] == rows
        assert all((block.sum(1) == 3).all() for block in blocks)
    assert [len(block) for block in st.resample_weights(400_000, 3, 9)] == [2, 1]


@pytest.mark.parametrize(("count", "level"), [(2, 0.95), (7, 0.8)])
def test_the_tail_of_few_values_is_further_out(count, level):
    t = stats.t.ppf((1 + level) / 2, count - 1) * math.sqrt(count / (count - 1))
    assert st.percentile_tail(count, level) == pytest.approx(stats.norm.sf(t))


@pytest.mark.parametrize("level", [0.95, 0.7])
def test_bootstrap_bounds_by_hand(level):
    """Of three clusters of unequal size: quantiles of what their resamples give, or so many deviations to each side."""
    values, keys = np.array([1.0, 4.0, 2.0, 9.0, 3.0, 2.5]), list("abacbb")
    clusters = [[values[i] for i, key in enumerate(keys) if key == own] for own in "abc"]
    (weights,) = st.resample_weights(3, 200, 4)
    draws = [sum(w * sum(c) for w, c in zip(row, clusters, strict=True)) / (row @ [2, 3, 1]) for row in weights]

    def mean(w):
        return (w @ values) / w.sum(axis=1)

    tail = st.percentile_tail(3, level)
    found = st.bootstrap(mean, 6, clusters=keys, resamples=200, level=level, seed=4)
    expected = values.mean(), *np.quantile(draws, (tail, 1 - tail)), 6
    assert (found.mean, found.low, found.high, found.n) == pytest.approx(expected)
    assert st.mean_interval(values, keys, 4, level, resamples=200) == found
    paired = st.paired_difference(values + 1, np.ones(6), keys, 4, level, resamples=200)
    assert (paired.mean, paired.low, paired.high, paired.n) == pytest.approx(expected)
    half = stats.norm.isf(tail) * np.std(draws)
    centred = st.bootstrap(mean, 6, clusters=keys, resamples=200, level=level, seed=4, centred=True)
    assert (centred.low, centred.mean, centred.high) == pytest.approx([values.mean() + s * half for s in (-1, 0, 1)])


def test_what_is_drawn_by_default(values):
    named = {"resamples": 10_000, "level": 0.95, "seed": 0}
    assert st.mean_interval(values) == st.mean_interval(values, **named)
    assert st.paired_difference(values, 0 * values) == st.mean_interval(values, **named)
    plain = st.bootstrap(lambda w: w @ values, values.size)
    assert plain == st.bootstrap(lambda w: w @ values, values.size, centred=False, **named)


def test_resamples_without_a_number_are_left_out():
    """The first of three values is in the resamples that have one."""
    (weights,) = st.resample_weights(3, 50, 0)
    with np.errstate(divide="ignore"):
        found = st.bootstrap(lambda w: 1 / w[:, 0], 3, resamples=50)
    tail = st.percentile_tail(3)
    assert (found.low, found.high) == pytest.approx(np.quantile(1 / weights[weights[:, 0] > 0, 0], (tail, 1 - tail)))
    none = st.bootstrap(lambda w: np.full(len(w), math.nan), 3, resamples=50)
    assert math.isnan(none.low) and math.isnan(none.high) and none.n == 3


def test_nothing_cannot_be_resampled():
    for draw in (
        lambda: st.bootstrap(lambda w: w.sum(1), 0),
        lambda: st.effective_count([]),
        lambda: st.influence_interval(0.5, []),
    ):
        with pytest.raises(ValueError, match="no values to resample"):
            draw()
    with pytest.raises(ValueError, match=r"one row of values, got shape \(1, 2\)"):
        st.mean_interval([[1.0, 2.0]])
    with pytest.raises(ValueError, match="2 values beside 3: they must belong to the same prompts"):
        st.win_rate([1.0, 2.0], [1.0, 2.0, 3.0])
