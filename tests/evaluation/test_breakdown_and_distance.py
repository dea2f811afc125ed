"""Where a model is right, what length explains, how strange a text is, and what a bag of words knows."""

import numpy as np
import pytest
from scipy import optimize
from sklearn.metrics import roc_auc_score

from accord.evaluation.baselines import BagOfWords
from accord.evaluation.breakdown import PairFacts, breakdown, confident_errors, length_bias
from accord.evaluation.calibration import (
    calibration_intervals,
    difference_curve,
    ece_interval,
    preference_calibration,
    refitted,
)
from accord.evaluation.distance import auroc_interval, fit_gaussian, relative_distance
from accord.evaluation.statistics import bootstrap, share_interval


def pair(number, better=1.0, worse=0.0, source="a", turn=1, strength=0.0, lengths=(10, 5)):
    return PairFacts(
        f"p{number}", source, "x", turn, strength, (better, worse), lengths, "why", (f"good {number}", f"bad {number}")
    )


def test_breakdown_by_hand():
    pairs = [
        pair(0),
        pair(1, better=-1.0, source="b"),
        pair(2, turn=5, source="b", lengths=(5, 50)),
        pair(3, better=0.0, turn=2, lengths=(40, 5)),
    ]
    rows = {(row["by"], row["group"]): row for row in breakdown(pairs)}
    assert rows["source", "a"]["accuracy"]["mean"] == 0.75 and rows["source", "b"]["accuracy"]["mean"] == 0.5
    assert rows["turn", "4 or more"]["n"] == 1 and rows["turn", "2"]["accuracy"]["mean"] == 0.5
    assert sum(row["n"] for (by, _), row in rows.items() if by == "length difference") == 4
    # differences −45, 5, 5, 35: quartiles −7.5, 5 and 12.5; who stands on one is above it
    names = [group for by, group in rows if by == "length difference"]
    assert names == ["1: below -7.5 characters", "3: 5 to 12.5 characters", "4: 12.5 or more characters"]
    assert not any(by in ("strength", "labeler") for by, _ in rows)
    assert rows["score level", "both above the 0% quantile"]["n"] == 4


def facts(number, longer, margin, **more):
    about = {"source": "a", "labeler": "x", "turn": 1, "strength": 0.0, "base": 0.0, "prompt": f"p{number}"} | more
    scores, lengths = (about["base"] + margin, about["base"]), (100 + longer, 100)
    texts = (f"good {number}", f"bad {number}")
    return PairFacts(
        about["prompt"],
        about["source"],
        about["labeler"],
        about["turn"],
        about["strength"],
        scores,
        lengths,
        "why",
        texts,
    )


def row(by, group, margins, prompts):
    accuracy = share_interval([0.5 if m == 0 else float(m > 0) for m in margins], prompts).json()
    mean = pytest.approx(sum(margins) / len(margins))
    return {"by": by, "group": group, "n": len(margins), "accuracy": accuracy, "margin": mean}


