"""Whether intervals cover the truths that they are meant for, by simulation: seeds, seeds and prompts, prompts alone.

A cell is a named truth at a number of seeds. In DRAWS draws the interval must hold the truth 93 to 97 times of 100, or
the cell is named in SHORT with what it does instead: no scale that was tried (docs/claims.md) is right for it too.
"""

import numpy as np
import pytest
from scipy import optimize, special

from accord.evaluation.statistics import crossed_interval, mean_interval, nested_interval, share_interval

SEEDS = (3, 5, 8, 12)
DRAWS = 4000  # the standard error of a coverage of .95 is .0034
PROMPTS = 120  # outcomes of a share in one seed


def normal(rng, seeds):
    return rng.normal(0.3, 1.0, seeds)


def normal_prompts(rng, seeds):
    return list(rng.normal(0.3, 0.5, (seeds, 1)) + rng.normal(size=(seeds, 12)))


def unequal_variances(rng, seeds):
    return rng.normal(0.3, np.resize([0.5, 1.0, 1.5], seeds))


def unequal_sizes(rng, seeds):
    return [rng.normal(0.3 + rng.normal(), 3.0, n) for n in np.resize([10, 40, 160], seeds)]


def mean_logit(share, spread):
    """The middle of seeds' logits, normal with this deviation, whose shares have this mean."""
    places, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    return optimize.brentq(lambda m: special.expit(m + spread * places) @ weights - share, -15, 15)


def shares(share, spread, sizes=(PROMPTS,)):
    """Seeds whose own shares differ: normal logits with the deviation `spread`, so that seeds differ by a factor."""
    middle = mean_logit(share, spread)

    def draw(rng, seeds):
        own = special.expit(rng.normal(middle, spread, seeds))
        return [rng.random(n) < p for n, p in zip(np.resize(sizes, seeds), own, strict=True)]

    return draw


ROOTS = np.sqrt(np.linspace(0.02, 1, 16))


def r_squared_of(rng, noise):
    y = ROOTS + noise * rng.normal(size=(len(noise), ROOTS.size))
    x, y = ROOTS - ROOTS.mean(), y - y.mean(1, keepdims=True)
    return (y @ x) ** 2 / ((x @ x) * (y * y).sum(1))


def r_squared(noise, spread=0.0):
    """R² of a line through 16 points, in seeds whose noise differs by a factor of e^spread."""
    return lambda rng, seeds: r_squared_of(rng, noise * np.exp(spread * rng.normal(size=(seeds, 1))))


def expected(draw):
    """The truth where it has no closed form: the mean of very many seeds."""
    return float(draw(np.random.default_rng(99), 400_000).mean())


# name: kind, draw, truth
TRUTHS = {
    "normal": ("mean", normal, 0.3),
    "normal, seeds and prompts": ("mean", normal_prompts, 0.3),
    "unequal seed variances": ("mean", unequal_variances, 0.3),
    "unequal n": ("mean", unequal_sizes, 0.3),
    "share .02": ("share", shares(0.02, 0.5), 0.02),
    "share .05": ("share", shares(0.05, 0.5), 0.05),
    "share .5": ("share", shares(0.5, 0.5), 0.5),
    "share .97": ("share", shares(0.97, 0.5), 0.97),
    "share .05, unequal n": ("share", shares(0.05, 0.5, (40, 120, 300)), 0.05),
    "share .5, unequal n": ("share", shares(0.5, 0.5, (40, 120, 300)), 0.5),
    "share .05, seeds alike": ("share", shares(0.05, 1e-9), 0.05),
    "share .5, seeds far apart": ("share", shares(0.5, 1.0), 0.5),
    "R² .95": ("r2", r_squared(0.06), None),
    "R² .9": ("r2", r_squared(0.09), None),
    "R² .7": ("r2", r_squared(0.18), None),
    "R² .9, seeds' noise unlike": ("r2", r_squared(0.08, 0.4), None),
    "share .02, unequal n": ("share", shares(0.02, 0.5, (40, 120, 300)), 0.02),
    "share .97, unequal n": ("share", shares(0.97, 0.5, (40, 120, 300)), 0.97),
    "share .02, 30 prompts": ("share", shares(0.02, 0.5, (30,)), 0.02),
    "share .05, 30 prompts": ("share", shares(0.05, 0.5, (30,)), 0.05),
    "share .02, seeds far apart": ("share", shares(0.02, 1.0), 0.02),
    "share .05, seeds far apart": ("share", shares(0.05, 1.0), 0.05),
    "share .97, seeds far apart": ("share", shares(0.97, 1.0), 0.97),
    "R² .94, seeds' noise very unlike": (
        "r2",
        lambda rng, seeds: 1 - 0.06 * np.exp(0.7 * rng.normal(size=seeds) - 0.245),
        0.94,
    ),
    "bistable": ("mean", lambda rng, seeds: np.where(rng.random(seeds) < 0.8, 0.95, 0.3), 0.82),
}

