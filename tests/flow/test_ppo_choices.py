"""Every choice of `accord ppo` through the command, on tiny models: it does what its name says, and resumes."""

import itertools
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from accord.disk import read_lines
from accord.errors import BadInput
from accord.evaluation.diagnoses import diagnose
from accord.parsing import parse
from accord.records import Turn
from accord.stages.ppo import state as ppo_state
from accord.stages.ppo import watch as ppo_watch
from accord.stages.ppo.config import Alarm, parse_alarm
from accord.stages.verdicts import in_slices

SMALL = {"batch_size": 4, "mini_batch_size": 8, "samples": 2, "steps": 2, "max_rows": 8}


TWO_STEPS = {"steps": 2, "batch_size": 4, "mini_batch_size": 4}


def rows_of(folder):
    return read_lines(folder / "metrics.jsonl")


def weights_of(folder):
    return load_file(folder / "snapshot" / "model.safetensors")


def moved(commands, folder):
    """Whether the saved policy is another than the first one."""
    before = load_file(commands.snapshots / "policy" / "model.safetensors")
    after = load_file(folder / "snapshot" / "model.safetensors")
    return any(not torch.equal(before[k], after[k]) for k in before)


@pytest.fixture(scope="module")
def plain(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    assert commands.run("ppo", out, **TWO_STEPS) == 0
    return weights_of(out)


@pytest.mark.parametrize(
    "advantages",
    ["rloo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("grpo", "dr-grpo")), "reinforce++"],
)
def test_methods_without_critics_train_under_a_limit(commands, tmp_path, advantages):
    changes = {"advantages": advantages, "limits.harm": -5.0, **SMALL, "learning_rate": 1e-3}
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    rows = rows_of(tmp_path / "run")
    assert not any(name.startswith(("loss/value", "values/", "grad_norm/critics")) for row in rows for name in row)
    assert moved(commands, tmp_path / "run")
    assert rows[1]["lagrange/harm"] > 2.0
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))


@pytest.mark.parametrize(
    "estimator",
    [*(pytest.param(n, marks=pytest.mark.slow) for n in ("k2", "k3", "exact-forward")), "exact"],
)
def test_kl_in_the_loss_brings_the_policy_to_its_reference(commands, tmp_path, estimator):
    """C7 for the loss: no reward but KL, and KL falls; what is logged is the estimate that trains."""
    changes = {"reference": commands.snapshots / "other", "reward_weights.helpful": 0.0, "kl_coefficient": 0.3}
    changes |= {"kl_in": "loss", "kl_estimator": estimator, "steps": 4, "batch_size": 24, "mini_batch_size": 12}
    changes |= {"learning_rate": 5e-3, "warmup": 0.0, "whiten": "false", "critic": "shared"}
    assert commands.run("ppo", tmp_path / "run", **changes) == 0
    rows = rows_of(tmp_path / "run")
    assert rows[-1]["objective/kl"] < 0.8 * rows[0]["objective/kl"]
    assert rows[0]["sqrt_kl"] == pytest.approx(rows[0]["objective/kl"] ** 0.5)


@pytest.mark.parametrize(
    "estimator",
    ["k2", pytest.param("k3", marks=pytest.mark.slow), pytest.param("exact", marks=pytest.mark.slow), "exact-forward"],
)
def test_c11_the_logged_kl_is_the_one_that_trains(commands, tmp_path, estimator):
    """With weights that stand still: β · Σ kl / tokens in the loss, Σ kl / replies in the log."""
    changes = {"reference": commands.snapshots / "other", "kl_in": "loss", "kl_estimator": estimator, "steps": 1}
    changes |= {"batch_size": 24, "mini_batch_size": 24, "learning_rate": 1e-12, "critic": "shared"}
    assert commands.run("ppo", tmp_path / "run", **changes, kl_coefficient=0.3, temperature=0.8) == 0
    (row,) = rows_of(tmp_path / "run")
    assert row["loss/kl"] == pytest.approx(0.3 * row["objective/kl"] / row["completions/mean_length"], rel=1e-4)


def test_annealing_reaches_its_ratio_in_equal_ratios(commands, tmp_path):
    changes = {"kl_coefficient": 0.4, "kl_anneal": 0.25, "steps": 3, "batch_size": 4, "mini_batch_size": 4}
    assert commands.run("ppo", tmp_path / "run", **changes) == 0
    assert [row["kl_coefficient"] for row in rows_of(tmp_path / "run")] == pytest.approx([0.4, 0.2, 0.1])


