"""From the Elo that a preference model promises to the Elo that a judge gives, on planted worlds."""

import math

import numpy as np
import pytest
from scipy import special

from accord.evaluation.decomposition import STEPS, ScoredReply, decompose
from accord.evaluation.ratings import ELO, Vote, elo_draws, fit_ratings
from accord.evaluation.statistics import percentile_tail, resample_weights

TRUE = {"sft": 0.0, "ppo": 1.0}


def world(seed=0, prompts=1500, *, error=0.0, shift=0.0):
    """A judge of logistic choices on quality; a model that flatters ppo by `error`, by `shift` more elsewhere."""
    rng = np.random.default_rng(seed)
    judged, chosen, scored, promised = [], [], [], []
    for p in range(prompts):
        quality = {name: level + rng.normal() for name, level in TRUE.items()}
        score = {name: q + error * (name == "ppo") for name, q in quality.items()}
        noise = rng.logistic()
        judged.append(Vote("ppo", "sft", float(quality["ppo"] - quality["sft"] + noise > 0), f"judged {p}"))
        chosen.append(judged[-1]._replace(outcome=float(score["ppo"] > score["sft"])))
        scored += [ScoredReply(name, value, f"judged {p}") for name, value in score.items()]
        for name, level in TRUE.items():
            promised.append(ScoredReply(name, level + (error + shift) * (name == "ppo") + rng.normal(), f"other {p}"))
    return judged, chosen, scored, promised


def test_the_steps_add_up_and_the_parts_are_what_they_are_called():
    parts = world(error=0.5, shift=0.8)
    found = decompose(*parts, "sft")["ppo"]
    values = {name: part["mean"] for name, part in found.items()}
    assert values["promised"] == pytest.approx((1.0 + 0.5 + 0.8) * ELO, abs=25)
    assert values["scored"] == pytest.approx((1.0 + 0.5) * ELO, abs=20)
    assert values["judged"] == pytest.approx(fit_ratings(parts[0], anchor="sft").elo["ppo"].mean)
    assert values["chosen"] == pytest.approx(fit_ratings(parts[1], anchor="sft").elo["ppo"].mean)
    assert sum(values[f"step/{step}"] for step in STEPS) == pytest.approx(values["judged"] - values["promised"])
    step = found["step/prompts"]
    assert step["low"] < -0.8 * ELO < step["high"] and step["high"] < 0


def test_a_step_that_is_nothing_has_an_interval_around_nothing():
    """No shift of prompts. Draws of the parts are subtracted draw by draw, or the interval would be as wide as both."""
    parts = world(seed=5)
    found = decompose(*parts, "sft")["ppo"]
    assert found["step/prompts"]["low"] < 0 < found["step/prompts"]["high"]
    same = decompose(parts[0], parts[0], parts[2], parts[3], "sft")["ppo"]["step/error"]
    assert (same["mean"], same["low"], same["high"]) == (0, 0, 0)
    here = decompose(parts[0], parts[1], parts[2], parts[2], "sft")["ppo"]["step/prompts"]
    assert (here["mean"], here["low"], here["high"]) == (0, 0, 0)


def test_a_model_that_chooses_as_the_judge_but_scores_on_another_scale_errs_in_the_choices_alone():
    judged, _, _, _ = world(seed=2, prompts=400)
    scores = [
        ScoredReply(name, 3.0 * side, v.cluster)
        for v in judged
        for name, side in (("ppo", v.outcome), ("sft", 1 - v.outcome))
    ]
    found = decompose(judged, judged, scores, scores, "sft")["ppo"]
    assert found["step/prompts"]["mean"] == 0 and found["step/error"]["mean"] == 0
    share = np.mean([v.outcome for v in judged])
    assert found["scored"]["mean"] == pytest.approx(3 * (2 * share - 1) * ELO)
    assert found["step/choices"]["mean"] == pytest.approx(special.logit(share) * ELO - found["scored"]["mean"])


def test_other_questions_are_refused_and_a_snapshot_without_other_prompts_promises_nothing():
    judged, chosen, scored, promised = world(prompts=30)
    with pytest.raises(ValueError, match="same questions"):
        decompose(judged, chosen[:-1], scored, promised, "sft")
    alone = [one for one in promised if one.snapshot == "sft"]
    found = decompose(judged, chosen, scored, alone, "sft", ridge=0.1)["ppo"]
    assert found["promised"]["mean"] is None or math.isnan(found["promised"]["mean"])
    assert found["judged"]["low"] < found["judged"]["mean"]


# Three snapshots, prompts that not all answer as often, few of other prompts

