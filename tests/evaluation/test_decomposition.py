"""From the Elo that a preference model promises to the Elo that a judge gives, on planted worlds."""

import math

import numpy as np
import pytest
from scipy import special

from accord.evaluation.decomposition import STEPS, ScoredReply, decompose
from accord.evaluation.ratings import ELO, Vote, fit_ratings

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
