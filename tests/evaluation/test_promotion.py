"""Head-to-head votes against bounds: how many are needed, how the error is spent, who is worst off, who counts."""

import math
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
from accord.evaluation.statistics import share_interval
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


def test_the_number_of_comparisons_is_the_normal_sample_size_of_a_share():
    """z 1.2816 at .9, 0.5244 at power .7: ((1.2816 · √.24 + .5244 · √.2244) / .06)² of .66 beside .6."""
    reach = 1.2815516 * math.sqrt(0.6 * 0.4) + 0.5244005 * math.sqrt(0.66 * 0.34)
    needed = comparisons_needed(0.66, confidence=0.9, power=0.7, against=0.6)
    assert needed == math.ceil((reach / 0.06) ** 2) == 214


@pytest.mark.parametrize(("rate", "against"), [(0.5, 0.5), (0.4, 0.5), (1.0, 0.5), (0.7, 0.75)])
def test_a_rate_at_an_end_is_refused(rate, against):
    with pytest.raises(ValueError, match=f"a rate of {rate} is not between {against} and 1"):
        comparisons_needed(rate, against=against)


def test_the_part_of_the_error_of_a_round_by_hand():
    """A tenth over four rounds: a fortieth each, or a twentieth, a fortieth, an eightieth."""
    even, halved = ([of_round(BOUND, k, 4, how).confidence for k in (1, 2, 3)] for how in SPENDING)
    assert even == pytest.approx([0.975] * 3) and halved == pytest.approx([0.95, 0.975, 0.9875])
    assert of_round(BOUND, 2, 4) == GateBound("help", "win/helpful", "all", "at least", 0.5, even[1])
    assert one_sided(GateBound("help", "win/helpful", "all", "at least", 0.5, 0.8)) == pytest.approx(0.9)


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
    generator, rounds, runs = random.Random(4), 3, 200
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
    assert verdict.interval == share_interval([v.outcome for v in said], [v.cluster for v in said], 0.9)
    assert verdict.bound is BOUND


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


def test_of_groups_that_fare_alike_the_one_with_the_lowest_mean_is_worst():
    """All three are not decided: means .65, .6 and .7; the order of the votes says nothing."""

    def said(group, wins, prompts):
        return [Vote("candidate", "incumbent", float(k < wins), k, f"human:{group}:1") for k in range(prompts)]

    all_votes = said("b", 13, 20) + said("c", 12, 20) + said("a", 14, 20)
    verdict, group = judge_worst_group(BOUND, all_votes, group_of)
    assert (verdict.kept, group, verdict.interval.mean) == ("not decided", "c", pytest.approx(0.6))
    # one that is not met is worse than one that nobody knows, and that than one which is met
    grave = judge_worst_group(BOUND, all_votes + said("d", 0, 10) + said("e", 2, 20) + said("f", 20, 20), group_of)
    assert (grave[0].kept, grave[1]) == ("not met", "e")


def test_meetings_without_a_judge_count_in_every_group():
    many = [Vote("candidate", "incumbent", 1.0, k, "human:many:1") for k in range(30)]
    ties = [Vote("candidate", "incumbent", 0.5, f"tie {k}") for k in range(30)]
    verdict, _ = judge_worst_group(BOUND, many + ties, group_of)
    assert verdict.interval.mean == pytest.approx(0.75) and verdict.prompts == 60
    alone, nobody = judge_worst_group(BOUND, ties, group_of)
    assert alone.kept == "not decided" and (alone.prompts, nobody) == (30, "")


@pytest.mark.parametrize(
    ("ranks", "probability", "outcome"),
    [((1, 2), 0.8, 0.8), ((1, 2), 1.0, 1.0), ((2, 1), 1.0, 0.0), ((1, 1), 1.0, 0.5), ((2, 1), 0.7, 0.3)],
)
def test_a_vote_is_the_candidate_s_share(ranks, probability, outcome):
    prompt = Prompt((Turn("user", "why"),), "", "")
    said = Comparison(prompt, ("a", "b"), ranks, "helpful", "ai:x", 0.0, (0, 1), probability=probability)
    vote = vote_of(said, "incumbent")
    assert vote == Vote("candidate", "incumbent", vote.outcome, prompt.id, "ai:x", (prompt.id, "helpful"))
    assert vote.outcome == pytest.approx(outcome) and vote.judge == "ai:x" and vote.cluster == prompt.id


def test_who_fails_the_check_items_is_named_with_the_numbers():
    answers = {"a": [True] * 9 + [False], "b": [False] * 6 + [True] * 4, "c": [False] * 9}
    assert failed_checks(answers, CheckRule()) == {"b": (4, 10)}, "9 answers are too few to exclude anybody"
    found = failed_checks({name: iter(right) for name, right in answers.items()}, CheckRule(9, 0.95))
    assert found == {"a": (9, 10), "b": (4, 10), "c": (0, 9)} and list(found) == ["a", "b", "c"]