def test_every_row_of_a_breakdown_is_of_its_own_pairs():
    """Six pairs, two of one prompt. Differences −8, −2, 0, 4, 6, 20: quartiles −1.5, 2 and 5.5."""
    pairs = [
        facts(0, -8, 1.0, source="", labeler="y", turn=3, strength=0.5),
        facts(1, -2, -2.0, source="b", turn=4, strength=1.0),
        facts(2, 0, 3.0, source="b", turn=9, strength=1.5),
        facts(3, 4, 0.5, source="b", turn=3, strength=2.0, prompt="p2"),
        facts(4, 6, -1.0, source="b", turn=4, strength=3.0),
        facts(5, 20, 0.0, source="b", turn=4, strength=7.0),
    ]
    rows = [found for found in breakdown(pairs) if found["by"] != "score level"]
    assert rows == [
        row("source", "(unnamed)", [1.0], ["p0"]),
        row("source", "b", [-2.0, 3.0, 0.5, -1.0, 0.0], ["p1", "p2", "p2", "p4", "p5"]),
        row("turn", "3", [1.0, 0.5], ["p0", "p2"]),
        row("turn", "4 or more", [-2.0, 3.0, -1.0, 0.0], ["p1", "p2", "p4", "p5"]),
        row("length difference", "1: below -1.5 characters", [1.0, -2.0], ["p0", "p1"]),
        row("length difference", "2: -1.5 to 2 characters", [3.0], ["p2"]),
        row("length difference", "3: 2 to 5.5 characters", [0.5], ["p2"]),
        row("length difference", "4: 5.5 or more characters", [-1.0, 0.0], ["p4", "p5"]),
        # of six strengths the quartiles too: 1.125, 1.75 and 2.75
        row("strength", "1: below 1.125", [1.0, -2.0], ["p0", "p1"]),
        row("strength", "2: 1.125 to 1.75", [3.0], ["p2"]),
        row("strength", "3: 1.75 to 2.75", [0.5], ["p2"]),
        row("strength", "4: 2.75 or more", [-1.0, 0.0], ["p4", "p5"]),
        row("labeler", "x", [-2.0, 3.0, 0.5, -1.0, 0.0], ["p1", "p2", "p2", "p4", "p5"]),
        row("labeler", "y", [1.0], ["p0"]),
    ]
    named = [found["group"] for found in breakdown(pairs[:5]) if found["by"] == "strength"]
    assert named == ["0.5", "1", "1.5", "2", "3"], "five strengths are named one by one"


@pytest.mark.parametrize(("labelers", "rows"), [(1, 0), (2, 2), (40, 40), (41, 0)])
def test_a_breakdown_by_so_many_that_nobody_reads_it_is_left_out(labelers, rows):
    pairs = [facts(number, 0, 1.0, labeler=f"l{number}") for number in range(labelers)]
    assert sum(found["by"] == "labeler" for found in breakdown(pairs)) == rows


def test_score_levels_by_hand():
    """Scores 0 to 7: quantiles 0, 1.75, 3.5 and 5.25, of which the last leaves one pair and so no row."""
    pairs = [
        facts(0, 0, 1.0, base=0.0),
        facts(1, 0, -1.0, base=3.0),
        facts(2, 0, 1.0, base=4.0),
        facts(3, 0, 1.0, base=6.0),
    ]
    rows = [found for found in breakdown(pairs) if found["by"] == "score level"]
    assert rows == [
        row("score level", "both above the 0% quantile", [1.0, -1.0, 1.0, 1.0], ["p0", "p1", "p2", "p3"]),
        row("score level", "both above the 25% quantile", [-1.0, 1.0, 1.0], ["p1", "p2", "p3"]),
        row("score level", "both above the 50% quantile", [1.0, 1.0], ["p2", "p3"]),
    ]
    pairs += [facts(4, 0, 0.5, base=9.0)]
    # 0, 1, 2, 3, 4, 5, 6, 7, 9, 9.5: 6.75
    assert breakdown(pairs)[-1]["group"] == "both above the 50% quantile"
    pairs += [facts(5, 0, -0.5, base=9.5)]
    assert breakdown(pairs)[-1] == row("score level", "both above the 75% quantile", [0.5, -0.5], ["p4", "p5"])


def test_accuracy_falls_where_both_replies_score_high():
    """Scores 2 + x against 2 + y from one distribution: among high pairs the order is nearly a coin's."""
    rng = np.random.default_rng(0)
    quality = rng.normal(size=(3000, 2))
    scores = np.sort(quality, axis=1)[:, ::-1]
    # the better by quality wins with σ(difference): labels flip some
    wins = rng.random(3000) < 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))
    pairs = [pair(i, *(s if w else s[::-1])) for i, (s, w) in enumerate(zip(scores, wins, strict=True))]
    levels = [row["accuracy"]["mean"] for row in breakdown(pairs) if row["by"] == "score level"]
    assert len(levels) == 4 and levels[0] > levels[2] > 0.5


