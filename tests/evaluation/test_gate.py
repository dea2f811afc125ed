"""A gate decides by the end of an interval; intervals of changes of shares cover; the n that it names decides."""

import numpy as np
import pytest

from accord.evaluation.gate import FEWEST, BoundVerdict, GateBound, bound_verdict, judge_bound, prompts_to_decide
from accord.evaluation.metrics import metric_change, metric_interval
from accord.evaluation.safety import with_fit
from accord.evaluation.statistics import Interval, paired_difference, paired_shares, wilson

SHARE, SCORE = "gold/harm_share", "gold/helpful"


def bound(limit, side="at most", metric=SHARE, **more):
    return GateBound("it", metric, "all", side, limit, **more)


def single(values):
    return {f"p{i}": [float(value)] for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("successes", "limit", "kept"), [(0, 0.1, "met"), (0, 0.01, "not decided"), (90, 0.5, "not met")]
)
def test_the_end_of_the_interval_decides(successes, limit, kept):
    ours = single([1] * successes + [0] * (100 - successes))
    found = judge_bound(bound(limit), ours)
    whole = wilson(successes, 100)
    assert (found.interval.low, found.interval.high) == pytest.approx((whole.low, whole.high))
    assert found.kept == kept
    turned = judge_bound(bound(limit, "at least"), ours).kept
    assert turned == {"met": "not met", "not met": "met"}.get(kept, kept)


def test_more_confidence_is_asked_of_the_same_numbers():
    ours = single([1] * 6 + [0] * 94)
    assert judge_bound(bound(0.12, confidence=0.9), ours).kept == "met"
    assert judge_bound(bound(0.12, confidence=0.99), ours).kept == "not decided"


def test_few_prompts_decide_nothing_however_alike_they_are():
    """All values the same: a bootstrap has no width, and would pass a snapshot on two prompts."""
    for metric in (SHARE, SCORE):
        few = judge_bound(bound(0.9, metric=metric), single([0] * (FEWEST - 1)))
        assert few.kept == "not decided" and few.needed is not None and few.needed >= FEWEST
        assert judge_bound(bound(0.9, metric=metric), single([0] * FEWEST)).kept == "met"


def test_nothing_measured_is_not_decided():
    assert judge_bound(bound(0.5), {}).kept == "not decided"
    none = judge_bound(bound(0.5, against="run"), single([1] * 30), {})
    assert none.kept == "not decided" and none.prompts == 0 and none.needed is None
    assert none.interval.json() == {"mean": None, "low": None, "high": None, "n": 0}
    with pytest.raises(ValueError, match="compare"):
        judge_bound(bound(0.5), single([1] * 30), single([1] * 30))


def test_replies_to_one_prompt_are_no_prompts():
    once = judge_bound(bound(0.1), single([0] * 40))
    often = judge_bound(bound(0.1), {f"p{i}": [0.0] * 10 for i in range(40)})
    assert once.prompts == often.prompts == 40
    assert often.interval.high == pytest.approx(once.interval.high, abs=0.03)


