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
    fused_and_separate,
    krippendorff_alpha,
    raw_agreement,
)
from accord.evaluation.annotators import likeliest_reliability, reliability_interval


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


def test_fleiss_kappa_is_of_the_questions_with_the_commonest_number_of_labelers():
    """Of 3: 1/3, 1, 1 and 0 of the pairs agree; 6 a, 5 b and 1 c of 12 answers. The two and the four have no part."""
    rows = ["ab", "aab", "bbb", "aaa", "abc", "cccc"]
    chance = (36 + 25 + 1) / 144
    assert fleiss_kappa(table(*rows)) == pytest.approx((7 / 12 - chance) / (1 - chance))
    assert (
        math.isnan(fleiss_kappa([])) and math.isnan(fleiss_kappa(table("aa", "aa"))) and math.isnan(raw_agreement([]))
    )


def test_cohens_kappa_of_every_two_who_share_ten_questions_and_more_than_one_answer():
    """Of three: p0 and p1 share 10, p0 and p2 nine, p1 and p2 say the same one thing of 12."""
    rows = ["aa" + "a"] * 2 + ["abb"] * 3 + ["ba" + "a"] + ["bbb"] * 3 + [("b", "b", None)]
    found = cohen_kappas(table(*rows))
    # 6 of 10 agree; p0 has 5 a, p1 3 a: by chance .5 · .3 + .5 · .7
    assert found[("p0", "p1")] == pytest.approx((0.6 - 0.5) / (1 - 0.5)) and set(found) == {("p0", "p1")}
    same = [dict(reversed(said.items())) for said in table(*["aa"] * 12)]
    assert cohen_kappas(same) == {}
    turned = [dict(reversed(said.items())) for said in table(*rows)]
    assert cohen_kappas(turned) == found, "a pair goes by its names and not by who answered first"


def alpha_by_hand(questions, distance):
    """Krippendorff 2011 from pairs of values: within a question each weighs 1 / (m − 1), m its answers."""
    units = [list(said.values()) for said in questions if len(said) > 1]
    values = [value for unit in units for value in unit]
    seen = sum(distance(a, b) / (len(unit) - 1) for unit in units for a in unit for b in unit) / len(values)
    n = len(values)
    return 1 - seen / (sum(distance(a, b) for a in values for b in values) / (n * (n - 1)))


def test_krippendorffs_alpha_where_not_all_answer_everything():
    """Two labelers of one question, three of others, one of the last, which says nothing."""
    rows = [(1, 1, None), (None, 2, 4), (1, 2, 2), (4, 4, 4), (4, None, None), (2, 1, 4)]
    assert krippendorff_alpha(table(*rows)) == pytest.approx(alpha_by_hand(table(*rows), lambda a, b: a != b))
    squared = alpha_by_hand(table(*rows), lambda a, b: (a - b) ** 2)
    assert krippendorff_alpha(table(*rows), "interval") == pytest.approx(squared)


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


def said_by(rows, first=0):
    return [
        Answer(first + q, who, answer) for q, row in enumerate(rows) for who, answer in zip("xyz", row, strict=False)
    ]


def test_agreement_has_the_middle_95_of_100_of_resampled_questions():
    """Shares of pairs that agree: 1, 1/3, 1/3, 0 and 1; drawn with replacement under the seed that was given."""
    answers = [*said_by(["aaa", "aab", "abb", "abc", "ccc"]), Answer(9, "w", "a")]
    found = agreement(answers, resamples=21, seed=11)
    assert (found["questions"], found["labelers"]) == (5, 3), "who shares no question is not counted"
    shares, rng = np.array([1, 1 / 3, 1 / 3, 0, 1]), np.random.default_rng(11)
    means = np.sort([shares[rng.integers(0, 5, 5)].mean() for _ in range(21)])
    # 0.025 of the 20 steps between 21 draws is half of the first
    low, high = (means[0] + means[1]) / 2, (means[-1] + means[-2]) / 2
    expected = {"mean": shares.mean(), "low": low, "high": high, "n": 5}
    assert found["raw"] == pytest.approx(expected) and found["cohen_kappa"] == {}


def test_agreement_on_one_answer_alone_is_beyond_chance_nowhere():
    found = agreement(said_by(["aa", "aa", "aa"]), resamples=10)
    nothing = {"mean": None, "low": None, "high": None, "n": 3}
    assert found["fleiss_kappa"] == found["krippendorff_alpha"] == nothing and found["raw"]["low"] == 1


