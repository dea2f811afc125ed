"""Ratings against choix, closed forms and planted strengths."""

import json
import math
import random

import choix
import numpy as np
import pytest
from scipy import optimize

from accord.evaluation import ratings as rt
from accord.evaluation.ratings import Vote

STRENGTH = {"base": -1.0, "sft": 0.0, "ppo": 0.7, "limited": 1.0}


def sampled(n=600, seed=0, ties=0.0, prompts=0):
    rng = random.Random(seed)
    votes = []
    for index in range(n):
        a, b = rng.sample(sorted(STRENGTH), 2)
        tied, won = rng.random() < ties, rng.random() < 1 / (1 + math.exp(STRENGTH[b] - STRENGTH[a]))
        outcome = 0.5 if tied else float(won)
        votes.append(Vote(a, b, outcome, f"p{index % prompts}" if prompts else None))
    return votes


def test_two_players_by_hand():
    # 3 wins of 4: odds 3, so 400 · log10(3) = 190.85 points.
    got = rt.fit_ratings([Vote("a", "b", 1)] * 3 + [Vote("a", "b", 0)], anchor="b", base=1000)
    assert got.elo["a"].mean == pytest.approx(1000 + 400 * math.log10(3))
    assert got.elo["b"].mean == 1000
    assert got.win_probability("a", "b") == pytest.approx(0.75)
    assert list(got.elo) == ["a", "b"] and got.elo["a"].n == 4


def test_strengths_agree_with_choix():
    votes = sampled()
    names = sorted(STRENGTH)
    wins = np.zeros((4, 4))
    data = []
    for vote in votes:
        pair = (vote.first, vote.second) if vote.outcome else (vote.second, vote.first)
        winner, loser = (names.index(player) for player in pair)
        wins[winner, loser] += 1
        data.append((winner, loser))
    theirs = choix.opt_pairwise(4, data, alpha=0, tol=1e-10)
    assert rt.bradley_terry(wins) == pytest.approx(theirs - theirs.mean(), abs=1e-4)
    # choix adds alpha · Σ r² to the log-likelihood, we ridge/2 · Σ r²
    theirs = choix.opt_pairwise(4, data, alpha=2.0, tol=1e-10)
    assert rt.bradley_terry(wins, ridge=4.0) == pytest.approx(theirs - theirs.mean(), abs=1e-4)


def test_planted_strengths_are_recovered_within_their_intervals():
    got = rt.fit_ratings(sampled(4000), anchor="sft")
    for name, strength in STRENGTH.items():
        assert got.elo[name].mean / rt.ELO == pytest.approx(strength, abs=0.15)
        if name != "sft":
            assert got.elo[name].low < got.elo[name].mean < got.elo[name].high
    assert got.elo["sft"].low == got.elo["sft"].high == 0.0


def test_g4_ratings_do_not_depend_on_the_order_of_the_votes():
    votes = sampled(300, ties=0.2, prompts=40)
    shuffled = votes[:]
    random.Random(9).shuffle(shuffled)
    assert shuffled != votes
    assert rt.fit_ratings(votes, seed=3) == rt.fit_ratings(shuffled, seed=3)


def test_g4_ratings_do_not_depend_on_which_reply_stood_first():
    votes = sampled(300, ties=0.2)
    turned = [Vote(v.second, v.first, 1 - v.outcome) for v in votes]
    ours, theirs = rt.fit_ratings(votes), rt.fit_ratings(turned)
    assert [i.mean for i in ours.elo.values()] == pytest.approx([i.mean for i in theirs.elo.values()])


def test_b5_a_tie_is_half_a_win_for_each():
    got = rt.fit_ratings([Vote("a", "b", 0.5)] * 6 + [Vote("a", "b", 1)] * 2)
    assert got.win_probability("a", "b") == pytest.approx((2 + 3) / 8)
    assert got.tie_rate == 0.75
    halves = rt.bradley_terry(np.array([[0.0, 2.0], [0.0, 0.0]]), ties=np.array([[0.0, 6.0], [0.0, 0.0]]))
    assert halves[0] - halves[1] == pytest.approx(math.log(5 / 3))