# What the cells do that are not in 93-97 %. Rare outcomes at 3 seeds are covered too often: whole outcomes hide how far
# seeds differ. Seeds that differ by a factor of e or more are covered too seldom: few of them rarely show a long tail.
SHORT = {
    ("share .02, unequal n", 3): 0.985,
    ("share .97, unequal n", 3): 0.981,
    ("share .05, 30 prompts", 3): 0.974,
    ("share .02, seeds far apart", 3): 0.973,
    ("share .02, seeds far apart", 12): 0.925,
    ("share .05, seeds far apart", 8): 0.929,
    ("share .05, seeds far apart", 12): 0.925,
    ("share .97, seeds far apart", 3): 0.972,
    ("R² .9, seeds' noise unlike", 12): 0.926,
    ("R² .94, seeds' noise very unlike", 5): 0.926,
    ("R² .94, seeds' noise very unlike", 8): 0.920,
    ("R² .94, seeds' noise very unlike", 12): 0.921,
    # two heaps: a page says how many seeds pass
    ("bistable", 3): 0.491,
    ("bistable", 5): 0.673,
    ("bistable", 8): 0.838,
}


def coverage(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


def covered(name, seeds, draws):
    kind, draw, truth = TRUTHS[name]
    rng = np.random.default_rng(7)
    intervals = (nested_interval(draw(rng, seeds), kind) for _ in range(draws))
    return coverage(intervals, expected(draw) if truth is None else truth)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_intervals_over_seeds_cover_what_they_say(name, seeds):
    found = covered(name, seeds, DRAWS)
    if (name, seeds) in SHORT:
        assert not 0.93 <= found <= 0.97, "the cell is as it should be: take it out of SHORT"
        assert found == pytest.approx(SHORT[name, seeds], abs=0.01)
    else:
        assert 0.93 <= found <= 0.97


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("normal", 3),
        ("unequal seed variances", 5),
        ("share .02", 3),
        ("share .5", 8),
        pytest.param("R² .9", 3, marks=pytest.mark.slow),
        ("R² .9", 12),
    ],
)
def test_intervals_over_seeds_cover_in_few_draws(name, seeds):
    """The quick twin: the standard error of 800 draws is .008."""
    assert 0.925 <= covered(name, seeds, 800) <= 0.975


# by what seeds and what prompts differ
CROSSED = [(by, seeds) for by in [(0.0, 1.0), (0.3, 0.5), (1.0, 0.5)] for seeds in SEEDS]
QUICK = {((0.0, 1.0), 5), ((0.3, 0.5), 3), ((0.3, 0.5), 12), ((1.0, 0.5), 3)}


@pytest.mark.parametrize(
    ("by_seed", "by_prompt", "seeds"),
    [pytest.param(*by, n, marks=[pytest.mark.slow] * ((by, n) not in QUICK)) for by, n in CROSSED],
)
def test_crossed_intervals_cover_seeds_and_prompts(by_seed, by_prompt, seeds):
    rng = np.random.default_rng(5)

    def table():
        rows, columns = rng.normal(0, by_seed, (seeds, 1)), rng.normal(0, by_prompt, (1, 40))
        return rows + columns + rng.normal(size=(seeds, 40))

    assert 0.93 <= coverage([crossed_interval(table()) for _ in range(2000)], 0.0) <= 0.97


@pytest.mark.parametrize(
    "spread", [3.0, pytest.param(1.0, marks=pytest.mark.slow), pytest.param(1e-9, marks=pytest.mark.slow)]
)
def test_shares_of_clusters_are_covered_at_least(spread):
    """Clusters of four replies that agree much, little, not at all: the less, the wider it is than need be."""
    rng, keys = np.random.default_rng(5), np.repeat(np.arange(50), 4).tolist()
    for share in (0.05, 0.5):
        draw = shares(share, spread, (4,))
        found = coverage([share_interval(np.concatenate(draw(rng, 50)), keys) for _ in range(1500)], share)
        assert 0.93 <= found <= 0.995, (spread, share)


# 600 trials: the standard error of a coverage of .95 is .009


@pytest.mark.parametrize("n", [12, 60])
def test_g3_the_bootstrap_covers_the_truth_95_percent_of_the_time(n):
    rng = np.random.default_rng(11)
    found = [mean_interval(rng.normal(size=n), seed=k, resamples=1000) for k in range(600)]
    assert 0.92 <= coverage(found, 0.0) <= 0.98


def test_g3_clustered_interval_covers_and_the_unclustered_one_does_not():
    rng, keys = np.random.default_rng(11), np.repeat(np.arange(40), 5).tolist()
    drawn = [np.repeat(rng.normal(size=40), 5) + 0.3 * rng.normal(size=200) for _ in range(600)]
    clustered = [mean_interval(values, keys, seed=k, resamples=500) for k, values in enumerate(drawn)]
    naive = [mean_interval(values, seed=k, resamples=500) for k, values in enumerate(drawn)]
    assert 0.92 <= coverage(clustered, 0.0) <= 0.98
    assert coverage(naive, 0.0) < 0.75


def test_g3_the_bootstrap_of_three_values_covers_as_the_module_says():
    rng = np.random.default_rng(11)
    found = [mean_interval(rng.normal(size=3), seed=k, resamples=500) for k in range(600)]
    assert 0.65 <= coverage(found, 0.0) <= 0.85
