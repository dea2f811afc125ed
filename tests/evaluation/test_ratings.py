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
from accord.evaluation.statistics import Interval, percentile_tail, resample_weights

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

    votes = sampled(120, ties=0.3, seed=4)
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


def test_a_vote_turned_over_is_what_it_was():
    vote = Vote("a", "b", 0.9, "p3", "judge", "q", (120, 45), True)
    assert vote.turned() == Vote("b", "a", pytest.approx(0.1), "p3", "judge", "q", (45, 120), False)


def test_a_tie_of_its_own_kind_is_half_a_win_in_the_probability():
    """4 wins, 1 loss and 5 ties: the fit is exact, so a wins 4 of 10 and half of 5; of ν = ¾ and a gap of 150 too."""
    votes = [Vote("a", "b", 1)] * 4 + [Vote("a", "b", 0)] + [Vote("a", "b", 0.5)] * 5
    fit = rt.fit_ratings(votes, ties="davidson", resamples=5)
    assert fit.win_probability("a", "b") == pytest.approx(0.65) and fit.tie_rate == 0.5
    assert fit.win_probability("b", "a") == pytest.approx(0.35)
    plain = rt.Ratings({"a": Interval(100, 0, 0, 1), "b": Interval(-50, 0, 0, 1)}, 0.0, 0.75, 1, "")
    win, tie, loss = 10 ** (150 / 800), 0.75, 10 ** (-150 / 800)
    assert plain.win_probability("a", "b") == pytest.approx((win + tie / 2) / (win + tie + loss))


def test_what_is_saved_of_ratings():
    votes = [Vote("b", "a", 1), Vote("a", "b", 1), Vote("b", "a", 1), Vote("c", "a", 0.25), Vote("a", "b", 0.5)]
    found = rt.fit_ratings(votes, anchor="c", base=7.0, resamples=20)
    assert list(found.elo) == ["b", "a", "c"] and [found.elo[name].n for name in "abc"] == [5, 4, 1]
    plain = found.json()
    assert plain == {
        "elo": {name: interval.json() for name, interval in found.elo.items()},
        "tie_rate": 0.2, "nu": 0.0, "n": 5, "anchor": "c",
    }  # fmt: skip
    even = rt.fit_ratings([Vote("y", "x", 1), Vote("x", "y", 1)], resamples=0)
    assert list(even.elo) == ["x", "y"], "of equals the first by name"
    assert found.elo["c"].mean == 7.0 and sum(i.mean for i in rt.fit_ratings(votes).elo.values()) == pytest.approx(0)


def test_intervals_are_quantiles_of_refits_of_resampled_prompts():
    """Each refit by itself, of wins and halves counted anew, with the ridge that a resample without losses needs."""
    votes = sampled(90, seed=3, ties=0.2, prompts=12)
    names, keys = sorted(STRENGTH), sorted({v.cluster for v in votes}, key=lambda key: repr(("cluster", key)))
    tables = np.zeros((12, 4, 4))
    for vote in votes:
        a, b, unit = names.index(vote.first), names.index(vote.second), keys.index(vote.cluster)
        tables[unit, a, b] += vote.outcome
        tables[unit, b, a] += 1 - vote.outcome
    (weights,) = resample_weights(12, 40, 5)
    for ridge in (0.0, 0.3):
        refits = np.array([rt.bradley_terry(np.tensordot(w, tables, 1), ridge=max(ridge, 0.01)) for w in weights])
        refits = (refits - refits[:, [1]]) * rt.ELO
        whole = rt.bradley_terry(tables.sum(0), ridge=ridge)
        elo, draws = rt.elo_draws(votes, names[1], ridge=ridge, resamples=40, seed=5)
        assert draws == pytest.approx(refits, abs=1e-5) and elo == pytest.approx((whole - whole[1]) * rt.ELO)
        found = rt.fit_ratings(votes, ridge=ridge, anchor=names[1], base=100, resamples=40, level=0.8, seed=5)
        tail = percentile_tail(12, 0.8)
        low, high = np.quantile(refits + 100, (tail, 1 - tail), axis=0)
        assert [found.elo[name].low for name in names] == pytest.approx(low, abs=1e-5)
        assert [found.elo[name].high for name in names] == pytest.approx(high, abs=1e-5)
        assert [found.elo[name].mean for name in names] == pytest.approx(elo + 100)


def test_a_resample_far_from_the_whole_is_fitted_all_the_same():
    """200 wins on one prompt and a loss on each of two: some resamples have losses alone, some wins alone."""
    votes = [*[Vote("a", "b", 1, 0)] * 200, Vote("a", "b", 0, 1), Vote("b", "a", 1, 2)]
    (weights,) = resample_weights(3, 20, 0)
    expected = [
        rt.bradley_terry(np.array([[0, 200 * w[0]], [w[1] + w[2], 0]]), ridge=0.01) @ [1, -1] * rt.ELO for w in weights
    ]
    _, draws = rt.elo_draws(votes, "b", resamples=20)
    assert min(expected) < -800 and max(expected) > 1000
    assert draws[:, 0] == pytest.approx(expected, abs=1e-5)


def test_davidsons_ratings_without_ties_are_those_of_wins():
    votes = sampled(80, seed=2)
    davidson, halves = (rt.fit_ratings(votes, ties=ties, ridge=0.2, resamples=10) for ties in ("davidson", "half"))
    assert davidson == halves and davidson.nu == 0


def test_what_is_drawn_by_default():
    votes = sampled(60, seed=3, prompts=12)
    assert rt.fit_ratings(votes, ridge=0.1) == rt.fit_ratings(votes, ridge=0.1, resamples=1000, level=0.95, seed=0)
    drawn, named = rt.elo_draws(votes, "sft"), rt.elo_draws(votes, "sft", ridge=0.0, resamples=1000, seed=0)
    assert np.array_equal(drawn[0], named[0]) and np.array_equal(drawn[1], named[1])
    assert rt.fit_ratings(votes).anchor == "" and rt.fit_ratings(votes).n == 60


def test_one_prompt_has_ratings_and_no_intervals():
    votes = [Vote("a", "b", 1, "p"), Vote("a", "b", 1, "p"), Vote("b", "a", 1, "p")]
    found = rt.fit_ratings(votes)
    assert found.elo["a"].mean - found.elo["b"].mean == pytest.approx(400 * math.log10(2))
    assert all(math.isnan(i.low) and math.isnan(i.high) for i in found.elo.values())
    assert rt.elo_draws(votes, "a")[1].shape == (0, 2)
    assert not math.isnan(rt.fit_ratings([vote._replace(cluster=None) for vote in votes]).elo["a"].low)


@pytest.mark.parametrize("outcome", [-0.01, 1.01, math.nan])
def test_an_outcome_outside_is_refused(outcome):
    votes = [Vote("a", "b", 1), Vote("a", "b", 0), Vote("a", "b", 0.25)]
    assert rt.fit_ratings(votes).n == 3
    with pytest.raises(ValueError, match=f"outcome {outcome} is not between 0 and 1"):
        rt.fit_ratings([*votes, Vote("a", "b", outcome)])
    with pytest.raises(ValueError, match=r"outcome 0\.25 is not 0, ½ or 1, as Davidson's ties ask for"):
        rt.fit_ratings(votes, ties="davidson")


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
    """The quick twin: the standard error of 100 draws is .022."""
    assert (elo_coverage(100, 60, 1.0, 300) >= 0.89).all()


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
