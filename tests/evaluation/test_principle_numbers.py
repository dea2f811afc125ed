"""Associations within prompts: what they are, that their intervals cover, and that one pair in many is not believed."""

import math

import numpy as np
import pytest

from accord.evaluation.principles import association, contradictions, kept, within

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


def test_a_principle_holds_where_the_score_is_above_zero():
    found = kept([0.5, 0.0, -0.5, 1.0], ["a", "a", "b", "b"])
    assert found["holds"]["mean"] == 0.5 and found["score"]["mean"] == pytest.approx(0.25)
