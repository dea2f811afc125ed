"""Knobs of `accord ppo` that do not fit together, and those just beside them that do."""

import re

import pytest
from pydantic import ValidationError

from accord.stages.ppo.config import Alarm, Ppo, parse_alarm
from tests.flow.test_ppo_road import LIMITED, make_config

TWO = {"costs": {"harm": "c", "lies": "d"}, "limits": {"harm": 0.0, "lies": 0.5}}


@pytest.mark.parametrize(
    ("changes", "said", "beside"),
    [
        (
            {"kl_estimator": "k2"},
            "--kl_estimator k2 in the reward has no gradient for the token that it is paid for",
            {"kl_estimator": "k2", "kl_in": "loss"},
        ),
        ({"kl_in": "loss"}, "--kl_estimator k1 as a loss has an expected gradient of 0", {"kl_in": "reward"}),
        (
            {"kl_target": 1.0, "kl_anneal": 0.5},
            "--kl_anneal and --kl_target both move β; give one of them",
            {"kl_anneal": 0.5},
        ),
        ({"kl_target": 1.0, "kl_anneal": 2.0}, "both move β", {"kl_target": 1.0, "kl_horizon": 5.0}),
        (
            {"limits": {"harm": 0.0}, "costs": {"lies": "c"}},
            "--limits.harm has no cost model; add --costs.harm DIR",
            {"limits": {"harm": 0.0}, "costs": {"harm": "c", "lies": "c"}},
        ),
        (
            {**LIMITED, "limit_slices": {"lies": "a"}},
            "--limit_slices.lies has no limit; add --limits.lies NUMBER",
            {**LIMITED, "limit_slices": {"harm": "a"}},
        ),
        (
            {**LIMITED, "limit_of": {"lies": "cost"}},
            "--limit_of.lies has no limit; add --limits.lies NUMBER",
            {**LIMITED, "limit_of": {"harm": "cost"}},
        ),
        (
            {**LIMITED, "limit_of": "unsafe"},
            "--limits.harm 0 is no share of unsafe replies",
            {**LIMITED, "limits": {"harm": 0.1}, "limit_of": "unsafe"},
        ),
        (
            {**LIMITED, "limit_window": {"lies": 2.0}},
            "--limit_window.lies has no limit; add --limits.lies NUMBER",
            {**LIMITED, "limit_window": {"harm": 2.0}},
        ),
        ({**LIMITED, "limit_window": 0.5}, "--limit_window 0.5 must be at least 1", {**LIMITED, "limit_window": 1.0}),
        (
            {**LIMITED, "limit_window": {"harm": 2.5}},
            "--limit_window.harm 2.5 must be a whole number of iterations",
            {**LIMITED, "limit_window": {"harm": 2.0}},
        ),
        (
            {**LIMITED, "multiplier_rate": -0.1},
            "--multiplier_rate -0.1 must be at least 0",
            {**LIMITED, "multiplier_rate": 0.0},
        ),
        (
            {**LIMITED, "multiplier_gain": {"harm": -0.5}},
            "--multiplier_gain.harm -0.5 must be at least 0",
            {**LIMITED, "multiplier_gain": {"harm": 0.0}},
        ),
        (
            {**LIMITED, "multiplier_init": -1.0},
            "--multiplier_init -1 must be at least 0",
            {**LIMITED, "multiplier_init": 0.5},
        ),
        (
            {**LIMITED, "multiplier_bound": 0.0},
            "--multiplier_bound 0 must be at least 1e-09",
            {**LIMITED, "multiplier_bound": 1e-9},
        ),
        *(
            (
                {"alarms": {metric: "warn above 0"}},
                f"--alarms.{metric}: alarms look at rollouts, not at what is learned from them",
                {"alarms": {"objective/kl": "warn above 0"}},
            )
            for metric in ("loss/policy", "policy/ratio", "grad_norm/policy", "values/reward", "learning_rate")
        ),
        (
            {"reward_weights": {"kind": 2.0}},
            "--reward_weights.kind has no reward; add --rewards.kind DIR",
            {"reward_weights": {"helpful": 2.0}},
        ),
        ({"rewards": {}}, "nothing to optimise; add --rewards.NAME DIR", {"rewards": {"other": "r"}}),
        (
            {"rewards": {"b": "r", "a": "r"}, "costs": {"b": "c", "a": "c"}},
            "a is both a reward and a cost; give them different names",
            {"rewards": {"b": "r", "a": "r"}, "costs": {"c": "c"}},
        ),
        (
            {"watch": {"other": "w", "helpful": "r"}},
            "helpful is trained on and watched; give them different names",
            {"watch": {"other": "w"}},
        ),
        (
            {"watch": {"harm": "w"}, "costs": {"harm": "c"}},
            "harm is trained on and watched",
            {"watch": {"harm": "w"}, "costs": {"lies": "c"}},
        ),
        *(
            (
                {"advantages": advantages, "samples": 1},
                f"--advantages {advantages} compares a prompt's replies; give --samples 2 or more",
                {"advantages": advantages, "samples": 2},
            )
            for advantages in ("rloo", "grpo", "dr-grpo")
        ),
        (
            {"off_policy_steps": 1, "engine": "http://x", "kl_budget": 1.0},
            "--off_policy_steps 1: replies are of the weights before the last step, so a roll-back",
            {"off_policy_steps": 0, "engine": "http://x", "kl_budget": 1.0},
        ),
        (
            {"off_policy_steps": 1, "engine": "http://x", "alarms": {"objective/kl": "roll-back above 1"}},
            "would go back to weights that nobody looked at",
            {"off_policy_steps": 1, "engine": "http://x", "alarms": {"objective/kl": "stop above 1"}},
        ),
        (
            {**LIMITED, "scale_rewards": True},
            "--scale_rewards would change what a multiplier weighs; leave it out under limits",
            {"costs": {"harm": "c"}, "scale_rewards": True},
        ),
        (
            {"refresh_every": 2, "reference": "x"},
            "--refresh_every mixes the policy into a copy of itself; leave --reference out",
            {"refresh_every": 2},
        ),
        (
            {"labeling": {"timeout": 5.0, "max_calls": 9}, "rewards": {"helpful": "labeler:dir"}},
            "--labeling.max_calls has no effect: no labeler among the rewards is a server",
            {"labeling": {"max_calls": 9}, "rewards": {"helpful": "labeler:dir", "kind": "labeler:openai:http://x#m"}},
        ),
        (
            {"labeling": {"max_calls": 9}, "rewards": {"helpful": "labeler:dir"}},
            "--labeling.max_calls has no effect",
            {"labeling": {"ensemble": 2}, "rewards": {"helpful": "labeler:dir"}},
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_and_what_is_just_beside_it_is_not(changes, said, beside):
    with pytest.raises(ValidationError, match=re.escape(said)):
        make_config(**changes)
    make_config(**beside)


@pytest.mark.parametrize(
    ("changes", "said", "beside"),
    [
        (
            {"kl_coefficient": 0.0, "kl_target": 1.0},
            "--kl_target has no effect with --kl_coefficient 0 (it stays 0)",
            {"kl_coefficient": 0.1, "kl_target": 1.0},
        ),
        ({"kl_horizon": 5.0}, "without --kl_target NATS", {"kl_horizon": 5.0, "kl_target": 1.0}),
        ({"refresh_mix": 0.5}, "without --refresh_every N", {"refresh_mix": 0.5, "refresh_every": 1}),
        (
            {"advantages": "reinforce++", "value_clip": 0.1},
            "with --advantages reinforce++ (there is no critic)",
            {"value_clip": 0.1},
        ),
        (
            {"advantages": "reinforce++", "lam": 0.5},
            "with --advantages reinforce++ (gae alone reads it)",
            {"lam": 0.5},
        ),
        (
            {"advantages": "rloo", "samples": 2, "gamma": 0.5},
            "with --advantages rloo (whole replies are compared)",
            {"advantages": "reinforce++", "gamma": 0.5},
        ),
        ({"gamma": 0.5, "advantages": "grpo", "samples": 2}, "whole replies are compared", {"gamma": 0.5}),
        (
            {"value_weight": 0.5},
            "with --critic separate (its loss stands alone)",
            {"value_weight": 0.5, "critic": "shared"},
        ),
        (
            {"critic_learning_rate": 0.5, "critic": "shared"},
            "with --critic shared (one rate for all)",
            {"critic_learning_rate": 0.5},
        ),
        ({"ptx_weight": 2.0}, "without --ptx_data SOURCE", {"ptx_weight": 2.0, "ptx_data": "x"}),
        ({"multiplier_init": 1.0}, "without --limits.NAME X", {**LIMITED, "multiplier_init": 1.0}),
        (
            {**LIMITED, "multiplier_rule": "fixed", "multiplier_bound": 3.0},
            "with --multiplier_rule fixed (λ stands still)",
            {**LIMITED, "multiplier_rule": "safe-rlhf", "multiplier_bound": 3.0},
        ),
        (
            {**LIMITED, "multiplier_rule": "safe-rlhf", "multiplier_gain": 0.5},
            "with --multiplier_rule safe-rlhf",
            {**LIMITED, "multiplier_rule": "pi", "multiplier_gain": 0.5},
        ),
        (
            {**LIMITED, "multipliers_from": "x", "multiplier_init": 1.0},
            "with --multipliers_from RUN (λ comes from there)",
            {**LIMITED, "multipliers_from": "x"},
        ),
        (
            {"update_kl": 0.1, "ppo_epochs": 1, "batch_size": 4, "samples": 2, "mini_batch_size": 8},
            "with --ppo_epochs 1 and all replies in one --mini_batch_size",
            {"update_kl": 0.1, "ppo_epochs": 1, "batch_size": 4, "samples": 2, "mini_batch_size": 7},
        ),
        (
            {"update_kl": 0.1, "ppo_epochs": 1, "batch_size": 1, "samples": 2, "mini_batch_size": 1},
            "with --ppo_epochs 1",
            {"update_kl": 0.1, "ppo_epochs": 2, "batch_size": 1, "samples": 2, "mini_batch_size": 1},
        ),
        (
            {"labeling": {"shots": 1}},
            "without --rewards.NAME labeler:WHERE",
            {"rewards": {"helpful": "r", "other": "labeler:dir"}},
        ),
        ({"off_policy_steps": 1}, "without --engine URL", {"off_policy_steps": 1, "engine": "http://x"}),
        (
            {"off_policy_steps": 1, "engine": "http://x", "sampler_gap": 0.1},
            "with --off_policy_steps 1",
            {"sampler_gap": 0.1},
        ),
    ],
)
def test_a_knob_that_nothing_reads_is_refused_with_what_it_waits_for(changes, said, beside):
    with pytest.raises(ValidationError, match=re.escape(said)):
        make_config(**changes)
    make_config(**beside)


@pytest.mark.parametrize(
    ("advantages", "mean_over"),
    [("gae", "tokens"), ("rloo", "length"), ("grpo", "replies"), ("dr-grpo", "length"), ("reinforce++", "tokens")],
)
def test_the_loss_is_a_mean_over_what_its_method_says_unless_another_is_asked_for(advantages, mean_over):
    config = make_config(advantages=advantages, samples=2)
    assert config.mean_over == mean_over
    assert {make_config(loss_mean=of).mean_over for of in ("tokens", "replies", "length")} == {
        "tokens",
        "replies",
        "length",
    }


def test_a_knob_of_limits_is_one_for_all_or_a_limits_own_beside_the_default():
    config = make_config(**TWO, multiplier_rate=0.5, multiplier_init={"lies": 0.25}, limit_window=3)
    assert [config.of_limit("multiplier_rate", name) for name in TWO["limits"]] == [0.5, 0.5]
    assert [config.of_limit("multiplier_init", name) for name in TWO["limits"]] == [2.0, 0.25]
    assert config.of_limit("limit_window", "harm") == 3.0


def test_alarms_are_rules_one_by_one_and_the_budget_is_the_last_of_them():
    alarms = {"objective/kl": "warn above 2; stop above 3.5", "watch/entropy": " roll-back below 0.5 "}
    rules = [
        Alarm("objective/kl", "warn", "above", 2.0),
        Alarm("objective/kl", "stop", "above", 3.5),
        Alarm("watch/entropy", "roll-back", "below", 0.5),
    ]
    assert make_config(alarms=alarms).rules == rules
    assert make_config(alarms=alarms, kl_budget=7.0).rules == [*rules, Alarm("objective/kl", "roll-back", "above", 7.0)]
    assert make_config().rules == []


@pytest.mark.parametrize(("side", "rings"), [("above", [False, False, True]), ("below", [True, False, False])])
def test_an_alarm_rings_past_its_bound_alone(side, rings):
    alarm = Alarm("m", "warn", side, 2.0)
    assert [alarm.rings(value) for value in (1.9, 2.0, 2.1)] == rings and alarm.rings(float("nan"))


def test_an_alarm_that_is_no_alarm_says_how_one_is_written():
    for text in ("warn above much", "warn over 2"):
        said = f"--alarms.m {text!r}: write warn, stop or roll-back, above or below, and a number"
        with pytest.raises(ValueError, match=re.escape(said)):
            parse_alarm("m", text)


def test_the_labelers_are_those_among_rewards_and_what_is_watched():
    named = {"helpful": "r", "kind": "labeler:openai:http://x#m"}
    config = make_config(rewards=named, watch={"other": "labeler:dir", "last": "w"}, labeling={"ensemble": 2})
    assert config.labelers == ["openai:http://x#m", "dir"]
    assert make_config().labelers == []


def test_every_reward_counts_by_its_weight_or_once():
    config = make_config(rewards={"helpful": "r", "kind": "s", "short": "t"}, reward_weights={"kind": -0.5, "short": 0})
    assert config.summed == {"helpful": 1.0, "kind": -0.5, "short": 0.0}


@pytest.mark.parametrize(
    ("knob", "value", "said"),
    [
        ("nothing", 1, "--labeling.nothing: Extra inputs are not permitted"),
        ("ensemble", -1, "--labeling.ensemble: Input should be greater than or equal to 0"),
        ("require_calibration", True, "--labeling: require_calibration needs calibration RUN"),
    ],
)
def test_a_knob_of_labeling_that_does_not_fit_is_named(knob, value, said):
    with pytest.raises(ValidationError, match=re.escape(said)):
        make_config(rewards={"helpful": "labeler:dir"}, labeling={knob: value})


def test_a_bound_of_a_knob_itself_is_the_knobs():
    for knob, value in (("clip", 0), ("gamma", 1.01), ("lam", -0.1), ("off_policy_steps", 2), ("weight_average", 1)):
        with pytest.raises(ValidationError, match=knob):
            Ppo(model="m", data="d", out="o", rewards={"helpful": "r"}, **{knob: value})
