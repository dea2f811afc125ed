"""Head-to-head votes against bounds: how many are needed, how the error is spent, who is worst off, who counts."""

import random

import pytest
from scipy import stats

from accord.evaluation.checks import CheckRule
from accord.evaluation.gate import GateBound
from accord.evaluation.promotion import (
    SPENDING,
    comparisons_needed,
    failed_checks,
    judge_wins,
    judge_worst_group,
    of_round,
    one_sided,
    vote_of,
)
from accord.evaluation.ratings import Vote
from accord.records import Comparison, Prompt, Turn

BOUND = GateBound("help", "win/helpful", "all", "at least", 0.5, 0.9)


def power(n, rate, confidence):
    """Of the exact one-sided binomial test."""
    least = next(k for k in range(n + 1) if stats.binom.sf(k - 1, n, 0.5) <= 1 - confidence)
    return stats.binom.sf(least - 1, n, rate)


def test_55_percent_needs_about_620_comparisons():
    n = comparisons_needed(0.55, confidence=0.95, power=0.8)
    assert 610 <= n <= 630
    assert power(n, 0.55, 0.95) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("rate", "confidence"), [(0.6, 0.95), (0.55, 0.9917), (0.7, 0.975)])
def test_other_numbers_have_the_power_that_was_asked_for(rate, confidence):
    assert power(comparisons_needed(rate, confidence=confidence), rate, confidence) == pytest.approx(0.8, abs=0.04)


def test_a_rate_that_is_no_gain_cannot_be_found():
    with pytest.raises(ValueError, match=r"not between 0\.5 and 1"):
        comparisons_needed(0.5)


@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("rounds", [1, 3, 10])
def test_the_parts_of_the_error_are_no_more_than_the_whole(spending, rounds):
    parts = [1 - of_round(BOUND, k, rounds, spending).confidence for k in range(1, rounds + 1)]
    assert all(part > 0 for part in parts) and sum(parts) <= 0.1 + 1e-12
    assert one_sided(of_round(BOUND, 1, 1)) == pytest.approx(0.95)


def votes(generator, rate, prompts, judges):
    """`judges` votes on each prompt, of judges who agree more than by chance: the prompt has a side of its own."""
    said = []
    for prompt in range(prompts):
        side = generator.random() < rate
        for judge in range(judges):
            outcome = side if generator.random() < 0.6 else generator.random() < rate
            said.append(Vote("candidate", "incumbent", float(outcome), prompt, f"human:{judge}"))
    return said


def test_a_candidate_as_good_as_the_incumbent_is_seldom_promoted_in_any_of_the_rounds():
    """3 judges a prompt, who agree: an interval over votes would let through many times as many."""
    generator, rounds, runs = random.Random(4), 3, 400
    wrong = 0
    for _ in range(runs):
        bounds = [of_round(BOUND, k, rounds) for k in range(1, rounds + 1)]
        wrong += any(judge_wins(bound, votes(generator, 0.5, 60, 3)).kept == "met" for bound in bounds)
    assert stats.binom.sf(wrong - 1, runs, 0.05) > 0.001, wrong
    assert wrong > 0, "and the error is used"


def test_votes_of_many_judges_count_by_prompts():
    said = votes(random.Random(1), 0.8, 30, 4)
    verdict = judge_wins(BOUND, said)
    assert verdict.prompts == 30 and verdict.interval.n == 120
    lonely = judge_wins(BOUND, [vote._replace(cluster=k) for k, vote in enumerate(said)])
    assert verdict.interval.high - verdict.interval.low > 1.3 * (lonely.interval.high - lonely.interval.low)


def group_of(judge):
    return judge.split(":")[1]


def test_the_worst_off_group_decides():
    many = [Vote("candidate", "incumbent", 1.0, k, "human:many:1") for k in range(80)]
    few = [Vote("candidate", "incumbent", float(k % 5 == 0), k, "human:few:2") for k in range(40)]
    assert judge_wins(BOUND, many + few).kept == "met"
    verdict, group = judge_worst_group(BOUND, many + few, group_of)
    assert (verdict.kept, group) == ("not met", "few") and verdict.interval.mean == pytest.approx(0.2)


def test_a_group_of_whom_too_few_answered_leaves_it_open():
    many = [Vote("candidate", "incumbent", 1.0, k, "human:many:1") for k in range(80)]
    some = [Vote("candidate", "incumbent", 1.0, k, "human:few:2") for k in range(10)]
    verdict, group = judge_worst_group(BOUND, many + some, group_of)
    assert (verdict.kept, group) == ("not decided", "few")


def test_meetings_without_a_judge_count_in_every_group():
    many = [Vote("candidate", "incumbent", 1.0, k, "human:many:1") for k in range(30)]
    ties = [Vote("candidate", "incumbent", 0.5, f"tie {k}") for k in range(30)]
    verdict, _ = judge_worst_group(BOUND, many + ties, group_of)
    assert verdict.interval.mean == pytest.approx(0.75) and verdict.prompts == 60
    assert judge_worst_group(BOUND, ties, group_of)[0].kept == "not decided"


@pytest.mark.parametrize(
    ("ranks", "probability", "outcome"),
    [((1, 2), 1.0, 1.0), ((2, 1), 1.0, 0.0), ((1, 1), 1.0, 0.5), ((2, 1), 0.7, 0.3)],
)
def test_a_vote_is_the_candidate_s_share(ranks, probability, outcome):
    prompt = Prompt((Turn("user", "why"),), "", "")
    said = Comparison(prompt, ("a", "b"), ranks, "helpful", "ai:x", 0.0, (0, 1), probability=probability)
    vote = vote_of(said, "incumbent")
    assert vote.outcome == pytest.approx(outcome) and vote.judge == "ai:x" and vote.cluster == prompt.id


def test_who_fails_the_check_items_is_named_with_the_numbers():
    answers = {"a": [True] * 9 + [False], "b": [False] * 6 + [True] * 4, "c": [False] * 9}
    assert failed_checks(answers, CheckRule()) == {"b": (4, 10)}, "9 answers are too few to exclude anybody"