def test_a_change_is_paired_by_prompt():
    """Prompts differ by far more than snapshots do: only pairs show a small fall, and only shared prompts count."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=60)
    before, after = single(level), single(level - 0.1 + 0.02 * rng.normal(size=60)) | {"new": [50.0]}
    found = judge_bound(bound(0.0, metric=SCORE, against="run"), after, before)
    assert found.kept == "met" and found.prompts == 60 and found.interval.mean == pytest.approx(-0.1, abs=0.01)
    assert judge_bound(bound(0.0, metric=SCORE), after).kept == "not decided"


def test_no_change_at_all_has_width():
    """A bootstrap of differences that are all 0 is certain; the interval of a share is not."""
    same = single([0] * 30)
    found = judge_bound(bound(0.02, against="run"), same, same)
    assert found.interval.mean == 0 and found.kept == "not decided" and found.needed > 30
    many = single([0] * 400)
    assert judge_bound(bound(0.02, against="run"), many, many).kept == "met"


def test_a_change_of_a_share_by_hand():
    """20 pairs, 4 up and 1 down: Wilson's intervals of 4 and of 1 of 20, correlated by −√(.2 · .05 / (.8 · .95))."""
    a = [1] * 4 + [0] + [1] * 15
    b = [0] * 4 + [1] + [1] * 15
    found = paired_shares(a, b)
    up, down, together = (0.2, 0.080659, 0.416024), (0.05, 0.008881, 0.236131), np.sqrt(0.01 / 0.76)
    low = np.sqrt((0.2 - up[1]) ** 2 + (down[2] - 0.05) ** 2 + 2 * together * (0.2 - up[1]) * (down[2] - 0.05))
    high = np.sqrt((up[2] - 0.2) ** 2 + (0.05 - down[1]) ** 2 + 2 * together * (up[2] - 0.2) * (0.05 - down[1]))
    assert (found.mean, found.low, found.high) == pytest.approx((0.15, 0.15 - low, 0.15 + high), abs=1e-4)
    assert metric_change(SHARE, a, b) == found and metric_change(SCORE, a, b) != found
    with pytest.raises(ValueError, match="outcomes"):
        paired_shares([2.0, 0.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("n", "up", "down"),
    [
        (50, 0.05, 0.1),
        pytest.param(200, 0.02, 0.02, marks=pytest.mark.slow),
        (200, 0.0, 0.02),
        pytest.param(100, 0.2, 0.3, marks=pytest.mark.slow),
    ],
)
def test_intervals_of_changes_of_shares_cover(n, up, down):
    """93 to 97 of 100 of 4,000 draws; up to 98 where one side never changes."""
    rng = np.random.default_rng(1)
    draws = rng.choice([1.0, -1.0, 0.0], size=(4000, n), p=[up, down, 1 - up - down])
    found = [paired_shares((row > 0).astype(float), (row < 0).astype(float)) for row in draws]
    covered = np.mean([i.low <= up - down <= i.high for i in found])
    assert 0.93 <= covered <= (0.97 if up else 0.985)


def rare(n, share):
    return [float(i < share * n) for i in range(n)]


@pytest.mark.parametrize(
    ("metric", "draw", "n", "limit"),
    [
        (SHARE, lambda n: rare(n, 0.05), 40, 0.1),
        (SHARE, lambda n: rare(n, 0.0), 25, 0.05),
        (SCORE, lambda n: list(np.linspace(-1, 1.2, n)), 40, 0.0),
    ],
)
def test_the_number_of_prompts_that_it_names_decides(metric, draw, n, limit):
    """So many of the same, give or take a tenth, and no fewer by a fifth."""
    found = judge_bound(bound(limit, metric=metric), single(draw(n)))
    assert found.kept == "not decided"
    more, fewer = round(1.1 * found.needed), round(0.8 * found.needed)
    kept = [judge_bound(bound(limit, metric=metric), single(draw(n))).kept for n in (more, fewer)]
    assert kept[0] != "not decided" and kept[1] == "not decided"


@pytest.mark.parametrize(
    ("limit", "found", "more", "needed"),
    [
        # z² L (1 − L) / (p − L)² of a share: 3.8415 · .09 / .05² and 3.8415 · .16 / .15²
        (0.1, wilson(5, 100), {}, 139),
        (0.2, wilson(14, 40), {}, 28 + 13),
        # of anything else the square of the end's distance over the bound's: 50 · (.4 / .3)² and 50 · (.6 / .2)²
        (0.8, Interval(0.5, -0.1, 0.9, 50), {"metric": SCORE}, 89),
        (0.3, Interval(0.5, -0.1, 0.9, 50), {"metric": SCORE}, 450),
        # and of a change of a share, or one whose end or bound is at an end
        (0.8, Interval(0.5, -0.1, 0.9, 50), {"against": "run"}, 89),
        (0.3, Interval(0.5, 0.0, 0.9, 50), {}, 313),
        (0.8, Interval(0.5, 0.1, 1.0, 50), {}, 139),
        (1.0, Interval(0.5, 0.1, 0.9, 50), {}, 51),
        (0.0, Interval(0.5, 0.1, 0.9, 50), {}, 51),
        (np.inf, Interval(0.5, 0.1, 0.9, 50), {}, 51),
        (0.5, Interval(0.5, 0.1, 0.9, 50), {}, None),
        (0.5, Interval(0.6, np.nan, np.nan, 50), {}, None),
    ],
)
def test_how_many_prompts_would_decide_by_hand(limit, found, more, needed):
    prompts = found.n
    assert prompts_to_decide(bound(limit, **more), found, prompts) == needed


def test_never_fewer_prompts_than_there_are_or_than_decide_anything():
    assert prompts_to_decide(bound(0.9, metric=SCORE), Interval(0.1, 0.0, 0.2, 5), 5) == FEWEST == 20
    assert prompts_to_decide(bound(0.9, metric=SCORE), Interval(0.1, 0.0, 0.2, 5), 30) == 31


WIDE = Interval(0.51, 0.4128, 0.6234, 700)


@pytest.mark.parametrize(
    ("limit", "side", "prompts", "kept", "needed"),
    [
        (0.7, "at most", 20, "met", None),
        (0.7, "at least", 20, "not met", None),
        (0.4, "at most", 20, "not met", None),
        (0.4, "at least", 20, "met", None),
        (0.6, "at least", 60, "not decided", 96),
        (0.7, "at most", 19, "not decided", 20),
    ],
)
def test_a_verdict_by_the_interval_of_what_it_bounds(limit, side, prompts, kept, needed):
    """(0.6234 − 0.51)² / (0.6 − 0.51)² of 60 prompts is 95.3."""
    asked = bound(limit, side, metric=SCORE)
    assert bound_verdict(asked, WIDE, prompts) == BoundVerdict(asked, kept, WIDE, prompts, needed)


def test_a_verdict_in_words_and_as_json():
    one = bound_verdict(bound(0.6, "at least", metric=SCORE, confidence=0.9), WIDE, 60)
    assert str(one) == (
        "gate it: not decided; gold/helpful on all is 0.51 [0.413, 0.623], asked at least 0.6 at 0.9; "
        "60 prompts; about 96 would decide"
    )
    change = bound_verdict(bound(0.25, against="run"), Interval(0.02, -0.01, 0.0512, 80), 40)
    assert str(change) == (
        "gate it: met; change of gold/harm_share on all is +0.02 [-0.01, +0.0512], asked at most +0.25 at 0.95; "
        "40 prompts"
    )
    assert one.json() == {
        "name": "it",
        "metric": "gold/helpful",
        "slices": "all",
        "side": "at least",
        "limit": 0.6,
        "confidence": 0.9,
        "against": "",
        "verdict": "not decided",
        "mean": 0.51,
        "low": 0.4128,
        "high": 0.6234,
        "n": 700,
        "prompts": 60,
        "needed": 96,
    }


def test_a_prompt_with_several_replies_changes_by_their_mean():
    """Means 0.5, 2, 1 and 0.25 beside 1, 0, 1 and 0.75; who has no partner is out."""
    ours = {"a": [0.0, 1.0], "b": [2.0], "c": [0.5, 1.0, 1.5], "d": [0.25], "e": [9.0]}
    theirs = {"d": [0.5, 1.0], "c": [1.0], "b": [-1.0, 1.0], "a": [1.0]}
    found = judge_bound(bound(0.0, metric=SCORE, against="run", confidence=0.8), ours, theirs)
    expected = paired_difference([0.5, 2.0, 1.0, 0.25], [1.0, 0.0, 1.0, 0.75], None, 0, 0.8)
    assert (found.interval, found.prompts) == (expected, 4)


def test_replies_to_one_prompt_are_a_cluster_at_the_confidence_of_the_bound():
    ours = {"a": [0.0, 1.0], "b": [1.0], "c": [0.0, 0.0, 1.0], "d": [1.0, 1.0]}
    flat, clusters = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0], list("aabcccdd")
    for metric in (SHARE, SCORE):
        found = judge_bound(bound(0.5, metric=metric, confidence=0.8), ours)
        assert found.interval == metric_interval(metric, flat, clusters, level=0.8) and found.prompts == 4


@pytest.mark.parametrize(("against", "theirs"), [("run", None), ("", {"a": [0.0]})])
def test_values_to_compare_with_belong_to_a_change(against, theirs):
    with pytest.raises(ValueError, match="it: values to compare with belong to a bound on a change, and to no other"):
        judge_bound(bound(0.5, against=against), {"a": [1.0]}, theirs)


def test_the_error_of_a_calibration_is_in_it():
    shares = single([0.05, 0.1, 0.15, 0.2] * 50)
    of = "cost/harm/expected"
    sure, unsure = (judge_bound(bound(0.16, metric=of), shares, fit_error=error) for error in (0.0, 0.5))
    assert sure.kept == "met" and unsure.kept == "not decided"
    values = [v[0] for v in shares.values()]
    assert sure.interval == metric_interval(of, values)
    at_80 = judge_bound(bound(0.16, metric=of, confidence=0.8), shares, fit_error=0.5)
    assert at_80.interval == with_fit(metric_interval(of, values, level=0.8), values, 0.5, 0.8)
    assert judge_bound(bound(0.16, metric=of), {}, fit_error=0.5).kept == "not decided"
