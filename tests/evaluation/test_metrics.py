"""Every logged name is defined, and the page says what the list says."""

from pathlib import Path

import pytest

from accord.evaluation.metric_names import GROUPS, METRICS
from accord.evaluation.metrics import definition, is_share, key_of, metric_change, metric_interval, page
from accord.evaluation.statistics import mean_interval, paired_difference, paired_shares, share_interval

# What the stages log, as the working agreement lists it.
LOGGED = """
step loss learning_rate num_tokens tokens_per_second grad_norm eval/loss
accuracy accuracy_sign margin loss/ranking loss/sign eval/accuracy ece slope tie_rate length_baseline
objective/kl sqrt_kl objective/rlhf_reward objective/entropy objective/scores kl_coefficient
reward/helpful reward/helpful/benign reward/helpful/harmful-held-out cost/harmless/mean cost/harmless/unsafe
cost/harmless/red-team/mean cost/harmless/red-team/unsafe lagrange/harmless
policy/clip_fraction policy/kl_old_new policy/ratio policy/updates loss/policy loss/value/reward
loss/value/harmless values/harmless grad_norm/policy completions/mean_length completions/clipped_ratio
gold/helpful gold/harm gold/harm_share gold/honest gold/evasive gold/refusal gold/correct cost/harmless kl
length win_rate
loss/dpo loss/orpo/nll rewards/chosen rewards/accuracies logps/displaced kto/kl eval/rewards/margins
eval/logps/chosen_drift eval/displacement """


@pytest.mark.parametrize("name", LOGGED.split())
def test_every_logged_name_is_defined(name):
    found = definition(name)
    assert found is not None, f"{name} has no definition in METRICS"
    assert found.definition and found.unit and found.where in GROUPS


def test_an_unknown_name_has_no_definition_and_placeholders_match_one_part():
    assert definition("policy/approxkl") is None
    assert definition("reward/helpful/benign/more") is None
    assert definition("cost/harmless/unsafe") is METRICS["cost/NAME/unsafe"]
    assert definition("cost/unsafe/mean") is METRICS["cost/NAME/mean"]
    # the name that says most in its own words; and the list's own names are their own
    assert key_of("cost/harmless/unsafe") == "cost/NAME/unsafe" and key_of("cost/NAME/unsafe") == "cost/NAME/unsafe"
    assert key_of("reward/helpful/benign") == "reward/NAME/SLICE" and key_of("reward/helpful") == "reward/NAME"
    assert key_of("cost/harm/red-team/unsafe") == "cost/NAME/SLICE/unsafe" and key_of("what") is None
    assert is_share("cost/harm/red-team/unsafe") and not is_share("reward/helpful") and not is_share("what")


def test_intervals_and_changes_go_by_the_seed_the_level_and_the_resamples_asked_for():
    values, others = [0.3, 1.7, -2.1, 0.9, 4.2], [0.1, 0.2, 0.7, -0.3, 2.5]
    how = {"seed": 4, "level": 0.8, "resamples": 60}
    assert metric_interval("gold/helpful", values, **how) == mean_interval(values, None, 4, 0.8, resamples=60)
    changed = paired_difference(values, others, None, 4, 0.8, resamples=60)
    assert metric_change("gold/helpful", values, others, **how) == changed
    shares, before = [0.0, 1.0, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5, 1.0]
    assert metric_interval("gold/refusal", shares, **how) == share_interval(shares, None, 0.8)
    assert metric_change("gold/refusal", shares, before, **how) == paired_shares(shares, before, 0.8)
    assert metric_interval("gold/helpful", values) == mean_interval(values)
    assert metric_change("gold/helpful", values, others) == paired_difference(values, others)
    assert metric_change("gold/refusal", shares, before) == paired_shares(shares, before)


@pytest.mark.parametrize("name", ["gold/refusal", "gold/harm_share", "gold/correct", "cost/harmless/unsafe"])
def test_a_share_has_the_interval_of_one_and_other_scores_that_of_a_mean(name):
    assert metric_interval(name, [0.0] * 30) == share_interval([0.0] * 30)
    assert metric_interval(name, [0, 0, 1, 0], list("aabb")) == share_interval([0, 0, 1, 0], list("aabb"))
    for other in ("gold/helpful", "cost/harmless", "somebody's own"):
        found = metric_interval(other, [0.0, 1.0, -1.0], list("abc"), seed=3, resamples=50)
        assert found == mean_interval([0.0, 1.0, -1.0], list("abc"), 3, resamples=50)


def test_docs_metrics_is_current():
    file = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert file.read_text() == page(), "write it anew: python -m accord.evaluation.metrics docs/metrics.md"


def test_every_metric_stands_in_the_page():
    lines = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(lines) == len(METRICS)
    assert all(line.count(" | ") == 3 for line in lines)
