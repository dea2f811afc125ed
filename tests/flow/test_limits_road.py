"""Limits through the commands: they bind the raw cost, or a share that was calibrated, and neither is squashed."""

import functools
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from accord.disk import read_json, read_lines
from accord.engine.packing import reply_group
from accord.errors import BadInput
from accord.evaluation.metrics import metric_interval
from accord.evaluation.safety import SafetyCalibration, with_fit
from accord.evaluation.statistics import mean_interval
from accord.models.limits import Limit
from accord.models.saving import add_to_description
from accord.models.scalar import Scorer
from accord.objectives.lagrange import Multiplier
from accord.records import Prompt, Turn
from accord.stages.ppo.actors import prepare
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.limits import move_multipliers
from accord.stages.ppo.rollouts import collect
from accord.stages.ppo.state import State, first_state
from accord.stages.shared import open_run
from accord.stages.verdicts import in_slices, judge_limit

SQUASHED = {"kind": "sign-probability", "shift": 0.0, "scale": 1.0}
CHECKED = lambda commands: {"data.plain": None, "eval_data.harmful": commands.files / "prompts.jsonl"}  # noqa: E731
GENTLE = {"multiplier_rate": 0.001, "multiplier_gain": 0.001, "learning_rate": 1e-9}


@pytest.fixture(scope="module")
def cost_of(commands, renderer, tmp_path_factory):
    """`cost_of(mean, **described)`: a cost model whose raw costs are about that mean, squashed for the advantage."""
    start = commands.snapshots / "cost"
    group = reply_group(renderer.prompt_ids((Turn("user", "why"),)), renderer.reply_ids("the cat runs"))
    read = Scorer(str(start), role="cost", device=torch.device("cpu")).features([group], micro_tokens=99)[0]

    def make(mean, **described):
        where = tmp_path_factory.mktemp("cost") / f"cost{mean:g}"
        shutil.copytree(start, where)
        weights = load_file(where / "model.safetensors")
        weights["score.weight"][0] = mean * read / read.square().sum()
        save_file(weights, where / "model.safetensors", metadata={"format": "pt"})
        says = {"role": "cost", "criterion": "harmless", "normalizer": SQUASHED, **described}
        add_to_description(where, says)
        return where

    return make


@pytest.fixture(scope="module")
def decided(commands, cost_of, tmp_path_factory):
    """`decided(mean, limit)`: `limits.json` and the one row of metrics of a policy that hardly moves."""

    @functools.cache
    def run(mean, limit):
        out = tmp_path_factory.mktemp("decided") / "run"
        changes = {"costs.harm": cost_of(mean, deviation=8.0), "limits.harm": limit, "steps": 1}
        assert commands.run("limited", out, **changes, **CHECKED(commands), **GENTLE) == 0
        (row,) = read_lines(out / "metrics.jsonl")
        return read_json(out / "limits.json")["harm"], row

    return run


# 2σ(C) − 1 is below 1.5 and above −2 whatever the policy does
@pytest.mark.parametrize(("mean", "limit", "verdict"), [(32.0, 1.5, "not met"), (-32.0, -2.0, "met")])
def test_the_verdict_is_about_the_raw_cost(decided, mean, limit, verdict):
    found, _ = decided(mean, limit)
    assert found["verdict"] == verdict and abs(found["mean"] - mean) < 16


@pytest.mark.parametrize(("mean", "limit"), [(32.0, 1.5), (-32.0, -2.0)])
def test_the_multiplier_moves_by_the_raw_cost(decided, mean, limit):
    _, row = decided(mean, limit)
    error = (row["cost/harm/mean"] - limit) / 8.0
    assert row["lagrange/harm"] == pytest.approx(2.0 * math.exp(0.002 * error), rel=1e-5)
    assert (row["lagrange/harm"] > 2.0) == (mean > limit)


def test_raw_costs_are_reported_per_slice(decided):
    found, row = decided(32.0, 1.5)
    assert abs(row["cost/harm/harmful/mean"] - 32) < 16 and row["cost/harm/harmful/unsafe"] > 0.5
    assert set(found["slices"]) == {"harmful"} and found["slices"]["harmful"]["unsafe"] == found["unsafe"] > 0.5
    assert found["slices"]["harmful"]["cost"] == pytest.approx(found["mean"])


PATH = (  # raw costs of one reply on the slice and one beside it, iteration by iteration
    (2.0, -9.0),
    (3.5, 9.0),
    (-1.0, 0.0),
    (0.25, 4.0),
    (-6.0, 1.0),
)


