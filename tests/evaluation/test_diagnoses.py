"""What alarms of `ppo` mean, in words: of metrics, knobs and commands that there are."""

import math
import re

import pytest

from accord.claims.alarms import ALARMS
from accord.commands import COMMANDS
from accord.evaluation.diagnoses import CLOSER, MEANINGS, UNKNOWN, diagnose
from accord.evaluation.metric_names import METRICS
from accord.evaluation.metrics import definition
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference

WORDS = [(key, words) for key, meaning in MEANINGS.items() for words in meaning] + [(("", ""), w) for w in UNKNOWN]


def test_every_alarm_that_is_measured_has_a_meaning_of_its_own():
    for metric, side in ALARMS.values():
        assert diagnose(metric, side, 1.0) in MEANINGS.values(), metric


@pytest.mark.parametrize(("metric", "side"), list(MEANINGS), ids=" ".join)
def test_meanings_are_of_metrics_that_ppo_logs(metric, side):
    logged = metric.replace("NAME", "harm").replace("SLICE", "red-team")
    assert definition(logged) is METRICS[metric] and diagnose(logged, side, 1.0) is MEANINGS[metric, side]
    assert not metric.startswith(("loss/", "policy/", "grad_norm/", "values/")), "no alarm may look at it"


@pytest.mark.parametrize(("key", "words"), WORDS)
def test_knobs_metrics_and_commands_in_words_exist(key, words):
    assert not words.endswith(".") and "\n" not in words
    knobs = Ppo.model_fields | Preference.model_fields
    assert {name.partition(".")[0] for name in re.findall(r"--([a-z_.]+\w)", words)} <= set(knobs)
    metrics = re.findall(r"(?<![\w.])[a-z_]+/[A-Za-z_/]+", words)
    assert all(definition(name) for name in metrics), metrics
    for command in re.findall(r"`accord ([a-z_ ]+?)(?: --[^`]*)?`", words):
        assert command in COMMANDS


@pytest.mark.parametrize(("metric", "side"), list(MEANINGS), ids=" ".join)
def test_where_to_look_is_a_place_and_what_to_turn_a_knob_or_a_command(metric, side):
    meaning = MEANINGS[metric, side]
    assert re.search(r"[a-z_]+/[A-Za-z]|samples\.jsonl|`accord |--[a-z]", meaning.look)
    assert re.search(r"--[a-z]|`accord ", meaning.turn)


def test_a_number_that_is_not_finite_and_a_metric_without_words():
    assert diagnose("objective/kl", "above", math.nan) is UNKNOWN
    general = diagnose("completions/clipped_ratio", "below", 0.1)
    assert METRICS["completions/clipped_ratio"].definition in general.means and "below" in general.means
    assert "completions/clipped_ratio" in general.look and general.turn == CLOSER
    # a name that nobody has defined speaks for itself
    own = diagnose("somebody's own", "above", 2.0)
    assert own.means == "above the bound that you set: somebody's own" and own.look.startswith("somebody's own over")


@pytest.mark.parametrize("meaning", [*MEANINGS.values(), UNKNOWN], ids=lambda meaning: meaning.means[:20])
def test_what_has_happened_is_said_without_names_and_what_to_turn_is_a_knob_or_a_command(meaning):
    assert not any(sign in meaning.means for sign in ("--", "/", ".jsonl"))
    assert "--" in meaning.turn or "`accord " in meaning.turn
    assert "/" not in meaning.turn and ".jsonl" not in meaning.turn
    # a bound is looked at as one more number
    assert "--" not in meaning.look.replace("--multiplier_bound", "")
