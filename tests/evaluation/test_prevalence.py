"""Shares as a judge that errs sees them: by hand, against numbers worked out elsewhere, and whether intervals cover."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from accord.evaluation.prevalence import JudgeErrors, corrected_share, judge_errors, prediction_powered
from accord.evaluation.statistics import effective_count, mean_interval, wilson


def test_errors_are_counted_on_each_side():
    said, truth = [1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]
    found = judge_errors(said, truth)
    assert found == JudgeErrors(pytest.approx(2), pytest.approx(3), pytest.approx(3), pytest.approx(4))
    assert found.sensitivity.mean == pytest.approx(2 / 3) and found.specificity.mean == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="7 answers beside 6 truths"):
        judge_errors(said, truth[:6])


def test_replies_to_one_prompt_count_as_many_as_they_are_worth():
    """40 prompts with 5 replies each on which the judge is always right or always wrong: 40 labels, not 200."""
    right = np.repeat(np.arange(40) < 30, 5)
    found = judge_errors(right, np.ones(200), np.repeat(np.arange(40), 5).tolist())
    assert found.sensitivity.mean == pytest.approx(0.75) and 35 < found.positives < 50
    assert judge_errors(right, np.ones(200)).positives == pytest.approx(200)


def test_the_estimate_is_rogan_and_gladens():
    """sensitivity .8, specificity .9, 27 of 100 seen: (.27 + .9 − 1) / .7 = 0.243."""
    errors = JudgeErrors(80, 100, 90, 100)
    found = corrected_share([1] * 27 + [0] * 73, errors)
    assert found.mean == pytest.approx(0.17 / 0.7) and found.n == 100
    # a judge without errors, known of very many labels, leaves Agresti and Coull's interval, which is near Wilson's
    sure = corrected_share([1] * 27 + [0] * 73, JudgeErrors(1e9, 1e9, 1e9, 1e9))
    plain = wilson(27, 100)
    assert sure.mean == pytest.approx(0.27)
    assert (sure.low, sure.high) == pytest.approx((plain.low, plain.high), abs=0.004)


def test_the_interval_is_lang_and_reiczigels_worked_by_hand():
    """n 100, 27 positive, 80 of 100 and 90 of 100: their steps one by one with z = 1.959964."""
    z2 = 1.959964**2
    n, share = 100 + z2, (27 + z2 / 2) / (100 + z2)
    sensitivity, specificity = 81 / 102, 91 / 102
    youden = sensitivity + specificity - 1
    middle = (share + specificity - 1) / youden
    a, b = sensitivity * (1 - sensitivity) / 102, specificity * (1 - specificity) / 102
    shift = 2 * z2 * (middle * a - (1 - middle) * b)
    reach = math.sqrt(z2 * (share * (1 - share) / n + middle**2 * a + (1 - middle) ** 2 * b)) / youden
    found = corrected_share([1] * 27 + [0] * 73, JudgeErrors(80, 100, 90, 100))
    assert (found.low, found.high) == pytest.approx((middle + shift - reach, middle + shift + reach), abs=1e-6)


def test_a_share_stays_a_share_and_clusters_widen_it():
    errors = JudgeErrors(90, 100, 90, 100)
    none = corrected_share([0] * 30, errors)
    assert none.mean == none.low == 0 and 0 < none.high < 0.15
    # who takes a tenth of the others' replies for it would not see 0 of 500: it errs otherwise here
    for said in ([0] * 500, [1] * 500):
        with pytest.raises(ValueError, match="does not fit"):
            corrected_share(said, errors)
    said = np.repeat(np.arange(20) < 8, 5).astype(float)
    keys = np.repeat(np.arange(20), 5).tolist()
    alone, together = corrected_share(said, errors), corrected_share(said, errors, keys)
    assert together.mean == alone.mean and together.high - together.low > 1.5 * (alone.high - alone.low)
    assert effective_count(said, keys) == pytest.approx(20, rel=0.2)


def test_a_judge_that_tells_nothing_apart_is_refused():
    for errors in (JudgeErrors(50, 100, 50, 100), JudgeErrors(3, 5, 3, 5), JudgeErrors(2, 10, 2, 10)):
        assert not errors.tells
        with pytest.raises(ValueError, match="does not tell"):
            corrected_share([1, 0, 1], errors)
    assert JudgeErrors(80, 100, 60, 100).tells


def test_prediction_powered_by_hand():
    """A judge that is right about all of 100, of which .3 are so, and says .4 of 300 others.

    λ = covariance / (variance of all answers · (1 + n / N)) = .21 / (.234375 · 4/3), the share .3 + λ · .1.
    """
    labelled, rest = [1] * 30 + [0] * 70, [1] * 120 + [0] * 180
    found = prediction_powered(rest, labelled, labelled)
    assert found.mean == pytest.approx(0.3 + 0.21 / (0.234375 * 4 / 3) * 0.1) and found.n == 400
    # what is left of the labelled, and what the judge says elsewhere, each of variance over its number; on the logit
    weight, mean = 0.21 / (0.234375 * 4 / 3), found.mean
    error = math.sqrt(((1 - weight) ** 2 * 0.21 / 100 + weight**2 * 0.24 / 300) * 400 / 399)
    reach = student.ppf(0.975, 399) * error / (mean * (1 - mean))
    assert found.low == pytest.approx(1 / (1 + math.exp(reach - math.log(mean / (1 - mean)))))
    # one whose answers have nothing to do with the truth is left out: λ = 0
    truth = [1, 0] * 50
    coin = [1, 1, 0, 0] * 25
    assert prediction_powered([1] * 300, coin, truth).mean == pytest.approx(0.5)
    assert prediction_powered([], coin, truth).mean == pytest.approx(0.5)
    with pytest.raises(ValueError, match="2 answers beside 1 truths"):
        prediction_powered([1], [1, 0], [1])


def test_a_good_judge_narrows_the_interval_and_a_bad_one_does_not_widen_it():
    rng = np.random.default_rng(1)
    truth = rng.random(1200) < 0.4
    alone = mean_interval(truth[:200].astype(float))
    width = {}
    for name, right in (("good", 0.95), ("bad", 0.5)):
        said = np.where(rng.random(1200) < right, truth, ~truth).astype(float)
        found = prediction_powered(said[200:], said[:200], truth[:200])
        width[name] = found.high - found.low
    assert width["good"] < 0.75 * (alone.high - alone.low)
    assert width["bad"] == pytest.approx(alone.high - alone.low, rel=0.06)


def test_nobody_and_everybody_have_an_interval_too():
    found = prediction_powered([0] * 500, [0] * 50, [0] * 50)
    assert (found.mean, found.low) == (0, 0) and not found.high < 0
    few = prediction_powered([0] * 400 + [1] * 20, [0] * 99 + [1], [0] * 100)
    assert few.mean >= 0 and few.low <= few.mean <= few.high < 0.2


def test_the_least_that_is_labelled_is_two_and_every_label_has_its_answer():
    assert prediction_powered([1, 0, 1], [1, 0], [1, 0]).n == 5
    for labelled, truth in (([1], [1]), ([1, 0, 1], [1, 0]), ([1, 0], [1, 0, 1])):
        with pytest.raises(ValueError, match=f"{len(labelled)} answers beside {len(truth)} truths; two are the least"):
            prediction_powered([1, 0], labelled, truth)


def test_a_side_without_labels_counts_nothing():
    assert judge_errors([1, 0], [0, 0]) == JudgeErrors(0.0, 0.0, pytest.approx(1), pytest.approx(2))
    assert judge_errors([1, 0, 1], [1, 1, 1]) == JudgeErrors(pytest.approx(2), pytest.approx(3), 0.0, 0.0)


def test_a_corrected_share_is_at_most_all():
    """30 of 30 seen where 90 of 100 are found: 1.125 by the formula."""
    found = corrected_share([1] * 30, JudgeErrors(90, 100, 90, 100))
    assert found.mean == found.high == 1 and 0.85 < found.low < 1


def test_labels_alone_have_the_interval_of_their_own_share():
    """3 of 8 so and nothing else judged: on the logit, by the variance of the labels and Student's t of eight."""
    truth = [1, 0, 0, 1, 0, 0, 1, 0]
    found = prediction_powered([], [1, 0, 0, 1, 1, 0, 0, 0], truth)
    share = 3 / 8
    reach = student.ppf(0.975, 7) * math.sqrt(share * (1 - share) / 7) / (share * (1 - share))
    middle = math.log(share / (1 - share))
    assert (found.mean, found.n) == (share, 8)
    assert (found.low, found.high) == pytest.approx([1 / (1 + math.exp(-middle - side * reach)) for side in (-1, 1)])