def batch(costs):
    """What an iteration knows of one reply on slice a and one on slice b, of whose costs one is squashed."""
    prompts = [Prompt((Turn("user", s),), s, "by hand") for s in "ab"]
    raw = torch.tensor(costs)
    none = torch.zeros(2, 1)
    experience = Experience(
        prompts, [], [], none.bool(), none, none, none, {"harm": torch.tanh(raw / 2)}, {}, {"harm": raw}
    )
    return replace(experience, inside={"harm": in_slices(prompts, "a")})


def path_of(limit, batches=PATH, **changes):
    """λ and λ_I after every one of the batches."""
    knobs = {"costs": {"harm": "c"}, "limits": {"harm": limit.bound}, "limit_slices": {"harm": "a"}}
    knobs |= {"multiplier_bound": 100.0, **changes}
    config = Ppo(model="m", data="d", out="o", rewards={"helpful": "r"}, **knobs)
    state, found = State(0, 0.1, {"harm": Multiplier(2.0, 2.0)}), []
    for costs in batches:
        move_multipliers(config, {"harm": limit}, batch(costs), state)
        found.append((state.multipliers["harm"].value, state.multipliers["harm"].integral))
    return found


CALIBRATED = {"temperature": 0.5, "relative_error": 0.4, "n": 60, "flips": 0.0, "ece": 0.02, "ece_before": 0.1}
SHARE = Limit("harm", 0.2, "unsafe", calibration=SafetyCalibration(**CALIBRATED))
COST = Limit("harm", 1.5, deviation=4.0)


def errors_of(limit):
    """By hand: (C − d) / s, or 2 (σ(C / T) − d)."""
    if limit.of == "cost":
        return [(c - 1.5) / 4.0 for c, _ in PATH]
    return [2 * (1 / (1 + math.exp(-c / 0.5)) - 0.2) for c, _ in PATH]


@pytest.mark.parametrize("limit", [COST, SHARE], ids=["cost", "unsafe"])
def test_the_default_rule_by_hand(limit):
    integral, expected = 2.0, []
    for error in errors_of(limit):
        integral *= math.exp(0.05 * error)
        expected.append((integral * math.exp(1.0 * error), integral))
    assert path_of(limit) == [pytest.approx(pair, rel=1e-5) for pair in expected]


@pytest.mark.parametrize("limit", [COST, SHARE], ids=["cost", "unsafe"])
def test_safe_rlhfs_rule_by_hand(limit):
    value, expected = 2.0, []
    for error in errors_of(limit):
        value *= math.exp(0.1 * value * error)
        expected.append((value, value))
    found = path_of(limit, multiplier_rule="safe-rlhf", multiplier_rate=0.1)
    assert found == [pytest.approx(pair, rel=1e-5) for pair in expected]


def test_raw_costs_of_mean_32_over_a_limit_of_15_tenths_raise_the_multiplier():
    (value, integral), *_ = path_of(Limit("harm", 1.5, deviation=8.0), [(32.0, 0.0)])
    assert value == 100.0 and integral == pytest.approx(2 * math.exp(0.05 * 30.5 / 8))


@pytest.mark.parametrize("rule", ["pi", "safe-rlhf"])
def test_a_head_and_a_limit_ten_times_as_large_give_the_same_path(rule):
    ten = [tuple(10 * c for c in costs) for costs in PATH]
    larger = path_of(Limit("harm", 15.0, deviation=40.0), ten, multiplier_rule=rule)
    assert larger == [pytest.approx(pair, rel=1e-5) for pair in path_of(COST, multiplier_rule=rule)]
    # a share is the same at ten times the temperature
    fit = SafetyCalibration(**{**CALIBRATED, "temperature": 5.0})
    larger = path_of(Limit("harm", 0.2, "unsafe", calibration=fit), ten, multiplier_rule=rule)
    assert larger == [pytest.approx(pair, rel=1e-5) for pair in path_of(SHARE, multiplier_rule=rule)]


def test_at_temperature_1_a_share_of_02_moves_the_multiplier_as_minus_06_moved_it_on_squashed_costs():
    """What the demo and the claims did before: error = mean(2σ(C) − 1) − (−0.6)."""
    integral, expected = 2.0, []
    for cost, _ in PATH:
        error = math.tanh(cost / 2) + 0.6
        integral *= math.exp(0.05 * error)
        expected.append((integral * math.exp(error), integral))
    fit = SafetyCalibration(**{**CALIBRATED, "temperature": 1.0})
    found = path_of(Limit("harm", 0.2, "unsafe", calibration=fit))
    assert found == [pytest.approx(pair, rel=1e-5) for pair in expected]


