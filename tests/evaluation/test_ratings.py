"""Ratings against choix, closed forms and planted strengths."""

import json
import math
import random
from itertools import combinations

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


@pytest.mark.parametrize("prompts", [0, 40])
def test_g4_ratings_do_not_depend_on_the_order_of_the_votes(prompts):
    votes = sampled(300, ties=0.2, prompts=prompts)
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
    # 30 prompts with 30 identical votes each carry the evidence of 30 votes, not of 900.
    single = [Vote("a", "b", float(p < 20), p) for p in range(30)]
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


def test_a_probability_is_so_much_of_a_win():
    """The mean of the outcomes is all that two players' rating stands on."""
    got = rt.fit_ratings([Vote("a", "b", 0.9, 1), Vote("b", "a", 0.4, 2), Vote("a", "b", 0.5, 3)])
    assert got.win_probability("a", "b") == pytest.approx((0.9 + 0.6 + 0.5) / 3)
    assert got.tie_rate == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="Davidson"):
        rt.fit_ratings([Vote("a", "b", 0.9)], ties="davidson")


def test_draws_of_two_judges_on_the_same_prompts_go_together():
    votes = sampled(600, prompts=60)
    elo, draws = rt.elo_draws(votes, "base", resamples=50)
    assert draws.shape == (50, 4) and elo[rt.players(votes).index("base")] == 0 == abs(draws[:, 0]).max()
    fit = rt.fit_ratings(votes, anchor="base").elo
    assert elo == pytest.approx([fit[name].mean for name in rt.players(votes)])
    random.Random(1).shuffle(votes)
    assert np.array_equal(rt.elo_draws(votes, "base", resamples=50)[1], draws)


TRUE = np.array(list(STRENGTH.values()))


def on_prompts(rng, prompts, spread):
    """Everybody against everybody on every prompt, on which they do better and worse than they are by `spread`."""
    votes = []
    for prompt in range(prompts):
        own = TRUE + spread * rng.normal(size=len(TRUE))
        for i, j in combinations(range(len(TRUE)), 2):
            won = rng.random() < 1 / (1 + math.exp(own[j] - own[i]))
            votes.append(Vote(list(STRENGTH)[i], list(STRENGTH)[j], float(won), prompt))
    return votes


def elo_over_prompts(spread):
    """What Bradley-Terry comes to on endless prompts: the fit of the mean win rates; Elo from the first."""
    places, weights = np.polynomial.hermite_e.hermegauss(60)
    gaps = (TRUE[:, None] - TRUE[None, :])[:, :, None] + spread * math.sqrt(2) * places
    rates = (1 / (1 + np.exp(-gaps))) @ (weights / weights.sum())
    np.fill_diagonal(rates, 0)
    scores = rt.bradley_terry(rates)
    return (scores - scores[0]) * rt.ELO


def elo_coverage(trials, prompts, spread, resamples):
    """By player: how often the interval of its Elo from the first held the truth."""
    rng, held = np.random.default_rng(17), np.zeros(len(TRUE) - 1)
    truth = elo_over_prompts(spread)[1:]
    for trial in range(trials):
        got = rt.fit_ratings(on_prompts(rng, prompts, spread), anchor="base", resamples=resamples, seed=trial).elo
        found = [got[name] for name in list(STRENGTH)[1:]]
        held += [interval.low <= true <= interval.high for interval, true in zip(found, truth, strict=True)]
    return held / trials


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "spread"), [(30, 1.0), (60, 0.0), (60, 1.0), (200, 1.0)])
def test_g3_elo_intervals_clustered_by_prompt_cover_what_they_say(prompts, spread):
    """2,000 truths: the standard error of a coverage of .95 is .005."""
    found = elo_coverage(2000, prompts, spread, 600)
    assert (found >= 0.93).all() and (found <= 0.97).all(), found


def test_g3_elo_intervals_clustered_by_prompt_cover_in_few_draws():
    """The quick twin: the standard error of 200 draws is .015."""
    assert (elo_coverage(200, 60, 1.0, 300) >= 0.91).all()


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
