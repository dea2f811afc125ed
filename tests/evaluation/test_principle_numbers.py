"""Associations within prompts: what they are, that their intervals cover, and that one pair in many is not believed."""

import math

import numpy as np
import pytest
from scipy import stats

from accord.evaluation.principles import association, contradictions, kept, within
from accord.evaluation.statistics import mean_interval, share_interval

PROMPTS = [i // 4 for i in range(200)]


def scores(rng, correlation, noise=0.0):
    """Two scores whose correlation within prompts is as told, on prompts of very uneven difficulty."""
    easy = rng.normal(size=50)[PROMPTS] * 3
    one = rng.normal(size=200)
    other = correlation * one + math.sqrt(1 - correlation**2) * rng.normal(size=200)
    return one + easy, other + easy


def test_what_prompts_have_in_common_is_no_association():
    one, other = scores(np.random.default_rng(0), -0.6)
    assert np.corrcoef(one, other)[0, 1] > 0.5, "easy prompts are easy for both"
    found = association(one, other, PROMPTS)
    assert found.mean == pytest.approx(np.corrcoef(within(one, PROMPTS), within(other, PROMPTS))[0, 1])
    assert found.high < 0 and found.low < -0.6 < found.high


@pytest.mark.parametrize("truth", [0.0, -0.5])
def test_the_interval_covers(truth):
    inside = 0
    for seed in range(300):
        found = association(*scores(np.random.default_rng(seed), truth), PROMPTS)
        inside += found.low <= truth <= found.high
    assert 0.91 <= inside / 300 <= 0.99


def test_what_does_not_vary_within_prompts_has_no_association():
    easy = [float(p % 3) for p in PROMPTS]
    assert association(easy, list(range(200)), PROMPTS) is None
    assert association([1.0, 2.0], [2.0, 1.0], ["a", "a"]) is None, "one prompt has no interval"
    whole = association(list(range(200)), [-i for i in range(200)], PROMPTS)
    assert whole.mean == pytest.approx(-1) and math.isnan(whole.high)


def test_only_what_all_pairs_together_allow_contradicts():
    said = wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        one, other = scores(rng, -0.7)
        unrelated = {f"p{i}": rng.normal(size=200) for i in range(6)}
        rows = contradictions({"a": one, "b": other, **unrelated}, PROMPTS)
        assert len(rows) == 28 and [r["mean"] for r in rows] == sorted(r["mean"] for r in rows)
        said += any({r["one"], r["other"]} == {"a", "b"} and r["contradict"] for r in rows)
        wrong += any(r["contradict"] and {r["one"], r["other"]} != {"a", "b"} for r in rows)
    assert said == 60 and wrong <= 7


def by_hand(one, other, prompts, level):
    """Correlation within prompts and Fisher's z with what every prompt adds to it, in plain sums."""
    at = {p: [i for i, own in enumerate(prompts) if own == p] for p in dict.fromkeys(prompts)}
    x, y = ([v[i] - sum(v[j] for j in at[p]) / len(at[p]) for i, p in enumerate(prompts)] for v in (one, other))
    n = len(x)
    of_x, of_y = math.sqrt(sum(a * a for a in x) / n), math.sqrt(sum(b * b for b in y) / n)
    x, y = [a / of_x for a in x], [b / of_y for b in y]
    r = sum(a * b for a, b in zip(x, y, strict=True)) / n
    adds = [sum(x[i] * y[i] - r / 2 * (x[i] ** 2 + y[i] ** 2) for i in own) for own in at.values()]
    error = math.sqrt(sum(a * a for a in adds) * len(at) / (len(at) - 1)) / n
    reach = stats.t.ppf((1 + level) / 2, len(at) - 1) * error / (1 - r**2)
    return r, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach), n


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_an_association_by_hand(level):
    prompts = ["a", "b", "a", "c", "b", "a", "c", "c", "c"]
    one, other = [1.0, 2.5, 4.0, 3.0, 7.0, 0.5, 2.0, 6.0, 1.0], [3.0, 1.0, 2.0, 9.0, 4.0, 1.0, 5.0, 2.0, 6.5]
    found = association(one, other, prompts, level)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx(by_hand(one, other, prompts, level))
    assert association(one, other, prompts) == association(one, other, prompts, 0.95)


def test_two_prompts_and_none_have_no_association():
    one, other = [1.0, 2.0, 5.0, 3.0, 4.0, 9.0], [2.0, 7.0, 1.0, 5.0, 5.5, 2.0]
    assert association(one, other, list("aabbbb")) is None
    assert association(one, other, list("aabbcc")) is not None
    assert association([], [], []) is None


def test_of_two_pairs_each_has_half_the_chance_of_a_false_word():
    """One pair is held to 95 %, three to 98.3 % each; the bounds that are shown are those of 95 %."""
    rng = np.random.default_rng(0)
    prompts = [i // 3 for i in range(24)]
    one = rng.normal(size=24)
    other = -0.45 * one + rng.normal(size=24)
    third = rng.normal(size=24)
    (alone,) = contradictions({"a": one, "b": other}, prompts)
    plain, strict = association(one, other, prompts), association(one, other, prompts, 1 - 0.05 / 3)
    assert plain.high < 0 < strict.high
    assert alone == {"one": "a", "other": "b", **plain.json(), "contradict": True}
    rows = contradictions({"a": one, "b": other, "c": third}, prompts)
    assert len(rows) == 3 and {"one": "a", "other": "b", **plain.json(), "contradict": False} in rows


def test_a_principle_holds_where_the_score_is_above_zero():
    found = kept([0.5, 0.0, -0.5, 1.0], ["a", "a", "b", "b"])
    assert found["holds"]["mean"] == 0.5 and found["score"]["mean"] == pytest.approx(0.25)
    scores, prompts = [0.5, 0.0, -0.5, 1.0, 2.0], ["a", "a", "b", "b", "c"]
    found = kept(scores, prompts, 4)
    assert found["holds"] == share_interval([1, 0, 0, 1, 1], prompts).json()
    assert found["score"] == mean_interval(scores, prompts, 4, resamples=2000).json()
    many = np.random.default_rng(1).normal(size=30)
    assert kept(many, range(30))["score"] == mean_interval(many, range(30), 0, resamples=2000).json()