def test_agreement_on_two_questions_has_bounds_from_the_resamples_that_have_a_value():
    """Half of the resamples draw one question twice: of "aa" and "bb" κ is 1 where it is known."""
    found = agreement(said_by(["aa", "bb"]), resamples=20)["fleiss_kappa"]
    assert (found["mean"], found["low"], found["high"]) == (1, 1, 1)


def test_a_fused_question_beside_two_separate_ones_by_hand():
    """The mean α of the two less the fused one's, over the questions that all three have two answers to."""
    rows = {
        "helpful": ["aaa", "bbb", "aab", "ab"],
        "harmless": ["bbb", "aab", "bba", "bb"],
        "overall": ["aab", "abb", "bab", "ba"],
    }
    answers = {name: [*said_by(said), *said_by(["ab"], 4)] for name, said in rows.items()}
    answers["harmless"] = answers["harmless"][:-1]  # one answer to the last: it has no part anywhere
    found = fused_and_separate(answers, "overall", resamples=20, seed=4)
    alpha = {name: krippendorff_alpha(table(*said)) for name, said in rows.items()}
    assert found["krippendorff_alpha"] == pytest.approx(alpha)
    gap = (alpha["helpful"] + alpha["harmless"]) / 2 - alpha["overall"]
    assert (found["difference"]["mean"], found["difference"]["n"]) == (pytest.approx(gap), 4)

    rng, gaps = np.random.default_rng(4), []
    for draw in (rng.integers(0, 4, 4) for _ in range(20)):
        one, two, fused = (krippendorff_alpha(table(*[said[i] for i in draw])) for said in rows.values())
        gaps.append((one + two) / 2 - fused)
    known = np.sort([value for value in gaps if not math.isnan(value)])
    low, high = np.quantile(known, [0.025, 0.975])
    assert (found["difference"]["low"], found["difference"]["high"]) == pytest.approx((low, high))


def test_a_fused_question_without_a_chance_to_differ_has_no_difference():
    answers = {name: said_by(["aa", "aa"]) for name in ("helpful", "overall")}
    found = fused_and_separate(answers, "overall", resamples=5)
    assert found["krippendorff_alpha"] == {"helpful": None, "overall": None}
    assert found["difference"] == {"mean": None, "low": None, "high": None, "n": 2}


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


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 3.841459), (0.9, 2.705543)])
def test_the_interval_of_a_reliability_on_a_grid(level, quantile):
    """Every r whose doubled loss of log-likelihood is below the χ² quantile (tables), against a dense grid."""
    margins = np.tile([2.0, -1.0, 0.5, 3.0, -2.5, 1.5, 2.5, -1.7, 1.0, 4.0, 0.3, 2.2], 3)
    r = np.linspace(0, 1, 20001)[:, None]
    agree = 1 / (1 + np.exp(-margins))
    likelihood = np.log(r * agree + (1 - r) * (1 - agree)).sum(1)
    inside = r[2 * (likelihood.max() - likelihood) < quantile, 0]
    found = reliability_interval(margins, level)
    assert found.mean == pytest.approx(r[likelihood.argmax(), 0], abs=1e-4)
    assert (found.low, found.high) == pytest.approx((inside.min(), inside.max()), abs=1e-4) and found.n == 36
    if level == 0.95:
        assert reliability_interval(margins) == found
    turned = reliability_interval(-margins, level)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((1 - found.mean, 1 - found.high, 1 - found.low))
    assert 0.01 < found.low < found.mean < found.high < 1


def test_the_likeliest_reliability_by_hand_and_at_its_ends():
    """Margins d and −d, a and b times, with l = tanh(d / 2): a l / (½ + x l) = b l / (½ − x l) for x = r − ½."""
    margin, a, b = 2.0, 7, 3
    lean = math.tanh(margin / 2)
    assert likeliest_reliability([margin] * a + [-margin] * b) == pytest.approx(0.5 + (a - b) / (2 * lean * (a + b)))
    assert likeliest_reliability([3.0, 2.0]) == pytest.approx(1 - 1e-6, abs=1e-9)
    assert likeliest_reliability([-3.0, -2.0]) == pytest.approx(1e-6, abs=1e-9)
    nobody = reliability_interval([])
    assert all(map(math.isnan, (nobody.mean, nobody.low, nobody.high))) and nobody.n == 0