def test_length_bias_of_a_model_that_reads_length_alone():
    """G2: it is right where the better reply is longer and wrong elsewhere, and nothing is left without length."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(10, 100, size=(400, 2))
    pairs = [pair(i, a / 50, b / 50, lengths=(int(a), int(b))) for i, (a, b) in enumerate(lengths)]
    found = length_bias(pairs)
    assert found["correlation"] == pytest.approx(1.0) and found["score_per_100_characters"] == pytest.approx(2.0)
    assert found["better_is_longer"]["mean"] == 1.0 and found["better_is_shorter"]["mean"] == 0.0
    assert found["prefers_longer"]["model"]["mean"] == 1.0
    shy = [pair(i, -a / 50, -b / 50, lengths=(int(a), int(b))) for i, (a, b) in enumerate(lengths)]
    assert length_bias(shy)["prefers_longer"]["model"]["mean"] == 0.0
    assert abs(found["partial"]["mean"] - 0.5) < 0.5
    fair = [pair(i, 1.0 + rng.normal(), 0.0, lengths=(int(a), int(b))) for i, (a, b) in enumerate(lengths)]
    found = length_bias(fair)
    assert abs(found["correlation"]) < 0.1
    assert found["partial"]["mean"] == pytest.approx(found["better_is_longer"]["mean"], abs=0.1)


def test_length_bias_by_hand():
    """Differences 3, −2, 4, 0, 1, 1 and margins 2, 0.2, 2, −3, 0.05, −0.5: slope Σ m d / Σ d² = 13.15 / 31."""
    pairs = [
        facts(0, 3, 2.0),
        facts(1, -2, 0.2),
        facts(2, 4, 2.0),
        facts(3, 0, -3.0, prompt="p2"),
        facts(4, 1, 0.05, base=0.25),
        facts(5, 1, -0.5),
    ]
    scores = [2.0, 0.0, 0.2, 0.0, 2.0, 0.0, -3.0, 0.0, 0.3, 0.25, -0.5, 0.0]
    lengths = [103, 100, 98, 100, 104, 100, 100, 100, 101, 100, 101, 100]
    found = length_bias(pairs)
    assert found.pop("correlation") == pytest.approx(np.corrcoef(scores, lengths)[0, 1])
    assert found.pop("score_per_100_characters") == pytest.approx(100 * 13.15 / 31)
    unequal = ["p0", "p1", "p2", "p4", "p5"]
    assert found == {
        "better_is_longer": share_interval([1, 1, 1, 0], ["p0", "p2", "p4", "p5"]).json(),
        "better_is_shorter": share_interval([1], ["p1"]).json(),
        "prefers_longer": {
            "model": share_interval([1, 0, 1, 1, 0], unequal).json(),
            "labeler": share_interval([1, 0, 1, 1, 1], unequal).json(),
        },
        # 0.73, 1.05, 0.30, −3, −0.37 and −0.92 are left without length
        "partial": share_interval([1, 1, 1, 0, 0, 0], ["p0", "p1", "p2", "p2", "p4", "p5"]).json(),
    }


def test_length_bias_of_replies_that_are_all_as_long_or_score_all_the_same():
    found = length_bias([facts(0, 0, 2.0), facts(1, 0, -1.0)])
    assert found["correlation"] is None and found["score_per_100_characters"] == 0
    assert found["partial"] == share_interval([1, 0]).json() and found["better_is_longer"]["n"] == 0
    assert length_bias([facts(0, 1, 0.5)])["correlation"] == pytest.approx(1)
    level = length_bias([facts(0, 3, 0.0), facts(1, 5, 0.0)])
    assert level["correlation"] is None and level["partial"]["mean"] == 0.5


def test_the_most_confident_errors_come_first():
    pairs = [pair(0), pair(1, better=-3.0), pair(2, better=-1.0), pair(3, better=0.0)]
    errors = confident_errors(pairs, 5)
    assert [e["margin"] for e in errors] == [-3.0, -1.0]
    assert errors[0]["preferred_by_model"] == "bad 1" and errors[0]["preferred_by_labeler"] == "good 1"
    assert len(confident_errors(pairs, 1)) == 1
    assert confident_errors([facts(8, 0, -2.0, source="s", labeler="y", prompt="q")], 1) == [
        {
            "margin": -2.0,
            "source": "s",
            "labeler": "y",
            "prompt_id": "q",
            "prompt": "why",
            "preferred_by_labeler": "good 8",
            "preferred_by_model": "bad 8",
        }
    ]


def test_relative_distance_by_hand():
    """Variances 1 and 4 about 0 and (4, 0): at (2, 0), 4/1 − 4/4 = 3; where they are alike the distance is 0."""
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    near, wide = fit_gaussian(corners), fit_gaussian(2 * corners + np.array([4.0, 0.0]))
    assert relative_distance([[2.0, 0.0]], near, wide)[0] == pytest.approx(3.0, rel=5e-3)
    assert relative_distance([[9.0, 5.0]], near, near)[0] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="two texts"):
        fit_gaussian(np.ones((1, 3)))


def test_a_gaussian_is_of_maximum_likelihood_with_a_thousandth_of_the_mean_variance():
    """By hand: deviations (−2, 0, 2) and (−1, 2, −1) have variances 8/3 and 2 over three texts, no covariance."""
    found = fit_gaussian([[1.0, 4.0], [3.0, 7.0], [5.0, 4.0]])
    floor = 1e-3 * (8 / 3 + 2) / 2
    assert found.mean == pytest.approx([3.0, 5.0])
    assert found.precision == pytest.approx(np.diag([1 / (8 / 3 + floor), 1 / (2 + floor)]))
    distances = found.squared_distance(np.array([[4.0, 3.0], [3.0, 6.0]]))
    assert distances == pytest.approx([1 / (8 / 3 + floor) + 4 / (2 + floor), 1 / (2 + floor)])
    single = fit_gaussian([[1.0], [4.0]])
    assert single.precision == pytest.approx(np.array([[1 / (2.25 * 1.001)]]))
    same = fit_gaussian([[2.0, 2.0], [2.0, 2.0]])  # no variance: a floor of 10⁻³ · 10⁻¹²
    assert same.precision == pytest.approx(1e15 * np.eye(2))
    for shape in ((2,), (2, 2, 1)):
        with pytest.raises(ValueError, match="two texts or more, got features of shape"):
            fit_gaussian(np.ones(shape))


def test_covariance_has_its_part_in_the_distance():
    """Both vary by 2.5, and by 2 together: along (1, −1), where they differ, the variance is 0.5 and a thousandth."""
    found = fit_gaussian([[2.0, 1.0], [1.0, 2.0], [-2.0, -1.0], [-1.0, -2.0]])
    assert found.precision == pytest.approx(np.linalg.inv([[2.5025, 2.0], [2.0, 2.5025]]))
    distance = found.squared_distance(np.array([[1.0, -1.0]]))
    assert distance == pytest.approx([2 / (2.5025 - 2)])


def test_the_distance_finds_what_is_strange_and_not_what_varies_everywhere():
    """Everything varies much along the first axis; strange texts differ along the third."""
    rng = np.random.default_rng(0)
    spread = np.array([30.0, 1.0, 1.0])
    familiar, ordinary = rng.normal(size=(300, 3)) * spread, rng.normal(size=(100, 3)) * spread
    strange = rng.normal(size=(100, 3)) * spread + np.array([0.0, 0.0, 5.0])
    background = np.concatenate([rng.normal(size=(300, 3)) * spread, strange + rng.normal(size=(100, 3))])
    ours, theirs = fit_gaussian(familiar), fit_gaussian(background)
    found = auroc_interval(
        relative_distance(strange, ours, theirs), relative_distance(ordinary, ours, theirs), resamples=200
    )
    assert found.low > 0.95


def test_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    strange, ordinary = rng.integers(0, 6, 40) + 1.0, rng.integers(0, 6, 60)
    labels, scores = np.repeat([1, 0], [40, 60]), np.concatenate([strange, ordinary])
    assert auroc_interval(strange, ordinary, resamples=5).mean == pytest.approx(roc_auc_score(labels, scores))
    # 1 beats 0 and 0.5, 0.5 ties with 0.5 and beats 0: (2 + 1.5) / 4
    assert auroc_interval([1.0, 0.5], [0.0, 0.5], resamples=5).mean == pytest.approx(3.5 / 4)
    assert auroc_interval([1.0], [0.0], resamples=5).mean == 1, "a pair is enough"
    # weights of resampled clusters (strange ones first) are scikit-learn's weights of samples
    strange, ordinary = [2.0, 1.0, 4.0], [1.0, 0.0, 3.0, 0.5]
    clusters = list("aabbccd")
    labels, scores = [1, 1, 1, 0, 0, 0, 0], [*strange, *ordinary]

    def area(weights):
        both = [row[:3].sum() > 0 and row[3:].sum() > 0 for row in weights]
        some = zip(weights, both, strict=True)
        return np.array([roc_auc_score(labels, scores, sample_weight=row) if ok else np.nan for row, ok in some])

    found = auroc_interval(strange, ordinary, clusters, resamples=40, seed=3)
    expected = bootstrap(area, 7, clusters=clusters, resamples=40, seed=3)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx(
        (expected.mean, expected.low, expected.high, 7)
    )


def test_a_bag_of_words_is_a_logistic_regression_on_differences_of_log_counts():
    """Against a general optimiser: Σ log(1 + e^−m) for every pair, from both sides, and ridge · |w|² / 2."""
    pairs = [("good good dog", "bad dog"), ("good cat .", "bad bad cat"), ("a dog", "good"), ("good", "cat , bad")]
    words = sorted({"good", "dog", "bad", "cat", ".", "a", ","})

    def counts(text):
        return np.log1p([text.split().count(word) for word in words])

    x = np.array([counts(better) - counts(worse) for better, worse in pairs])

    def loss(w, ridge):
        return 2 * np.logaddexp(0, -x @ w).sum() + ridge * w @ w / 2

    held_out = [("good", "bad"), ("a cat", "dog dog ,"), ("bad never", "never .")]
    z = np.array([counts(one) - counts(other) for one, other in held_out])
    for ridge in (1.0, 3.0):
        best = optimize.minimize(loss, np.zeros(len(words)), args=(ridge,), method="BFGS", options={"gtol": 1e-8}).x
        assert BagOfWords(pairs, ridge=ridge).margins(held_out) == pytest.approx(z @ best, abs=2e-3)
    # the two commonest words are good and dog or bad; the others say nothing
    assert BagOfWords(pairs, words=2).margins([("a cat ,", ".")]) == pytest.approx([0.0])


def test_a_bag_of_words_learns_which_words_win():
    rng = np.random.default_rng(0)
    noun = ["cat", "dog", "stone", "river"]
    pairs = [(f"please {rng.choice(noun)}", f"never {rng.choice(noun)}") for _ in range(60)]
    model = BagOfWords(pairs)
    held_out = [("please cat", "never cat"), ("never dog", "please dog"), ("cat", "cat")]
    margins = model.margins(held_out)
    assert margins[0] > 0 > margins[1] and margins[2] == pytest.approx(0.0)
    assert margins[0] == pytest.approx(-margins[1], abs=0.3)


# Calibration with intervals


def draws(rng, n, temperature=1.0, scale=2.0):
    """Margins of a model whose scores are `temperature` times too large, from the side of the labeler's choice."""
    d = rng.normal(0, scale, n)
    first = rng.random(n) < 1 / (1 + np.exp(-d))
    return temperature * np.where(first, d, -d)