def test_a_judge_that_agrees_with_every_label_is_believed_whole_and_no_more():
    """λ = (1/4) / (20/121 · 11/10) is above 1, and is 1: the share is ½ + (1/20 − ½)."""
    assert prediction_powered([1] + [0] * 19, [1, 0], [1, 0]).mean == pytest.approx(0.05)


def test_of_all_or_none_the_bound_is_half_a_label_away():
    everybody, nobody = prediction_powered([1] * 3, [1] * 4, [1] * 4), prediction_powered([0] * 3, [0] * 4, [0] * 4)
    assert (everybody.low, everybody.mean, everybody.high) == pytest.approx((1 - 0.5 / 4, 1, 1))
    assert (nobody.low, nobody.mean, nobody.high) == pytest.approx((0, 0, 0.5 / 4))


def test_a_judge_that_gives_probabilities_leaves_the_share_a_share():
    """With λ near 1: 3/4 + .878 − .525 and 1/3 + λ · (.15 − .633), which lie outside."""
    above = prediction_powered([1, 1, 1, 0.6, 1, 1, 0.9, 0.8, 0.6], [0.4, 0.8, 0.9, 0], [1, 1, 1, 0])
    below = prediction_powered([0.5, 0.1, 0, 0, 0, 0.2, 0.4, 0], [0.4, 0.5, 1], [0, 0, 1])
    assert above.mean == above.high == 1 and 0 < above.low < 1
    assert below.mean == below.low == 0 and 0 < below.high < 1