def test_an_annealed_coefficient_is_the_one_in_the_loss(commands, tmp_path):
    """With weights that stand still, as above."""
    changes = {"kl_coefficient": 0.4, "kl_anneal": 0.25, "steps": 3, "kl_in": "loss", "kl_estimator": "k2"}
    changes |= {"reference": commands.snapshots / "other", "learning_rate": 1e-12, "mini_batch_size": 8}
    assert commands.run("ppo", tmp_path / "run", **changes, critic="shared") == 0
    for row, beta in zip(rows_of(tmp_path / "run"), (0.4, 0.2, 0.1), strict=True):
        expected = beta * row["objective/kl"] / row["completions/mean_length"]
        assert row["loss/kl"] == pytest.approx(expected, rel=1e-4)


def test_a_refreshed_reference_is_the_policy_of_that_iteration(commands, tmp_path):
    """KL to a reference that was just refreshed is 0."""
    changes = {"refresh_every": 2, "steps": 4, "batch_size": 8, "mini_batch_size": 4, "learning_rate": 5e-3}
    assert commands.run("ppo", tmp_path / "run", **changes, warmup=0.0) == 0
    kl = [row["objective/kl"] for row in rows_of(tmp_path / "run")]
    assert abs(kl[0]) < 1e-4 and abs(kl[2]) < 1e-4
    assert abs(kl[1]) > 1e-2 and abs(kl[3]) > 1e-2


def test_while_critics_warm_up_policy_multiplier_and_coefficient_stand_still(commands, tmp_path):
    changes = {"critic_warmup": 2, "kl_target": 0.01, "kl_horizon": 10, "steps": 3, "batch_size": 8}
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    rows = rows_of(tmp_path / "run")
    assert [row["lagrange/harm"] == 2.0 for row in rows] == [True, True, False]
    assert [row["objective/kl"] == pytest.approx(0.0, abs=1e-4) for row in rows] == [True, True, True]
    assert rows[1]["kl_coefficient"] == rows[2]["kl_coefficient"] == 0.2
    assert "grad_norm/policy" not in rows[1] and rows[2]["grad_norm/policy"] > 0
    assert rows[1]["loss/value/reward"] < rows[0]["loss/value/reward"]


def test_update_kl_ends_an_iteration_early(commands, tmp_path):
    changes = {"ppo_epochs": 6, "steps": 1, "batch_size": 8, "mini_batch_size": 4, "learning_rate": 5e-3}
    changes |= {"warmup": 0.0}
    assert commands.run("ppo", tmp_path / "free", **changes) == 0
    assert commands.run("ppo", tmp_path / "held", **changes, update_kl=1e-3) == 0
    assert rows_of(tmp_path / "free")[0]["policy/updates"] == 12
    assert 1 <= rows_of(tmp_path / "held")[0]["policy/updates"] < 12


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("text", "documents.jsonl"),
        pytest.param("demonstrations", "demonstrations.jsonl", marks=pytest.mark.slow),
    ],
)
def test_ptx_lowers_the_loss_on_the_other_text(commands, tmp_path, kind, file):
    changes = {"ptx_data": commands.files / file, "ptx_kind": kind, "ptx_weight": 5.0, "ptx_batch_size": 16}
    changes |= {"steps": 3, "batch_size": 4, "mini_batch_size": 4, "learning_rate": 3e-3, "warmup": 0.0}
    assert commands.run("ppo", tmp_path / "run", **changes) == 0
    losses = [row["loss/ptx"] for row in rows_of(tmp_path / "run")]
    assert losses[-1] < losses[0]


def test_demonstrations_beside_the_rewards_are_cut_by_max_length(commands, tmp_path, capsys):
    long = {"prompt": "why", "completion": "the cat " * 400}
    file = tmp_path / "demonstrations.jsonl"
    rows = (commands.files / "demonstrations.jsonl").read_text()
    file.write_text(rows + json.dumps(long) + "\n", encoding="utf-8")
    changes = {"ptx_data": file, "ptx_kind": "demonstrations", "ptx_weight": 1.0, "steps": 1, "batch_size": 4}
    assert commands.run("ppo", tmp_path / "run", mini_batch_size=4, **changes) == 0
    assert "longer than --max_length" in capsys.readouterr().out


def test_the_average_of_the_weights_is_what_is_saved(commands, tmp_path):
    """One iteration with decay 0.75: a quarter of the way from the first weights to the last."""
    line = {"steps": 1, "batch_size": 4, "mini_batch_size": 4}
    assert commands.run("ppo", tmp_path / "last", **line) == 0
    assert commands.run("ppo", tmp_path / "average", **line, weight_average=0.75) == 0
    first = load_file(commands.snapshots / "policy" / "model.safetensors")
    last, average = (load_file(tmp_path / n / "snapshot" / "model.safetensors") for n in ("last", "average"))
    for name, start in first.items():
        assert torch.allclose(average[name], start + 0.25 * (last[name] - start), atol=1e-6)