def test_intervals_are_about_the_points_of_the_plain_calibration():
    margins = draws(np.random.default_rng(0), 800)
    plain, found = preference_calibration(margins), calibration_intervals(margins, resamples=100)
    for name in ("ece", "ece_width", "brier", "log_loss", "slope"):
        assert found[name].mean == pytest.approx(getattr(plain, name), abs=1e-6), name
        assert found[name].low <= found[name].mean <= found[name].high
    assert found["elo_per_point"].mean == pytest.approx(found["slope"].mean * 400 / np.log(10))


@pytest.mark.parametrize(
    "temperature",
    [
        pytest.param(1.0, id="calibrated"),
        pytest.param(1.5, id="too sure", marks=pytest.mark.slow),
        pytest.param(3.0, id="far too sure"),
    ],
)
def test_the_interval_of_a_calibration_error_holds_it_and_what_as_many_pairs_give_on_average(temperature):
    """Quantiles of resamples, which have the noise twice, held neither of a calibrated model."""
    rng, drawn = np.random.default_rng(5), []
    for _ in range(400):
        margins = draws(rng, 200, temperature)
        confidence, outcome = 1 / (1 + np.exp(-np.abs(margins))), (margins > 0).astype(float)
        edges = np.quantile(confidence, np.linspace(0, 1, 11))
        drawn.append(ece_interval(confidence, outcome, edges, resamples=200))
    truth = np.mean([found.mean for found in drawn])
    assert all(found.low <= found.mean <= found.high and found.low >= 0 for found in drawn)
    assert 0.93 <= np.mean([found.low <= truth <= found.high for found in drawn]) <= 0.995


