"""Win rates of pairs, order, cycles and length control, by hand and against a general optimiser."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import optimize, special

from accord.evaluation.agreement import by_question
from accord.evaluation.head_to_head import answers, cyclic_triples, mean_lengths, order_effect, pair_rates
from accord.evaluation.length_control import LEAST_RIVALS, length_controlled
from accord.evaluation.ratings import ELO, Ratings, Vote, fit_ratings
from accord.evaluation.statistics import Interval, influence_interval, share_interval, wilson


def test_a_pair_is_seen_from_the_first_by_name_whoever_stood_first():
    votes = [Vote("b", "a", 1, 1), Vote("a", "b", 1, 2), Vote("a", "b", 0.5, 3), Vote("a", "c", 0.25, 4)]
    first, second = pair_rates(votes)
    assert (first["first"], first["second"], first["tie_rate"]) == ("a", "b", pytest.approx(1 / 3))
    assert first["rate"] == share_interval([0, 1, 0.5]).json()
    assert second["rate"]["mean"] == 0.25
    turned = [vote.turned() for vote in votes]
    assert pair_rates(turned) == [first, second]
    # votes on one prompt are drawn together
    again = [Vote("a", "b", 1, "x"), Vote("b", "a", 0.5, "x"), Vote("b", "a", 1, "y")]
    (row,) = pair_rates(again)
    assert row["rate"] == share_interval([1, 0.5, 0], list("xxy")).json() and row["tie_rate"] == pytest.approx(1 / 3)


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
    assert found["first_wins"] == share_interval([1, 0, 1, 1, 0.5, 0.5, 0, 1, 1], [1, 1, 2, 2, 3, 3, 4, 4, 4]).json()
    assert order_effect([Vote("a", "b", 1, 1)]) == {}
    once = order_effect([Vote("a", "b", 1, 1, "j", "q", ordered=True)])
    assert once == {"first_wins": share_interval([1]).json(), "both_orders": 0}, "nothing was asked in both orders"


def test_votes_in_both_orders_are_one_answer_and_a_contradiction_is_a_tie():
    votes = [
        Vote("a", "b", 1, 1, "j", "q1"),
        Vote("b", "a", 1, 1, "j", "q1"),
        Vote("b", "a", 0, 1, "k", "q1"),
        Vote("a", "b", 0.3, 2, "j", "q2"),
        Vote("a", "b", 0.6, 2, "k", "q3"),
    ]
    said = {(answer.question[0], answer.labeler): answer.answer for answer in answers(votes)}
    assert said == {("q1", "j"): 0, ("q1", "k"): 1, ("q2", "j"): -1, ("q3", "k"): 1}
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


def rated(**elo):
    return Ratings({name: Interval(value, value, value, 1) for name, value in elo.items()}, 0.0, 0.0, 1, "")


def test_the_expected_share_of_cycles_is_of_the_triples_seen_each_by_its_ratings():
    """Odds of 3, 4 and so 12 to one: a > b > c > a and back again, of that triple once and of one with d twice."""
    ratings = rated(a=ELO * math.log(12), b=ELO * math.log(4), c=0.0, d=ELO * math.log(2))

    def triple(cluster, names, judge="j"):
        a, b, c = names
        return [Vote(x, y, 1.0, cluster, judge) for x, y in ((a, b), (b, c), (c, a))]

    abc = 3 / 4 * 4 / 5 * 1 / 13 + 1 / 4 * 1 / 5 * 12 / 13
    abd = 3 / 4 * 2 / 3 * 1 / 7 + 1 / 4 * 1 / 3 * 6 / 7
    votes = [*triple("x", "abc"), *triple("y", "abd"), *triple("y", "dba", "k"), Vote("a", "c", 1.0, "z")]
    # the other votes of judge k on y leave the pair of a and b undecided
    votes += [*triple("z", "abd"), Vote("b", "a", 1.0, "z", "j")]
    found = cyclic_triples(votes, ratings)
    assert found.expected == pytest.approx((abc + 2 * abd) / 3) and found.triples == 3
    assert found.seen == share_interval([1, 1, 1], list("xyy")).json()
    assert found.json() == {"seen": found.seen, "expected": found.expected, "triples": 3}
    none = cyclic_triples(votes[-1:], ratings)
    assert none.json() == {"seen": share_interval([]).json(), "expected": None, "triples": 0}


def test_one_judge_s_answers_on_one_prompt_are_a_triple_and_two_judges_are_not():
    pairs = [("a", "b", 1.0), ("b", "c", 1.0), ("a", "c", 0.0)]
    ratings = rated(a=1.0, b=2.0, c=3.0)
    shared = [Vote(x, y, won, "p", "j" if k else "k") for k, (x, y, won) in enumerate(pairs)]
    assert cyclic_triples(shared, ratings).triples == 0
    apart = [Vote(x, y, won, k, "j") for k, (x, y, won) in enumerate(pairs)]
    assert cyclic_triples(apart, ratings).triples == 0
    assert cyclic_triples([vote._replace(judge="j") for vote in shared[:2]], ratings).triples == 0, (
        "a and c did not meet"
    )
    # 2 of 3 votes for a over b, and both for c over a: a cycle by what was said oftener
    said = [Vote(x, y, won, "p", "j") for x, y, won in (*pairs, ("a", "b", 0.0), ("b", "a", 0.0), ("c", "a", 1.0))]
    assert cyclic_triples(said, ratings).seen["mean"] == 1.0


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


def controlled_by_optimiser(more, won, weigh, columns=()):
    """Weights and the mean chance at equal length, votes weighing `weigh`, which the ridge does not grow with."""
    longer = np.tanh(more / more.std())
    design = np.stack([np.ones(len(more)), longer, *columns], axis=1)
    level = design * np.array([1.0, 0.0, *(1.0 for _ in columns)])

    def loss(w):
        z = design @ w
        return weigh @ (np.logaddexp(0, z) - won * z) + (w @ w) / 200

    def slope(w):
        return design.T @ (weigh * (special.expit(design @ w) - won)) + w / 100

    start = np.zeros(design.shape[1])
    w = optimize.minimize(loss, start, jac=slope, method="BFGS", options={"gtol": 1e-11}).x
    return w, float(special.expit(level @ w) @ weigh / weigh.sum())


def interval_by_refits(more, won, clusters, columns=()):
    """What a vote adds is the slope of the estimate in its weight, times n: from a little more and less of it."""
    n, adds = len(won), []
    for k in range(n):
        tilt = np.eye(n)[k] * 1e-3
        up, down = (controlled_by_optimiser(more, won, 1 + side * tilt, columns)[1] for side in (1, -1))
        adds.append(n * (up - down) / 2e-3)
    found = influence_interval(controlled_by_optimiser(more, won, np.ones(n), columns)[1], adds, clusters)
    return found.mean, found.low, found.high


def test_the_interval_under_length_control_is_of_what_each_vote_adds():
    rng = np.random.default_rng(7)
    more, won = rng.normal(200, 400, 24).round(), rng.random(24).round(2)
    clusters = [k // 2 for k in range(24)]
    votes = [Vote("a", "base", w, k, lengths=(1000 + m, 1000)) for w, k, m in zip(won, clusters, more, strict=True)]
    found = length_controlled(votes, "base")["a"]
    expected = interval_by_refits(more, won, clusters)
    assert (found.controlled.mean, found.controlled.low, found.controlled.high) == pytest.approx(expected, abs=2e-5)
    assert found.json() == {"raw": found.raw.json(), "controlled": found.controlled.json(), "effect": found.effect}


def how_hard(rivals):
    """γ by a general optimiser: an intercept of every prompt beside one of every rival and its effect; ridge 1."""
    names, prompts = list(rivals), sorted({v.cluster for said in rivals.values() for v in said}, key=repr)
    rows, won = [], []
    for k, said in enumerate(rivals.values()):
        more = np.array([v.lengths[0] - v.lengths[1] for v in said], dtype=float)
        for vote, longer in zip(said, np.tanh(more / more.std()), strict=True):
            row = np.zeros(2 * len(names) + len(prompts))
            row[k], row[len(names) + k], row[2 * len(names) + prompts.index(vote.cluster)] = 1, longer, 1
            rows.append(row)
            won.append(vote.outcome)
    design, won = np.array(rows), np.array(won)

    def loss(w):
        z = design @ w
        return np.logaddexp(0, z).sum() - won @ z + (w @ w) / 2

    def slope(w):
        return design.T @ (special.expit(design @ w) - won) + w

    w = optimize.minimize(loss, np.zeros(design.shape[1]), jac=slope, method="BFGS", options={"gtol": 1e-10}).x
    return dict(zip(prompts, w[2 * len(names) :], strict=True))


@pytest.mark.parametrize(("names", "controls"), [("abcdef", True), ("abcde", False)])
def test_prompts_count_by_how_others_do_on_them_where_five_others_have_met_the_baseline(names, controls):
    rng, votes = np.random.default_rng(4), []
    for k, name in enumerate(names):
        for prompt in range(7 + k):  # the last have prompts that nobody else has
            more = round(rng.normal(100, 300))
            votes.append(Vote(name, "base", round(rng.random(), 2), f"p{prompt}", lengths=(500 + more, 500)))
    votes = [vote.turned() if k % 3 else vote for k, vote in enumerate(votes)]
    found = length_controlled([*votes, Vote("a", "z", 1.0, "p0", lengths=(3, 1))], "base")
    assert list(found) == sorted(names)
    seen = [vote if vote.second == "base" else vote.turned() for vote in votes]
    for name in (names[0], names[-1]):
        own = [vote for vote in seen if vote.first == name]
        rivals = {other: [vote for vote in seen if vote.first == other] for other in names if other != name}
        hard = how_hard(rivals)
        columns = [np.array([hard.get(vote.cluster, 0.0) for vote in own])] if controls else []
        more = np.array([vote.lengths[0] - vote.lengths[1] for vote in own], dtype=float)
        won = np.array([vote.outcome for vote in own])
        w, mean = controlled_by_optimiser(more, won, np.ones(len(own)), columns)
        assert found[name].effect == pytest.approx(w[1], abs=2e-3)
        assert found[name].controlled.mean == pytest.approx(mean, abs=2e-4)
        expected = interval_by_refits(more, won, [vote.cluster for vote in own], columns)
        one = found[name].controlled
        assert (one.mean, one.low, one.high, one.n) == pytest.approx((*expected, len(own)), abs=2e-4)


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
    assert found.json()["controlled"] == {"mean": None, "low": None, "high": None, "n": 20}
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