def test_d8_a_window_is_reported_beside_this_batch(commands, tmp_path):
    changes = {"limit_window": 2, "steps": 3, "batch_size": 36, "mini_batch_size": 36}
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    rows = rows_of(tmp_path / "run")
    assert rows[0]["cost/harm/window"] == pytest.approx(rows[0]["cost/harm/mean"])
    for before, row in itertools.pairwise(rows):
        # each of these batches is every prompt, so both hold the same number of replies
        assert row["cost/harm/window"] == pytest.approx((before["cost/harm/mean"] + row["cost/harm/mean"]) / 2)


def test_two_limits_have_each_their_own_settings(commands, tmp_path):
    second = {"costs.lies": commands.snapshots / "cost2", "limits.lies": -9.0, "limits.harm": -9.0}
    own = {"multiplier_rate.harm": 0.1, "multiplier_init.lies": 0.5, "multiplier_bound.lies": 0.6}
    changes = {**second, **own, "multiplier_gain": 0.0, "steps": 1, "batch_size": 12, "mini_batch_size": 12}
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    (row,) = rows_of(tmp_path / "run")
    assert row["lagrange/harm"] == pytest.approx(2.0 * math.exp(0.1 * (row["cost/harm/mean"] + 9)), rel=1e-5)
    assert row["lagrange/lies"] == 0.6
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert set(lineage["multiplier_integrals"]) == {"harm", "lies"}


def test_multipliers_start_where_another_run_ended(commands, tmp_path):
    assert commands.run("limited", tmp_path / "first", steps=1) == 0
    ended = json.loads((tmp_path / "first" / "lineage.json").read_text())["multiplier_integrals"]["harm"]
    assert ended != 2.0
    config = parse("ppo", commands.line("limited", tmp_path / "x", multipliers_from=tmp_path / "first")[1:])
    assert ppo_state.first_state(config).multipliers["harm"].integral == ended
    other = {"costs.lies": commands.snapshots / "cost2", "limits.lies": 0.0}
    config = parse("ppo", commands.line("limited", tmp_path / "x", multipliers_from=tmp_path / "first", **other)[1:])
    with pytest.raises(BadInput, match="no limit lies"):
        ppo_state.first_state(config)


def test_a_fixed_rule_is_a_weighted_sum(commands, tmp_path):
    changes = {"multiplier_rule": "fixed", "multiplier_init": 0.7, "steps": 2, "batch_size": 8}
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    assert [row["lagrange/harm"] for row in rows_of(tmp_path / "run")] == [0.7, 0.7]


@pytest.mark.parametrize(("limit", "verdict"), [pytest.param(1e6, "met", marks=pytest.mark.slow), (-1e6, "not met")])
def test_limits_are_judged_on_held_out_prompts_at_the_end(commands, tmp_path, capsys, limit, verdict):
    held_out = {"eval_data.harmful": commands.files / "held-out.jsonl"}
    rows = [{"prompt": f"the stone river {word} runs"} for word in ("red", "blue", "small", "big", "with", "salt")]
    (commands.files / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert commands.run("limited", tmp_path / "run", steps=1, batch_size=4, **held_out, **{"limits.harm": limit}) == 0
    found = json.loads((tmp_path / "run" / "limits.json").read_text())["harm"]
    assert found["verdict"] == verdict and found["n"] == 6 and found["limit"] == limit
    assert found["low"] <= found["mean"] <= found["high"]
    assert f"limit harm {limit:g}: {verdict}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "lineage.json").read_text())["limits"]["harm"] == found


def test_held_out_prompts_that_were_trained_on_are_refused(commands, tmp_path, capsys):
    overlap = {"eval_data.harmful": commands.files / "harmful.jsonl"}
    assert commands.run("limited", tmp_path / "run", **overlap) == 2
    assert "--eval_data" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "alarm"),
    [
        ("warn above 2", Alarm("m", "warn", "above", 2.0)),
        (" roll-back below -1e3 ", Alarm("m", "roll-back", "below", -1e3)),
    ],
)
def test_alarms_parse(text, alarm):
    assert parse_alarm("m", text) == alarm