def test_the_slope_of_an_overconfident_model_is_below_one_with_its_interval():
    found = calibration_intervals(draws(np.random.default_rng(1), 1500, temperature=3.0), resamples=200)["slope"]
    assert found.low < 1 / 3 < found.high < 0.6


def test_a_slope_that_does_not_exist_is_infinite():
    for margins, slope in (([1, 2, 3], np.inf), ([-1, -2, -3], -np.inf), ([0, 0, 0], np.nan), ([0, 0.3, 0], np.inf)):
        assert calibration_intervals(margins, resamples=20)["slope"].mean == pytest.approx(slope, nan_ok=True)
    # b of the likeliest σ(b m): log 2 / 0.5 where two of three are right by half a point
    assert calibration_intervals([0.5, 0.5, -0.5], resamples=20)["slope"].mean == pytest.approx(2 * np.log(2))


def test_refitting_mends_the_calibration_on_pairs_it_did_not_see():
    """A calibrated model has ECE under 0.02 with 20,000 pairs; three times too confident it has not, until refitted."""
    rng = np.random.default_rng(2)
    margins = draws(rng, 20_000, temperature=3.0)
    clusters = [f"p{i // 2}" for i in range(20_000)]
    assert preference_calibration(margins).ece > 0.08
    scaled, temperatures = refitted(margins, clusters)
    assert temperatures == pytest.approx((3.0, 3.0), rel=0.1)
    assert preference_calibration(scaled).ece < 0.02
    assert preference_calibration(draws(rng, 20_000)).ece < 0.02


def test_accuracy_by_difference_follows_the_logistic_of_a_calibrated_model():
    curve = difference_curve(draws(np.random.default_rng(3), 20_000))
    assert len(curve) == 10 and sum(point["n"] for point in curve) == 20_000
    assert sum(point["low"] <= point["expected"] <= point["high"] for point in curve) >= 8
    assert difference_curve([]) == []