SCORED = [
    *(ScoredReply("sft", score, cluster) for score, cluster in zip((0.3, -0.8, 1.1, 0.2, 0.9), "uvwxv", strict=True)),
    *(ScoredReply("ppo", score, cluster) for score, cluster in zip((1.7, 2.4, 0.6, -0.1, 1.2), "uvwxu", strict=True)),
    *(ScoredReply("dpo", score, cluster) for score, cluster in zip((-0.4, 0.5, 1.4, 0.8), "uvwx", strict=True)),
]
PROMISED = [
    *(ScoredReply("sft", score, cluster) for score, cluster in zip((0.1, -0.6, 0.4), "abc", strict=True)),
    *(ScoredReply("ppo", score, cluster) for score, cluster in zip((2.2, 1.3, 1.9, 3.1), "abcc", strict=True)),
    *(ScoredReply("dpo", score, cluster) for score, cluster in zip((0.7, 1.6, -0.2), "abc", strict=True)),
]
JUDGED = [
    Vote("ppo", "sft", 1.0, "u"), Vote("ppo", "sft", 0.0, "v"), Vote("ppo", "dpo", 1.0, "w"),
    Vote("dpo", "sft", 0.0, "x"), Vote("dpo", "sft", 1.0, "u"), Vote("dpo", "ppo", 1.0, "v"),
    Vote("ppo", "sft", 1.0, "x"),
]  # fmt: skip
CHOSEN = [vote._replace(outcome=0.75 * vote.outcome + 0.2) for vote in JUDGED]


def over_anchor(replies, name, weight):
    """Mean score less the anchor's as Elo, where a reply weighs as often as its prompt was drawn."""

    def mean(who):
        own = [(one.score, weight[one.cluster]) for one in replies if one.snapshot == who]
        return sum(score * w for score, w in own) / sum(w for _, w in own)

    return (mean(name) - mean("sft")) * ELO


@pytest.mark.parametrize("name", ["ppo", "dpo"])
def test_each_number_and_step_of_each_snapshot_by_hand(name):
    """Draws of 3 and of 4 prompts, tails of as few as the fewer are; steps are differences draw by draw."""
    found = decompose(JUDGED, CHOSEN, SCORED, PROMISED, "sft", ridge=0.1, resamples=40, seed=11)
    assert set(found) == {"ppo", "dpo"}
    values, draws = {}, {}
    for what, replies, keys in (("promised", PROMISED, "abc"), ("scored", SCORED, "uvwx")):
        values[what] = over_anchor(replies, name, dict.fromkeys(keys, 1))
        rows = np.concatenate(list(resample_weights(len(keys), 40, 11)))
        with np.errstate(invalid="ignore"):
            draws[what] = np.array([over_anchor(replies, name, dict(zip(keys, row, strict=True))) for row in rows])
    place = ["dpo", "ppo", "sft"].index(name)
    for what, votes in (("chosen", CHOSEN), ("judged", JUDGED)):
        elo, drawn = elo_draws(votes, "sft", ridge=0.1, resamples=40, seed=11)
        values[what], draws[what] = elo[place], drawn[:, place]
    for step, one, other in (
        ("prompts", "promised", "scored"),
        ("choices", "scored", "chosen"),
        ("error", "chosen", "judged"),
    ):
        values[f"step/{step}"], draws[f"step/{step}"] = values[other] - values[one], draws[other] - draws[one]
    assert set(found[name]) == set(values)
    tail = percentile_tail(3)
    for what, value in values.items():
        low, high = np.quantile(draws[what], (tail, 1 - tail))
        assert found[name][what] == pytest.approx({"mean": value, "low": low, "high": high, "n": 3}), what


def test_one_other_prompt_promises_without_bounds_and_two_with():
    one, two = ([reply for reply in PROMISED if reply.cluster in keys] for keys in ("a", "ab"))
    how = {"ridge": 0.1, "resamples": 40, "seed": 1}
    alone = decompose(JUDGED, CHOSEN, SCORED, one, "sft", **how)["ppo"]
    assert alone["promised"] == {"mean": pytest.approx(2.1 * ELO), "low": None, "high": None, "n": 1}
    assert alone["judged"]["low"] is None and alone["judged"]["n"] == 1, "the fewer of both stand for all"
    both = decompose(JUDGED, CHOSEN, SCORED, two, "sft", **how)["ppo"]["promised"]
    assert both["mean"] == pytest.approx(2.0 * ELO) and both["low"] == pytest.approx(1.9 * ELO)
    assert both["high"] == pytest.approx(2.1 * ELO) and both["n"] == 2
    without = decompose(JUDGED, CHOSEN, SCORED, [], "sft", **how)["ppo"]
    assert without["promised"]["mean"] is None and without["judged"]["n"] == 4 and without["judged"]["low"] is not None


def test_questions_of_other_prompts_or_other_players_are_refused():
    moved = [*CHOSEN[:-1], CHOSEN[-1]._replace(cluster="y")]
    other = [*CHOSEN, Vote("rl", "sft", 1.0, "u")]
    for chosen in (moved, [*CHOSEN, Vote("ppo", "sft", 1.0, "y")], other):
        with pytest.raises(ValueError, match="must have been asked the same questions"):
            decompose(JUDGED, chosen, SCORED, PROMISED, "sft", ridge=0.1, resamples=2)