def test_davidson_by_hand_and_against_a_general_optimiser():
    # Two players, 4 wins, 1 loss, 5 ties: the fit is exact, P(tie) = ½ and the odds of a win 4 to 1.
    got = rt.fit_ratings([Vote("a", "b", 1)] * 4 + [Vote("a", "b", 0)] + [Vote("a", "b", 0.5)] * 5, ties="davidson")
    assert (got.elo["a"].mean - got.elo["b"].mean) / rt.ELO == pytest.approx(math.log(4), rel=1e-6)
    assert got.nu == pytest.approx(5 / 2, rel=1e-6)  # 5 ties / sqrt(4 · 1)

    votes = sampled(400, ties=0.3, seed=4)
    names = sorted(STRENGTH)

    def loss(theta):
        total = 0.0
        for vote in votes:
            gap = theta[names.index(vote.first)] - theta[names.index(vote.second)]
            norm = math.log(math.exp(gap / 2) + math.exp(-gap / 2) + math.exp(theta[4]))
            total += norm - (theta[4] if vote.outcome == 0.5 else (vote.outcome - 0.5) * gap)
        return total

    best = optimize.minimize(loss, np.zeros(5), method="BFGS").x
    fit = rt.fit_ratings(votes, ties="davidson", resamples=10)
    assert fit.nu == pytest.approx(math.exp(best[4]), rel=1e-3)
    centred = best[:4] - best[:4].mean()
    assert [fit.elo[name].mean / rt.ELO for name in names] == pytest.approx(centred, abs=1e-3)


def test_players_without_a_finite_rating_are_refused_unless_a_ridge_is_given():
    votes = [Vote("a", "b", 1)] * 5
    with pytest.raises(ValueError, match="ridge"):
        rt.fit_ratings(votes)
    with pytest.raises(ValueError, match="ridge"):
        rt.fit_ratings([Vote("a", "b", 1), Vote("a", "b", 0), Vote("c", "d", 1), Vote("c", "d", 0)])
    got = rt.fit_ratings(votes, ridge=0.1)
    # the maximum of 5 · log σ(2r) - 0.1 · r² has 10 · σ(-2r) = 0.2 · r
    r = got.elo["a"].mean / rt.ELO
    assert 10 / (1 + math.exp(2 * r)) == pytest.approx(0.2 * r, rel=1e-6)
    with pytest.raises(ValueError, match="ridge"):
        rt.bradley_terry(np.array([[0.0, 2.0], [0.0, 0.0]]))


def test_votes_on_one_prompt_are_drawn_together():
    # 10 prompts with 30 identical votes each carry the evidence of 10 votes, not of 300.
    single = [Vote("a", "b", float(p < 7), p) for p in range(10)]
    many = [vote for vote in single for _ in range(30)]
    width = {}
    for name, votes in {
        "many": many,
        "alone": [v._replace(cluster=None) for v in many],
        "single": single,
    }.items():
        interval = rt.fit_ratings(votes, anchor="b", ridge=1e-6).elo["a"]
        width[name] = interval.high - interval.low
    assert width["many"] > 3 * width["alone"]
    assert width["many"] == pytest.approx(width["single"], rel=0.2)


def test_g3_elo_interval_covers_the_truth():
    hits = 0
    for trial in range(150):
        interval = rt.fit_ratings(sampled(250, seed=trial), anchor="sft", resamples=300).elo["ppo"]
        hits += interval.low <= STRENGTH["ppo"] * rt.ELO <= interval.high
    assert 0.90 <= hits / 150 <= 0.995


def test_bad_votes_are_refused_and_the_result_goes_into_json():
    with pytest.raises(ValueError, match="no votes"):
        rt.fit_ratings([])
    with pytest.raises(ValueError, match="itself"):
        rt.fit_ratings([Vote("a", "a", 1)])
    with pytest.raises(ValueError, match="outcome"):
        rt.fit_ratings([Vote("a", "b", 2)])
    with pytest.raises(ValueError, match="anchor"):
        rt.fit_ratings([Vote("a", "b", 1), Vote("a", "b", 0)], anchor="c")
    plain = json.dumps(rt.fit_ratings(sampled(100)).json(), allow_nan=False)
    assert '"elo"' in plain
