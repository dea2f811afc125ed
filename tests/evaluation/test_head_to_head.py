"""Win rates of pairs, order, cycles and length control, by hand and against a general optimiser."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import optimize, special

from accord.evaluation.agreement import by_question
from accord.evaluation.head_to_head import answers, cyclic_triples, mean_lengths, order_effect, pair_rates
from accord.evaluation.length_control import LEAST_RIVALS, length_controlled
from accord.evaluation.ratings import Vote, fit_ratings
from accord.evaluation.statistics import share_interval, wilson


def test_a_pair_is_seen_from_the_first_by_name_whoever_stood_first():
    votes = [Vote("b", "a", 1, 1), Vote("a", "b", 1, 2), Vote("a", "b", 0.5, 3), Vote("a", "c", 0.25, 4)]
    first, second = pair_rates(votes)
    assert (first["first"], first["second"], first["tie_rate"]) == ("a", "b", pytest.approx(1 / 3))
    assert first["rate"] == share_interval([0, 1, 0.5]).json()
    assert second["rate"]["mean"] == 0.25
    turned = [vote.turned() for vote in votes]
    assert pair_rates(turned) == [first, second]


def test_what_the_order_did_and_how_often_a_judge_kept_to_its_answer():
    ordered = [
        Vote("a", "b", 1, 1, "j", "q1", ordered=True),
        Vote("b", "a", 0, 1, "j", "q1", ordered=True),  # a again: kept
        Vote("a", "b", 1, 2, "j", "q2", ordered=True),
        Vote("b", "a", 1, 2, "j", "q2", ordered=True),  # whoever is first: not kept
        Vote("a", "b", 0.5, 3, "j", "q3", ordered=True),
        Vote("b", "a", 0.5, 3, "j", "q3", ordered=True),  # a tie both times: kept
        Vote("a", "b", 0, 4, "j", "q4", ordered=True),
        Vote("b", "a", 1, 4, "j", "q4", ordered=True),  # b again: kept
        Vote("a", "b", 1, 4, "k", "q3", ordered=True),  # another judge was asked once
    ]
    found = order_effect([*ordered, Vote("a", "b", 0, 5)])
    assert found["first_wins"]["n"] == 9 and found["first_wins"]["mean"] == pytest.approx(
        (1 + 0 + 1 + 1 + 0.5 + 0.5 + 0 + 1 + 1) / 9
    )
    assert found["both_orders"] == 4 and found["kept"] == wilson(3, 4).json()
    assert order_effect([Vote("a", "b", 1, 1)]) == {}


def test_votes_in_both_orders_are_one_answer_and_a_contradiction_is_a_tie():
    votes = [
        Vote("a", "b", 1, 1, "j", "q1"),
        Vote("b", "a", 1, 1, "j", "q1"),
        Vote("b", "a", 0, 1, "k", "q1"),
        Vote("a", "b", 0.3, 2, "j", "q2"),
    ]
    said = {(answer.question[0], answer.labeler): answer.answer for answer in answers(votes)}
    assert said == {("q1", "j"): 0, ("q1", "k"): 1, ("q2", "j"): -1}
    assert by_question(answers(votes)) == [{"j": 0, "k": 1}]


def test_cycles_by_hand_and_as_bradley_terry_expects_them():
    def triple(cluster, ab, bc, ac):
        return [Vote("a", "b", ab, cluster), Vote("b", "c", bc, cluster), Vote("c", "a", 1 - ac, cluster)]

    votes = [*triple(1, 1, 1, 0), *triple(2, 1, 1, 1), *triple(3, 0, 0, 1), *triple(4, 1, 0, 1), *triple(5, 1, 0.5, 0)]
    found = cyclic_triples(votes, fit_ratings(votes, resamples=10))
    assert found.triples == 4 and found.seen["mean"] == 0.5  # 1 and 3; the fifth has a tie

    # all equal: each of 8 outcomes is as likely, 2 of them cycles
    even = [vote for k in range(4) for vote in triple(k, k % 2, k % 2, k % 2)]
    assert cyclic_triples(even, fit_ratings(even, resamples=10)).expected == pytest.approx(0.25)
    assert math.isnan(cyclic_triples([Vote("a", "b", 1), Vote("a", "b", 0)], fit_ratings(even)).expected)


def test_cycles_of_bradley_terry_people_are_as_many_as_it_expects():
    rng = np.random.default_rng(3)
    strength = {"a": 0.0, "b": 0.4, "c": 1.0, "d": 1.5}
    votes = [
        Vote(x, y, float(rng.random() < special.expit(strength[x] - strength[y])), p)
        for p in range(2000)
        for x, y in combinations(strength, 2)
    ]
    found = cyclic_triples(votes, fit_ratings(votes, resamples=10))
    assert found.triples == 8000 and found.seen["low"] < found.expected < found.seen["high"]
    assert found.seen["high"] - found.seen["low"] < 0.03


def test_mean_lengths_of_all_replies_of_a_snapshot():
    votes = [
        Vote("a", "b", 1, lengths=(10, 30)),
        Vote("b", "a", 1, lengths=(50, 20)),
        Vote("a", "c", 1, lengths=(30, 2)),
    ]
    assert mean_lengths(votes) == {"a": 20, "b": 40, "c": 2}


# Length control


def judged(rng, names, prompts, *, effect=1.2, hardness=1.0, soft=False):
    """Votes against `base` of a judge that likes length; replies are longer by 300 on average."""
    hard, votes = rng.normal(0, hardness, prompts), []
    for number, name in enumerate(names):
        more = rng.normal(300, 500, prompts)
        chance = special.expit(-0.8 + 0.3 * number + effect * np.tanh(more / more.std()) + hard)
        said = chance if soft else (rng.random(prompts) < chance).astype(float)
        votes += [Vote(name, "base", float(said[x]), x, lengths=(1000 + more[x], 1000)) for x in range(prompts)]
    return votes


def at_equal_length(level, hardness=1.0):
    """The true win rate, over prompts."""
    places, weights = np.polynomial.hermite_e.hermegauss(60)
    return float(special.expit(level + hardness * places) @ (weights / weights.sum()))


def test_length_control_is_a_logistic_regression_read_at_equal_length():
    """Against a general optimiser, with the same small ridge."""
    votes = judged(np.random.default_rng(1), ["a"], 120)
    votes = [vote.turned() if k % 3 else vote for k, vote in enumerate(votes)]  # whoever stands first
    more = np.array([v.lengths[0] - v.lengths[1] if v.first == "a" else v.lengths[1] - v.lengths[0] for v in votes])
    won = np.array([v.outcome if v.first == "a" else 1 - v.outcome for v in votes])
    longer = np.tanh(more / more.std())

    def loss(w):
        z = w[0] + w[1] * longer
        return np.logaddexp(0, z).sum() - won @ z + (w @ w) / 200

    best = optimize.minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
    found = length_controlled(votes, "base")["a"]
    assert found.effect == pytest.approx(best[1], abs=1e-4)
    assert found.controlled.mean == pytest.approx(special.expit(best[0]), abs=1e-5)
    assert found.raw == share_interval(won, [v.cluster for v in votes])


def test_a_judge_that_likes_length_is_corrected_and_one_that_does_not_is_left_alone():
    rng, names = np.random.default_rng(2), ["a", "b", "c", "d", "e", "f"]
    biased = length_controlled(judged(rng, names, 1500), "base")
    fair = length_controlled(judged(rng, names, 1500, effect=0.0), "base")
    for number, name in enumerate(names):
        truth = at_equal_length(-0.8 + 0.3 * number)
        assert biased[name].controlled.mean == pytest.approx(truth, abs=0.04)
        assert biased[name].raw.mean > biased[name].controlled.mean + 0.05
        # a snapshot's own votes are no part of how hard its prompts are, or its effects would come out too large
        assert biased[name].effect == pytest.approx(1.2, abs=0.3)
        assert fair[name].controlled.mean == pytest.approx(fair[name].raw.mean, abs=0.03)


def test_replies_that_are_all_as_much_longer_leave_nothing_to_control_by():
    votes = [Vote("a", "base", float(k % 2), k, lengths=(30, 20)) for k in range(20)]
    found = length_controlled(votes, "base")["a"]
    assert math.isnan(found.controlled.mean) and found.raw.mean == 0.5 and found.json()["effect"] is None
    assert length_controlled(votes, "other") == {}


def test_a_judge_without_a_doubt_and_prompts_of_one_vote_still_have_a_rate():
    votes = [Vote("a", "base", 1.0, k, lengths=(20 + k, 30)) for k in range(40)]
    found = length_controlled(votes, "base")["a"].controlled
    assert 0.9 < found.mean < 1 and found.low < found.mean <= found.high <= 1


@pytest.mark.parametrize("names", [["a"], pytest.param(list("abcdef"), marks=pytest.mark.slow)])
def test_intervals_under_length_control_cover(names):
    """200 trials of 120 prompts: the standard error of a coverage of .95 is .015. The raw rate is far off."""
    assert len(names) in (1, LEAST_RIVALS + 1)
    truth, held, raw = at_equal_length(-0.8), 0, 0
    for trial in range(200):
        found = length_controlled(judged(np.random.default_rng(trial), names, 120), "base")["a"]
        held += found.controlled.low <= truth <= found.controlled.high
        raw += found.raw.low <= truth <= found.raw.high
    assert held / 200 >= 0.91 and raw / 200 < 0.75