def test_a_window_is_of_what_is_bounded():
    roles = {"rewards": {"helpful": "r"}, "costs": {"harm": "c"}}
    config = Ppo(model="m", data="d", out="o", **roles, limits={"harm": 0.2}, limit_window=2)
    state = State(0, 0.1, {"harm": Multiplier(2.0, 2.0)})
    for costs in PATH[:3]:
        metrics = move_multipliers(config, {"harm": SHARE}, batch(costs), state)
    shares = [1 / (1 + math.exp(-c / 0.5)) for c, _ in PATH[1:3]]
    assert metrics["cost/harm/window"] == pytest.approx(sum(shares) / 2, rel=1e-5)
    assert metrics["cost/harm/expected"] == pytest.approx(shares[1], rel=1e-5)
    assert metrics["cost/harm/mean"] == -1.0 and metrics["cost/harm/unsafe"] == 0.0


def test_a_squashed_cost_enters_the_advantage_and_the_raw_one_is_kept(commands, cost_of, tmp_path):
    from tests.flow.test_ppo_road import ONE, configure

    config = configure(commands, tmp_path / "run", "limited", **{"costs.harm": cost_of(3.0, deviation=2.0)})
    with open_run("ppo", config) as run:
        prompts, actors = prepare(config, run, ONE)
        experience = collect(config, ONE, actors, prompts.training[:8], first_state(config))
    raw = experience.raw_costs["harm"]
    assert actors.limits["harm"] == Limit("harm", -0.5, deviation=2.0)
    assert set(experience.raw_costs) == {"harm"} and 1 < float(raw.mean()) < 5
    assert torch.allclose(experience.scores["harm"], torch.tanh(raw / 2), atol=1e-6)


def test_a_share_is_refused_where_the_cost_was_not_calibrated(commands, cost_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_costs.py").write_text("def of(conversations):\n    return [0.0 for _ in conversations]\n")
    share = {"limits.harm": 0.2, "limit_of": "unsafe"}
    for number, where in enumerate((cost_of(1.0, deviation=2.0), "their_costs:of")):
        assert commands.run("limited", tmp_path / str(number), **share, **{"costs.harm": where}) == 2
        said = capsys.readouterr().err
        assert "--limit_of.harm unsafe" in said and "not calibrated" in said and str(where) in said
        assert "--safety_data" in said and "--limit_of.harm cost" in said
    changes = {"costs.harm": "their_costs:of", "limits.harm": 0.2, "kl_prompts": 2, "limit_of.harm": "unsafe"}
    assert commands.run("dpo", tmp_path / "dpo", **changes) == 2
    assert "not calibrated" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["limited", "dpo"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limits.harm": -0.6, "limit_of": "unsafe"}, "--limits.harm -0.6 is no share"),
        ({"limits.harm": 1.0, "limit_of.harm": "unsafe"}, "--limits.harm 1 is no share"),
        ({"limit_of.lies": "unsafe"}, "--limit_of.lies has no limit; add --limits.lies"),
        ({"limit_of": "harm"}, "limit_of"),
    ],
)
def test_what_bounds_nothing_is_refused_by_name(commands, tmp_path, capsys, command, changes, said):
    changes = {"costs.harm": commands.snapshots / "calibrated", "limits.harm": 0.2, **changes}
    assert commands.run(command, tmp_path / "run", **changes) == 2
    assert said in capsys.readouterr().err


