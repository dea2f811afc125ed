"""Agreement of people by hand and against its oracle, and planted reliabilities that are found again."""

import math

import numpy as np
import pytest

from accord.evaluation.agreement import (
    Answer,
    agreement,
    by_question,
    cohen_kappas,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
)
from accord.evaluation.annotators import reliability_interval


def table(*rows):
    return [{f"p{k}": answer for k, answer in enumerate(row) if answer is not None} for row in rows]


def test_raw_agreement_by_hand():
    """3 of 3 pairs, 1 of 3, 0 of 1: the mean over questions is 4/9."""
    assert raw_agreement(table("aaa", "aab", "ab")) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_fleiss_kappa_of_the_papers_example():
    """Fleiss 1971, as in every textbook: 14 raters, 10 subjects, 5 categories, κ = 0.210."""
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    rows = [[category for category, count in enumerate(row) for _ in range(count)] for row in counts]
    assert fleiss_kappa(table(*rows)) == pytest.approx(0.210, abs=5e-4)


def test_cohens_kappa_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 observed, 0.5 by chance, κ = 0.4."""
    rows = ["yy"] * 20 + ["yn"] * 5 + ["ny"] * 10 + ["nn"] * 15
    assert cohen_kappas(table(*rows)) == {("p0", "p1"): pytest.approx(0.4)}
    assert cohen_kappas(table(*rows), at_least=51) == {}


def test_krippendorffs_alpha_by_hand():
    """α = 1 − D_o / D_e over the coincidences of two raters: 9 of 10 agree, 9 a and 11 b among 20 values."""
    rows = ["aa"] * 4 + ["bb"] * 5 + ["ab"]
    observed, expected = 2 / 20, 2 * 9 * 11 / (20 * 19)
    assert krippendorff_alpha(table(*rows)) == pytest.approx(1 - observed / expected)
    assert math.isnan(krippendorff_alpha(table("aa", "aa")))


def test_krippendorffs_alpha_of_ratings_by_hand():
    """α = 1 − D_o / D_e with squared distances: two raters of four texts, of whom one is a point away on one."""
    rows = [(1, 1), (2, 2), (3, 3), (3, 4)]
    values = np.array(rows).ravel()
    observed = 2 * 1 / 8
    expected = ((values[:, None] - values[None, :]) ** 2).sum() / (8 * 7)
    assert krippendorff_alpha(table(*rows), "interval") == pytest.approx(1 - observed / expected)
    # as names a point away is as wrong as three, and 10 does not come before 2
    assert krippendorff_alpha(table(*rows)) < krippendorff_alpha(table(*rows), "ordinal")
    far = [(2, 2), (3, 3), (10, 10), (2, 3)]
    assert krippendorff_alpha(table(*far), "ordinal") == krippendorff_alpha(
        table(*[tuple(min(x, 4) for x in row) for row in far]), "ordinal"
    )


def test_missing_answers_and_repeated_ones():
    said = [Answer("q", "x", 1), Answer("q", "x", 2), Answer("q", "y", 2), Answer("r", "x", 1)]
    assert by_question(said) == [{"x": 2, "y": 2}]


def test_intervals_of_agreement_hold_the_planted_value():
    """Two people who see the truth with probability 0.9 each agree on 0.82 of binary questions."""
    rng = np.random.default_rng(0)
    answers = []
    for q in range(600):
        truth = int(rng.integers(2))
        answers += [Answer(q, who, truth if rng.random() < 0.9 else 1 - truth) for who in ("x", "y")]
    found = agreement(answers, resamples=200)
    assert found["raw"]["low"] < 0.82 < found["raw"]["high"]
    assert found["krippendorff_alpha"]["low"] < 0.64 < found["krippendorff_alpha"]["high"]
    assert found["fleiss_kappa"]["mean"] == pytest.approx(found["krippendorff_alpha"]["mean"], abs=2e-3)
    assert found["cohen_kappa"]["x and y"] == pytest.approx(0.64, abs=0.07)
    assert agreement([Answer(1, "x", 1)]) == {}


def test_planted_reliabilities_are_inside_their_intervals():
    """Labels by r σ(d) + (1 − r) σ(−d); 95 % intervals, 40 draws each: at least 90 % hold the truth."""
    rng = np.random.default_rng(1)
    for planted in (0.55, 0.75, 0.95):
        inside = 0
        for _ in range(40):
            d = rng.normal(0, 2, 400)
            agrees = rng.random(400) < planted
            first = rng.random(400) < 1 / (1 + np.exp(-np.where(agrees, d, -d)))
            found = reliability_interval(np.where(first, d, -d))
            inside += found.low <= planted <= found.high
        assert inside >= 36, planted


def test_reliability_at_its_ends_and_of_nobody():
    certain = reliability_interval([5.0] * 50)
    assert certain.mean == pytest.approx(1.0, abs=1e-6) and certain.high == 1.0 and certain.low < 1
    assert reliability_interval([-5.0] * 50).mean == pytest.approx(0.0, abs=1e-6)
    nothing = reliability_interval([0.0, 0.0])
    assert (nothing.low, nothing.high) == (0.0, 1.0) and math.isnan(reliability_interval([]).mean)