@pytest.mark.parametrize("text", ["", "above 2", "warn 2", "warn above much", "shout above 2"])
def test_alarms_that_do_not_parse_are_refused(text):
    with pytest.raises(ValueError, match="write warn, stop or roll-back"):
        parse_alarm("m", text)


def test_an_alarm_rings_past_its_bound_and_for_what_is_no_number():
    alarm = Alarm("m", "warn", "above", 2.0)
    assert [alarm.rings(v) for v in (1.0, 2.0, 2.1, math.nan)] == [False, False, True, True]
    assert Alarm("m", "warn", "below", 2.0).rings(1.9)
    rung = [alarm, Alarm("m", "roll-back", "above", 5.0), Alarm("m", "stop", "above", 5.0)]
    assert ppo_watch.worst(rung) == "roll-back" and ppo_watch.worst([]) == ""


@pytest.mark.parametrize(("ids", "expected"), [((1, 2, 3, 4), 0.0), ((1, 2) * 4, 4 / 6), ((5,) * 12, 0.9), ((1,), 0.0)])
def test_repetition_counts_runs_that_stood_before(ids, expected):
    assert ppo_watch.repeated(ids) == pytest.approx(expected)


def test_an_alarm_that_warns_changes_nothing(commands, plain, tmp_path, capsys):
    assert commands.run("ppo", tmp_path / "warned", **TWO_STEPS, **{"alarms.watch/entropy": "warn above 0"}) == 0
    said = capsys.readouterr().out
    assert said.count("alarm at iteration") == 2
    # what it means is said when it rings for the first time
    meaning = diagnose("watch/entropy", "above", 1.0)
    lines = said.splitlines()
    first = next(i for i, line in enumerate(lines) if "alarm at iteration 1" in line)
    told = [f"  it means: {meaning.means}", f"  look at: {meaning.look}", f"  to mend it: {meaning.turn}"]
    assert lines[first + 1 : first + 4] == told and said.count("it means") == 1
    warned = weights_of(tmp_path / "warned")
    assert all(torch.equal(plain[k], warned[k]) for k in plain)
    assert [row["watch/alarms"] for row in rows_of(tmp_path / "warned")] == [1, 1]
    lineage = json.loads((tmp_path / "warned" / "lineage.json").read_text())
    assert len(lineage["alarms"]) == 2
    assert lineage["diagnoses"] == [{"metric": "watch/entropy", "side": "above", **meaning._asdict()}]


def test_an_alarm_that_stops_ends_the_run_before_anything_is_learned(commands, tmp_path):
    assert commands.run("ppo", tmp_path / "run", steps=3, **{"alarms.watch/entropy": "stop above 0"}) == 0
    (row,) = rows_of(tmp_path / "run")
    assert "loss/policy" not in row and row["watch/alarms"] == 1
    assert not moved(commands, tmp_path / "run")
    assert "watch/entropy" in json.loads((tmp_path / "run" / "lineage.json").read_text())["ended"]


def test_a_budget_that_is_passed_takes_the_last_step_back(commands, tmp_path):
    """The weights saved are those of the run that was one iteration shorter."""
    line = {"batch_size": 8, "mini_batch_size": 4, "learning_rate": 5e-3, "warmup": 0.0, "schedule": "constant"}
    line |= {"kl_coefficient": 0.0}
    assert commands.run("ppo", tmp_path / "free", **line, steps=4) == 0
    kl = [row["objective/kl"] for row in rows_of(tmp_path / "free")]
    passed = next(i for i, value in enumerate(kl) if value > 0.05)
    assert passed >= 1
    assert commands.run("ppo", tmp_path / "held", **line, steps=4, kl_budget=0.05) == 0
    assert len(rows_of(tmp_path / "held")) == passed + 1
    if passed > 1:
        assert commands.run("ppo", tmp_path / "short", **line, steps=passed - 1) == 0
        short, held = weights_of(tmp_path / "short"), weights_of(tmp_path / "held")
        assert all(torch.equal(short[k], held[k]) for k in short)
    else:
        assert not moved(commands, tmp_path / "held")


def test_the_step_after_which_no_iteration_comes_is_watched_too(commands, tmp_path):
    """A budget that only the last step passes: it is undone, and the average goes back with it."""
    line = {"batch_size": 8, "mini_batch_size": 4, "learning_rate": 5e-3, "warmup": 0.0, "kl_coefficient": 0.0}
    line |= {"steps": 1, "kl_budget": 1e-3, "weight_average": 0.5}
    assert commands.run("ppo", tmp_path / "run", **line) == 0
    assert len(rows_of(tmp_path / "run")) == 1 and "loss/policy" in rows_of(tmp_path / "run")[0]
    assert "roll-back" in json.loads((tmp_path / "run" / "lineage.json").read_text())["ended"]
    assert not moved(commands, tmp_path / "run")