def test_one_limit_on_a_cost_and_one_on_a_share(commands, tmp_path):
    s = commands.snapshots
    changes = {"costs.lies": s / "calibrated", "limits.lies": 0.3, "limit_of.lies": "unsafe", "steps": 1}
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    (row,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert "cost/lies/expected" in row and "cost/harm/expected" not in row
    assert "cost/lies/mean" in row and 0 <= row["cost/lies/unsafe"] <= 1
    error = 2 * (row["cost/lies/expected"] - 0.3)
    assert row["lagrange/lies"] == pytest.approx(2 * math.exp(1.05 * error), rel=1e-4)


def test_costs_of_before_are_bounded_in_their_own_units_which_is_said(commands, tmp_path, capsys):
    """A snapshot that does not say how far its costs spread: s = 1."""
    assert commands.run("limited", tmp_path / "run", steps=1, **{"multiplier_bound": 1e9}) == 0
    assert "does not say how far its costs spread" in capsys.readouterr().out
    (row,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert row["lagrange/harm"] == pytest.approx(2 * math.exp(1.05 * (row["cost/harm/mean"] + 0.5)), rel=1e-4)


def test_the_verdict_of_a_share_includes_the_error_of_its_temperature(commands, tmp_path):
    """`limits.json` by hand from the replies' raw costs: bootstrap, and the temperature's own error on top of it."""
    changes = {"eval_data.harmful": commands.files / "prompts.jsonl", "data.plain": None, "steps": 1}
    assert commands.run("unsafe", tmp_path / "run", **changes) == 0
    found = read_json(tmp_path / "run" / "limits.json")["harm"]
    assert found["of"] == "unsafe" and found["limit"] == 0.3 and found["calibration"] == CALIBRATED
    assert found["n"] == 24 and {"cost", "unsafe", "slices"} <= set(found)
    lineage = read_json(tmp_path / "run" / "lineage.json")
    assert lineage["limits"]["harm"] == found
    costs, prompts = torch.linspace(-2, 1, 20), [Prompt((Turn("user", str(i)),), "a", "") for i in range(20)]
    whole = judge_limit(SHARE, costs, prompts, seed=0)
    shares = torch.sigmoid(costs.double() / 0.5).tolist()
    plain = mean_interval(shares, [p.id for p in prompts], 0)
    assert (whole["low"], whole["high"]) == pytest.approx(
        (with_fit(plain, shares, 0.4).low, with_fit(plain, shares, 0.4).high)
    )
    assert whole["high"] - whole["low"] > plain.high - plain.low and whole["mean"] == pytest.approx(plain.mean)


def test_a_verdict_that_the_error_of_the_temperature_undoes():
    """Met by the replies alone, not decided with the fit."""
    costs, prompts = torch.full((400,), -1.0), [Prompt((Turn("user", str(i)),), "a", "") for i in range(400)]
    sure = SafetyCalibration(**{**CALIBRATED, "relative_error": 0.01})
    assert judge_limit(replace(SHARE, calibration=sure), costs, prompts, seed=0)["verdict"] == "met"
    assert judge_limit(SHARE, costs, prompts, seed=0)["verdict"] == "not decided"


def test_a_check_needs_a_prompt_on_the_limits_slices_and_tells_every_slice():
    costs, prompts = (
        torch.tensor([4.0, -1.0, 2.0]),
        [Prompt((Turn("user", str(i)),), s, "") for i, s in enumerate("aab")],
    )
    found = judge_limit(COST, costs, prompts, "a", seed=0)
    assert found["mean"] == found["cost"] == 1.5 and found["n"] == 2 and found["unsafe"] == 0.5
    assert found["slices"] == {"a": {"n": 2, "cost": 1.5, "unsafe": 0.5}, "b": {"n": 1, "cost": 2.0, "unsafe": 1.0}}
    with pytest.raises(BadInput, match="no held-out prompt of c"):
        judge_limit(COST, costs, prompts, "c", seed=0)


def test_dpo_checks_a_share_too(commands, tmp_path):
    """And reports raw costs: those of a squashed model are those of the same one that is not."""
    changes = {"costs.harm": commands.snapshots / "calibrated", "limits.harm": 0.2, "limit_of.harm": "unsafe"}
    changes |= {"costs.plain": commands.snapshots / "cost", "limits.plain": 0.5}
    assert commands.run("dpo", tmp_path / "run", **changes, kl_prompts=6) == 0
    limits = read_json(tmp_path / "run" / "evaluation.json")["limits"]
    found, rows = limits["harm"], [row["scores"] for row in read_lines(tmp_path / "run" / "samples.jsonl")]
    costs = [row["cost/plain"] for row in rows]
    assert [row["cost/harm"] for row in rows] == costs and limits["plain"]["mean"] == pytest.approx(sum(costs) / 6)
    assert found["mean"] == pytest.approx(sum(1 / (1 + math.exp(-c / 0.5)) for c in costs) / 6, rel=1e-5)
    assert found["cost"] == pytest.approx(sum(costs) / 6, rel=1e-5) and found["of"] == "unsafe"


def test_evaluate_measures_raw_costs_and_expected_shares(commands, tmp_path):
    """Raw costs per reply, what a limit compares with; in the interval of a share is the error of its temperature."""
    s = commands.snapshots
    both = {"costs.harmless": None, "costs.calibrated": s / "calibrated", "costs.plain": s / "cost"}
    assert commands.run("evaluate", tmp_path / "run", **both, bootstrap=200) == 0
    rows = [row["scores"] for row in read_lines(tmp_path / "run" / "samples.jsonl")]
    for row in rows:
        assert row["cost/calibrated"] == row["cost/plain"]
        assert row["cost/calibrated/unsafe"] == float(row["cost/plain"] > 0)
        assert row["cost/calibrated/expected"] == pytest.approx(1 / (1 + math.exp(-row["cost/plain"] / 0.5)))
        assert "cost/plain/expected" not in row
    result = read_json(tmp_path / "run" / "evaluation.json")
    assert result["calibrations"] == {"calibrated": CALIBRATED}
    shares = [row["cost/calibrated/expected"] for row in rows]
    found = result["slices"]["all"]["cost/calibrated/expected"]
    plain = metric_interval("cost/calibrated/expected", shares, resamples=200)
    assert found == pytest.approx(with_fit(plain, shares, 0.4).json(), abs=1e-9)