# Coverage at n = 200 with judges that are right in 70 to 95 % of cases

ACCURACIES = [(0.7, 0.7), (0.8, 0.9), (0.9, 0.7), (0.95, 0.95)]
SHARES = (0.05, 0.2, 0.5, 0.8)


def judged(rng, truth, sensitivity, specificity):
    return np.where(truth, rng.random(len(truth)) < sensitivity, rng.random(len(truth)) >= specificity)


def covers_corrected(rng, share, accuracy):
    """200 replies, and 200 labelled ones of other models of which half are so."""
    truth, labelled = rng.random(200) < share, np.arange(200) < 100
    errors = judge_errors(judged(rng, labelled, *accuracy), labelled)
    if not errors.tells:
        return None
    try:
        found = corrected_share(judged(rng, truth, *accuracy), errors)
    except ValueError:
        return False
    return found.low <= share <= found.high


def covers_prediction_powered(rng, share, accuracy):
    """200 of 1,200 replies have labels."""
    truth = rng.random(1200) < share
    said = judged(rng, truth, *accuracy)
    found = prediction_powered(said[200:], said[:200], truth[:200])
    return found.low <= share <= found.high


def coverage(covers, share, accuracy, trials):
    rng = np.random.default_rng(round(1000 * share + 100 * sum(accuracy)))
    found = [covers(rng, share, accuracy) for _ in range(trials)]
    return np.mean([one for one in found if one is not None])


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("covers", [covers_corrected, covers_prediction_powered])
def test_intervals_with_a_judges_errors_cover_what_they_say(covers, share, accuracy):
    """3,000 truths: the standard error of a coverage of .95 is .004."""
    assert 0.93 <= coverage(covers, share, accuracy, 3000) <= 0.97


@pytest.mark.parametrize("covers", [covers_corrected, covers_prediction_powered])
def test_intervals_with_a_judges_errors_cover_in_few_draws(covers):
    """The quick twin: the standard error of 400 draws is .011."""
    for accuracy in ((0.7, 0.7), (0.95, 0.95)):
        assert 0.92 <= coverage(covers, 0.2, accuracy, 400) <= 0.985