def test_an_alarm_on_what_no_iteration_logs_is_refused(commands, tmp_path, capsys):
    assert commands.run("ppo", tmp_path / "a", **{"alarms.watch/nothing/at/all": "warn above 0"}) == 2
    assert "logs no such metric" in capsys.readouterr().err
    assert commands.run("ppo", tmp_path / "b", **{"alarms.loss/policy": "warn above 0"}) == 2
    assert "rollouts" in capsys.readouterr().err


def test_a_watched_model_is_scored_and_not_trained_on(commands, plain, tmp_path):
    assert commands.run("ppo", tmp_path / "watched", **TWO_STEPS, **{"watch.other": commands.snapshots / "reward"}) == 0
    watched = weights_of(tmp_path / "watched")
    assert all(torch.equal(plain[k], watched[k]) for k in plain)
    for row in rows_of(tmp_path / "watched"):
        # the same model twice: its scores are the reward, and the gap between them is 0
        assert row["watch/other/score"] == pytest.approx(row["reward/helpful"])
        assert row["watch/other/gap"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kl_target": 1.0, "kl_anneal": 0.5}, "both move"),
        ({"critic_warmup": 1, "advantages": "reinforce++"}, "there is no critic"),
        ({"refresh_every": 1, "reference": "x"}, "--refresh_every"),
        ({"scale_rewards": "true", "limits.harm": 0.0, "costs.harm": "c"}, "--scale_rewards"),
        ({"multiplier_rate.other": 0.1}, "has no limit"),
        ({"eval_data": "x"}, "--eval_data"),
        ({"watch.helpful": "x"}, "watched"),
        ({"limit_window": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(commands, tmp_path, capsys, changes, said):
    assert commands.run("ppo", tmp_path / "run", **changes) == 2
    assert said in capsys.readouterr().err


EVERYTHING = {
    "critic_warmup": 1,
    "refresh_every": 2,
    "weight_average": 0.5,
    "limit_window": 3,
    "kl_anneal": 0.5,
    "kl_budget": 50.0,
    "steps": 5,
    "batch_size": 8,
    "mini_batch_size": 4,
}


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_f1_f2_resume_with_everything_that_moves_is_bit_exact(commands, stop_after, same_run, tmp_path, step):
    """λ, its window, β, critics, reference, average, the weights to go back to, what alarms compare with."""
    changes = {
        **EVERYTHING,
        "watch.other": commands.snapshots / "reward",
        "ptx_data": commands.files / "documents.jsonl",
        "data.harmful": commands.files / "harmful.jsonl",
    }
    assert commands.run("limited", tmp_path / "whole", **changes) == 0
    stop_after(step)
    assert commands.run("limited", tmp_path / "run", **changes) == 1
    stop_after(-1)
    assert commands.run("limited", tmp_path / "run", resume="true", **changes) == 0
    same_run(tmp_path / "run", tmp_path / "whole")


def test_the_slice_of_a_limit():
    from accord.records import Prompt, Turn

    prompts = [Prompt((Turn("user", "a"),), slice, "") for slice in ("harmful", "plain")]
    assert in_slices(prompts, "red-team,harmful").tolist() == [True, False]
    assert in_slices(prompts, "").tolist() == [True, True]


def test_what_is_dropped_for_length_is_said_by_the_knobs_that_were_given(commands, renderer, tmp_path, capsys):
    """A reply is kept room for; the number that is left appears in no command line."""
    rows = [json.loads(line) for line in (commands.files / "prompts.jsonl").read_text().splitlines()]
    lengths = sorted(len(renderer.prompt_ids((Turn("user", row["prompt"]),))) for row in rows)
    longest = lengths[len(lengths) // 2] + 6
    given = {"max_length": longest, "max_new_tokens": 6}
    assert commands.run("ppo", tmp_path / "run", steps=1, **given) == 0
    said = capsys.readouterr().out
    assert f"longer than --max_length {longest} less --max_new_tokens 6" in said
    dropped = json.loads((tmp_path / "run" / "data" / "data-too-long.json").read_text())
    assert dropped["max_length"] == longest and dropped["for_replies"] == 6
    assert dropped["dropped"] == sum(length + 6 > longest for length in lengths) > 0
    assert commands.run("ppo", tmp_path / "none", max_length=7, max_new_tokens=6) == 2
    assert "--max_length 7 less --max_new_tokens 6" in capsys.readouterr().err
