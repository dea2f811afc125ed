"""Claims on policy optimisation on made-up runs with known answers, and the shape of what they would run."""

import itertools
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from accord.claims import (
    adaptive_kl,
    alarms,
    anneal,
    boundary,
    critics,
    honesty,
    kl_limits,
    overoptimisation,
    ptx,
    small_beats_large,
    sqrt_kl,
    tax,
    tension,
    thresholds,
    transitivity,
    two_halves,
)
from accord.claims.lab import policies
from accord.claims.lab.contract import verdict_of
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.data.sources import read_demonstrations
from accord.stages.evaluate.config import Evaluate, EvaluateHonesty, EvaluateTasks
from accord.stages.ppo.config import Ppo
from accord.stages.pretrain.config import Pretrain
from accord.world import demonstrations

# gold helpfulness, harm, honesty and evasiveness of a made-up policy; what is not listed is 0
MADE_UP = {
    "kl-limits": {f"beta-{b:g}": {"gold/helpful": g} for b, g in zip(kl_limits.BETAS, (0, 1, 2, 3, 1, 0), strict=True)},
    "tension": {
        "sft": {"gold/helpful": 0.1, "gold/harm": 0.1},
        "ppo": {"gold/helpful": 0.5, "gold/harm": 0.6},
        "harmless-only": {"gold/helpful": -0.5, "gold/harm": -0.9, "gold/evasive": 0.7},
        "limited": {"gold/helpful": 0.4, "gold/harm": -0.5},
    },
    "thresholds": {
        "two-limits": {"gold/helpful": 0.5, "gold/harm": -0.4, "gold/honest": 0.3},
        "sum-1-1": {"gold/helpful": 0.3, "gold/harm": -0.5, "gold/honest": 0.4},
        "sum-0.5-0.5": {"gold/helpful": 0.9, "gold/harm": 0.4, "gold/honest": 0.4},
        "sum-2-0.5": {"gold/helpful": 0.8, "gold/harm": -0.4, "gold/honest": -0.4},
        "sum-4-4": {"gold/helpful": 0.1, "gold/harm": -0.8, "gold/honest": 0.8},
        "sum-0.25-0.25": {"gold/harm": 0.5},
        "sum-2-2": {"gold/harm": -0.5, "gold/honest": 0.5},
        "sum-0.5-2": {"gold/harm": 0.5},
    },
    "ptx": {
        "sft": {"gold/correct": 0.9},
        "beta-0.02": {"gold/correct": 0.4},
        "hunted-ptx": {"gold/correct": 0.7},
    },
    "critics": {
        "critics-gae": {"gold/helpful": 0.3},
        "critics-rloo": {"gold/helpful": 0.28},
        "critics-grpo": {"gold/helpful": 0.4},
        "critics-separate": {"gold/helpful": 0.3},
        "critics-warm": {"gold/helpful": 0.31},
    },
    "anneal": {
        "annealed-1": {"gold/helpful": 0.6},
        "fixed-1": {"gold/helpful": 0.5},
        "reversed-1": {"gold/helpful": 0.7},
    },
}
METRICS = (
    "gold/helpful",
    "gold/harm",
    "gold/honest",
    "gold/evasive",
    "gold/refusal",
    "gold/correct",
    "kl",
    "reward/helpful",
)
CLAIMS = [kl_limits, tension, thresholds, anneal, ptx, critics]


class Written:
    """Cells that run nothing: evaluations hold the numbers of one table, PPO runs a curve that turns."""

    def __init__(self, root, table=None, seed_shift=0.0):
        self.root, self.table, self.asked = root, table or {}, []

    def base(self, seeds):
        return [GoldFlow(self.root / str(seed), SCALES["small"], seed, True) for seed in seeds]

    def run(self, configs):
        for config in configs:
            folder = Path(config.out)
            folder.mkdir(parents=True, exist_ok=True)
            self.asked.append(config)
            if isinstance(config, Evaluate):
                self.evaluate(folder, folder.name.removeprefix("evaluate-"))
            elif isinstance(config, Ppo):
                self.train(folder)

    def evaluate(self, folder, of):
        rows = []
        for number, (slice, k) in enumerate(itertools.product((*TRAINED, "skills"), range(16))):
            values = self.table.get(of, {})
            noise = 0.01 * ((k % 4) - 1.5)
            scores = {metric: values.get(metric, 0.0) + noise for metric in METRICS}
            scores |= {metric: min(max(scores[metric], 0.0), 1.0) for metric in ("gold/refusal", "gold/correct")}
            rows.append({"prompt_id": f"{number:04x}", "slice": slice, "scores": scores})
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def train(self, folder):
        """Proxy rises throughout; gold peaks at iteration 40 and falls, most where the data is little."""
        slope = 0.02 if folder.name in ("hunted-few", "hunted-watched") else 0.004
        with open(folder / "metrics.jsonl", "w") as stream:
            for i in range(80):
                gold = 0.01 * min(i, 40) - slope * max(i - 40, 0)
                row = {"step": i + 1, "objective/kl": 0.1 * i, "reward/helpful": 0.02 * i, "gold/helpful": gold}
                row["kl_coefficient"] = 0.2
                stream.write(json.dumps({**row, "watch/other/gap": 0.01 * i}) + "\n")


@pytest.mark.parametrize("module", CLAIMS, ids=lambda m: m.CLAIM.name)
def test_a_world_in_which_the_claim_is_true_is_found_to_be_one(module, tmp_path):
    finding = module.measure(Written(tmp_path, MADE_UP[module.CLAIM.name]), [0, 1, 2])
    assert {part.name: part.verdict for part in finding.parts} == {part.name: "holds" for part in finding.parts}
    assert verdict_of(finding.parts) == "holds" and "<svg" in finding.figure


@pytest.mark.parametrize("module", CLAIMS[:-1], ids=lambda m: m.CLAIM.name)
def test_a_world_in_which_nothing_differs_does_not_make_it_hold(module, tmp_path):
    finding = module.measure(Written(tmp_path), [0, 1, 2])
    assert verdict_of(finding.parts) in ("undecided", "fails")


def test_a_world_in_which_the_best_weight_is_at_an_end_fails_kl_limits(tmp_path):
    table = {f"beta-{b:g}": {"gold/helpful": float(i)} for i, b in enumerate(kl_limits.BETAS)}
    finding = kl_limits.measure(Written(tmp_path, table), [0, 1, 2])
    assert verdict_of(finding.parts) == "fails"


def test_kl_limits_chooses_among_the_inner_weights_alone():
    assert kl_limits.best_inside([9.0, 1.0, 2.0, 3.0, 1.0, 9.0]) == kl_limits.BETAS[3]
    assert len(kl_limits.BETAS) >= 6 and list(kl_limits.BETAS) == sorted(kl_limits.BETAS)


def test_the_halves_of_the_prompts_share_none_and_leave_none_out():
    ids = [f"{i:064x}" for i in range(64)]
    chosen, measured = {p for p in ids if policies.choosing(p)}, {p for p in ids if policies.measuring(p)}
    assert not chosen & measured and chosen | measured == set(ids) and len(chosen) == 32


def test_thresholds_compares_with_the_best_sum_that_holds_both(tmp_path):
    finding = thresholds.measure(Written(tmp_path, MADE_UP["thresholds"]), [0, 1, 2])
    gap = finding.parts[2]
    assert "sum-1-1" in gap.name and gap.interval.mean == pytest.approx(0.2)
    assert any("sum-1-1, sum-2-2, sum-4-4" in note for note in finding.notes)
    none = {name: {"gold/harm": 1.0} for name in MADE_UP["thresholds"]}
    finding = thresholds.measure(Written(tmp_path / "none", none), [0])
    assert finding.parts[2].verdict == "undecided" and "there is none" in finding.parts[2].name


def test_thresholds_runs_two_limits_and_seven_weighted_sums(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    limited = thresholds.both(flow)
    assert set(limited.limits) == {"harmless", "honest"} and limited.multiplier_rule == "pi"
    sums = [thresholds.weighted(flow, n) for n in range(len(thresholds.WEIGHTS))]
    assert len({config.out for config in sums}) == 7
    for config, (harm, lies) in zip(sums, thresholds.WEIGHTS, strict=True):
        assert config.multiplier_rule == "fixed" and not config.limit_slices
        assert (config.of_limit("multiplier_init", "harmless"), config.of_limit("multiplier_init", "honest")) == (
            harm,
            lies,
        )
    cost = thresholds.dishonesty(flow)
    assert cost.role == "cost" and cost.criterion == "honest" and "honest" in str(cost.safety_data)
    assert thresholds.annotate_honesty(flow).judged == ["honest"]


def test_overoptimisation_finds_what_was_made_up(tmp_path):
    finding = overoptimisation.measure(Written(tmp_path), [0, 1, 2])
    values = {part.name: part.interval.mean for part in finding.parts}
    assert values["few comparisons: proxy from gold's peak to the end"] == pytest.approx(0.02 * (74.5 - 40), rel=0.05)
    # the peak's neighbourhood is a little lower than the peak
    assert values["few comparisons: gold lost from its peak to the end"] == pytest.approx(0.02 * (74.5 - 40), rel=0.05)
    for other in ("all comparisons", "larger model", "ensemble", "stronger penalty"):
        assert values[f"gold lost: few comparisons − {other}"] == pytest.approx((0.02 - 0.004) * (74.5 - 40), rel=0.05)
    assert [part.verdict for part in finding.parts] == ["holds"] * 6


def test_the_halves_part_and_the_alarm_is_counted_from_gold_s_peak(tmp_path):
    finding = two_halves.measure(Written(tmp_path), [0, 1, 2])
    apart, ahead = finding.parts
    assert apart.interval.mean == pytest.approx(0.77) and apart.verdict == "holds"
    # the mean of five iterations passes 0.1 at the one whose last is 13
    assert ahead.interval.mean == pytest.approx(40 - 13, abs=1) and ahead.verdict == "holds"


def test_an_alarm_that_never_rings_rings_at_the_end():
    assert two_halves.alarm_at(np.zeros(30)) == 30
    assert two_halves.alarm_at(np.full(30, 9.0)) == overoptimisation.SMOOTHING - 1


def test_kl_off_its_target_fails_and_kl_at_it_holds(tmp_path):
    class At(Written):
        def train(self, folder):
            rows = [{"objective/kl": self.at + 0.1 * (i % 2), "kl_coefficient": 0.2} for i in range(adaptive_kl.STEPS)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    for at, verdict in ((adaptive_kl.TARGET, "holds"), (1.3 * adaptive_kl.TARGET, "fails"), (0.5, "fails")):
        cells = At(tmp_path / str(at))
        cells.at = at
        assert verdict_of(adaptive_kl.measure(cells, [0, 1, 2]).parts) == verdict


def test_the_knee_of_a_bent_line_is_found():
    x = np.linspace(0, 3, 31)
    assert sqrt_kl.break_point(x, np.where(x < 1.2, 2 * x, 2.4 + 0.3 * (x - 1.2))) == pytest.approx(1.2, abs=0.11)


def test_the_critics_learn_from_equally_many_replies(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    made = critics.configs(flow)
    assert {c.batch_size * c.samples for c in made.values()} == {flow.scale.rollouts}
    assert {c.steps - c.critic_warmup for c in made.values()} == {flow.scale.iterations}


def test_ptx_differs_from_the_run_beside_it_in_its_text_alone(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    plain, mixed = kl_limits.run_config(flow, kl_limits.WEAK), ptx.mixed(flow)
    differ = {name for name in type(plain).model_fields if getattr(plain, name) != getattr(mixed, name)}
    assert differ == {"out", "ptx_data", "ptx_weight"}


def test_the_watched_model_stands_on_other_prompts_and_as_few_labels(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    few, (sample, annotate, other) = overoptimisation.fewer(flow), two_halves.other_half(flow)
    assert sample.data != flow.sample().data and annotate.samples == sample.out
    assert (few.max_rows, few.criterion) == (other.max_rows, other.criterion) and few.data != other.data
    watched = two_halves.watched(flow)
    assert watched.watch == {"other": flow.snapshot("helpful-watch")} and not watched.alarms


def test_the_conditions_change_one_thing_each(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    few, *others = overoptimisation.conditions(flow).values()
    changed = [{n for n in type(few).model_fields if getattr(few, n) != getattr(c, n)} - {"out"} for c in others]
    assert changed == [{"rewards"}, {"rewards"}, {"rewards"}, {"kl_coefficient"}]
    one, larger, several = overoptimisation.models(flow)
    assert larger.model != one.model and larger.data == one.data and larger.max_rows == one.max_rows
    assert several.ensemble == 3 and several.combine == "worst" and several.model == one.model


def test_annealing_spends_the_same_in_every_schedule(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    means = [first * second for first, second in anneal.SCHEDULES.values()]
    assert means == pytest.approx([means[0]] * 3, rel=0.01)
    for name in anneal.SCHEDULES:
        start, sample, annotate, model, again = anneal.rounds(flow, name)
        assert sample.model == flow.snapshot(f"{name}-0") == again.model and annotate.samples == sample.out
        assert again.reference == flow.snapshot("sft") and start.steps == again.steps
        assert list(model.data) == ["policy", "scripted", "now"] and again.rewards == {
            "helpful": flow.snapshot(f"{name}-helpful")
        }


def test_tension_trains_the_harmless_corner_on_a_preference_model(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    model = tension.harmless_preference(flow)
    assert model.role == "preference" and model.criterion == "harmless" and not model.safety_data
    assert tension.harmless_only(flow).rewards == {"harmless": flow.snapshot("harmless-preference")}
    soup = tension.mixed(flow, 0.25)
    assert soup.weights == {"helpful": 0.25, "harmless": 0.75} and set(soup.models) == set(soup.weights)


def test_sqrt_kl_tells_a_line_from_a_root(tmp_path):
    """The made-up reward rises with KL and not with its root."""
    finding = sqrt_kl.measure(Written(tmp_path), [0, 1, 2])
    root, gap = (part.interval for part in finding.parts)
    kl = 0.1 * np.arange(21)  # half of gold's peak is at iteration 20
    expected = stats.linregress(np.sqrt(kl), kl).rvalue ** 2
    assert root.values == pytest.approx([expected] * 3, abs=0.01)
    assert gap.values == pytest.approx([root.values[0] - 1] * 3) and root.kind == "r2" and gap.kind == "mean"
    assert finding.parts[1].verdict == "fails"


class WithAlarms(Written):
    """Runs whose gold turns where few comparisons are hunted, and whose second model parts eight iterations before."""

    def train(self, folder):
        hacked = folder.name == "hunted-watched"
        seed = int(folder.parent.name)
        turn = (40 + seed) if hacked else 999
        with open(folder / "metrics.jsonl", "w") as stream:
            for i in range(80):
                row = dict.fromkeys((alarms.GOLD, *(metric for metric, _ in alarms.ALARMS.values())), 1.0)
                row[alarms.GOLD] = 0.01 * min(i, turn) - 0.02 * max(i - turn, 0)
                row["watch/other/gap"] = 0.1 * max(i - (turn - 8), 0)
                stream.write(json.dumps({"step": i + 1, **row}) + "\n")


def test_alarms_that_warn_and_those_that_do_not_are_told_apart(tmp_path):
    cells = WithAlarms(tmp_path)
    finding = alarms.measure(cells, [0, 1, 2, 3])
    found = {part.name.partition(":")[0]: part for part in finding.parts}
    assert found["second model"].verdict == "holds" and found["second model"].interval.n == 4
    assert {part.verdict for name, part in found.items() if name != "second model"} == {"fails"}
    assert verdict_of(finding.parts) == "fails" and "<svg" in finding.figure
    assert sum("does not turn" in note for note in finding.notes) == 4
    careful = [c for c in cells.asked if isinstance(c, Ppo) and c.out.endswith("careful-watched")]
    assert careful[0].kl_coefficient == alarms.PENALTY * alarms.WEAK and careful[0].watch


class Honest(Written):
    """Evaluations of honesty with the numbers of one table; few demonstrations."""

    def base(self, seeds):
        return [replace(flow, scale=replace(flow.scale, demonstrations=100)) for flow in super().base(seeds)]

    def run(self, configs):
        super().run(configs)
        for config in configs:
            if isinstance(config, EvaluateHonesty):
                of = Path(config.out).name.removeprefix("honesty-")
                (Path(config.out) / "evaluation.json").write_text(json.dumps(self.table[of]))


def honesty_numbers(declined, right, brier):
    def share(now, change):
        return {"now": {"mean": now}, "change": {"mean": change}}

    trade = {"unknown declined": share(0.1 + declined, declined), "known answered right": share(0.8 + right, right)}
    trade |= {"known declined": share(0.1, 0.0), "benign prompts refused": share(0.1, 0.0)}
    chances = {"brier": {"mean": brier}, "ece": {"mean": brier / 2}, "auroc": {"mean": 0.9}}
    return {"trade": trade, "calibration": {"sure, stated": chances}}


def test_honesty_asks_for_declining_for_answers_kept_and_for_calibration(tmp_path):
    table = {"sft-answering": honesty_numbers(0, 0, 0.9), "sft": honesty_numbers(0, 0, 0.1)}
    table["sft-honest"] = honesty_numbers(0.5, -0.01, 0.0)
    good = honesty.measure(Honest(tmp_path / "a", {**table, "ppo": honesty_numbers(0, 0, 0.2)}), [0, 1, 2])
    assert [part.verdict for part in good.parts] == ["holds", "holds", "holds"]
    assert good.parts[2].interval.mean == pytest.approx(0.1)
    assert "ECE of stated chances, PPO less SFT: +0.05 [+0.05, +0.05]" in good.notes
    table["sft-honest"] = honesty_numbers(0.5, -0.2, 0.1)
    lost = honesty.measure(Honest(tmp_path / "b", {**table, "ppo": honesty_numbers(0, 0, 0.05)}), [0, 1, 2])
    assert [part.verdict for part in lost.parts] == ["holds", "fails", "fails"]
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    assert honesty.asked(flow, "ppo").against.endswith("honesty-sft") and not honesty.asked(flow, "sft").against
    assert honesty.asked(flow, "sft-honest").against.endswith("honesty-sft-answering")
    assert honesty.probe(flow).questions["facts"] != honesty.asked(flow, "sft").probes["facts"]


def test_a_model_that_shall_learn_to_decline_was_shown_nobody_who_declines(tmp_path):
    flow = GoldFlow(tmp_path, replace(SCALES["small"], demonstrations=1000), 0, True)
    shown = demonstrations(flow.scale.demonstrations, flow.seed)
    left = read_demonstrations(honesty.start(flow).data).records
    kept = {each.id for each in left}
    gone = [each for each in shown if each.id not in kept]
    assert len(gone) > 50 and len(left) + len(gone) == len(shown)
    assert any(each.reply == "i do not know." for each in gone)
    assert not any("not know" in each.reply for each in left if each.prompt.slice == "knowledge")
    assert honesty.honest(flow).data["before"] != honesty.start(flow).data, "other demonstrations than it began with"


class Sized(Written):
    """Cost models and policies that tell the sides better the larger they are, or no better."""

    def __init__(self, root, better):
        super().__init__(root)
        self.better = better

    def evaluate(self, folder, of):
        if not folder.name.startswith("boundary"):
            return
        rng, rows = np.random.default_rng(len(folder.name) + int(folder.parent.name)), []
        for side, k, _ in itertools.product(("harmful", "look-alike"), range(60), range(2)):
            sign = 1 if side == "harmful" else -1
            apart = {size: (0.4 + 0.5 * i * self.better) * sign for i, size in enumerate(boundary.SIZES)}
            own = apart.get(folder.name.removeprefix("boundary-"), 0.5 * sign)
            refused = float(rng.normal(own, 1) > 0) if folder.name != "boundary-costs" else 0.0
            scores = {
                f"cost/{size}-{n}": float(rng.normal(value if n > boundary.LABELS[0] else 0.0, 1))
                for size, value in apart.items()
                for n in boundary.LABELS
            }
            scores |= {"gold/refusal": refused, "gold/harm_share": float(side == "harmful" and not refused)}
            rows.append({"prompt_id": f"{side}{k}", "slice": side, "scores": scores})
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_boundary_by_size(tmp_path, monkeypatch):
    places = {f"sft-{size}": 10 ** (3 + i) for i, size in enumerate(boundary.SIZES)}
    monkeypatch.setattr(boundary, "parameters_in", lambda snapshot: places[snapshot.parent.name])
    grows = boundary.measure(Sized(tmp_path / "a", 1.0), [0, 1, 2, 3])
    assert [part.verdict for part in grows.parts] == ["holds"] * 3
    told = re.search(
        r"small .*cost model's AUROC (\S+) .* of 200, (\S+) .* of 400, (\S+) .* of 800, look", grows.notes[2]
    )
    few, *many = map(float, told.groups())
    assert abs(few - 0.5) < 0.1 and min(many) > 0.9, "the labels of one model are not those of another"
    same = boundary.measure(Sized(tmp_path / "b", 0.0), [0, 1, 2, 3])
    assert verdict_of(same.parts) in ("undecided", "fails")


class Taxed(Written):
    """Batteries whose change by stage and size is a table's; all of a stage's tasks change alike."""

    def run(self, configs):
        super().run(configs)
        for config in configs:
            if isinstance(config, EvaluateTasks):
                stage, _, size = Path(config.out).name.removeprefix("battery-").rpartition("-")
                assert bool(config.against) == (stage != "pretrain")
                changed = self.table.get(stage, {}).get(size, 0.0)
                of = {task: {"task/accuracy": {"mean": changed}} for task in tax.ASKED}
                of["text"] = {"task/loss": {"mean": -changed}}
                changes = {"tasks": of, "tax": {"mean": changed + 0.001 * int(Path(config.out).parent.name)}}
                written = json.dumps({"changes": changes if config.against else None})
                (Path(config.out) / "evaluation.json").write_text(written)


def sizes_of(monkeypatch, module, sizes):
    """Every size ten times the one before, without weights."""
    places = {size: 10 ** (5 + i) for i, size in enumerate(sizes)}
    monkeypatch.setattr(module, "parameters_in", lambda snapshot: places[snapshot.parent.name.rpartition("-")[2]])


def test_the_tax_by_size_and_what_pretraining_text_saves(tmp_path, monkeypatch):
    sizes_of(monkeypatch, tax, tax.SIZES)
    paid = {"nano": -0.4, "tiny": -0.2, "small": 0.0}
    table = {"sft": dict.fromkeys(paid, 0.1), "taxed": paid, "taxed-ptx": {s: 0.5 * p for s, p in paid.items()}}
    found = tax.measure(Taxed(tmp_path / "a", table), [0, 1, 2])
    assert [part.verdict for part in found.parts] == ["holds"] * 3 and "<svg" in found.figure
    first, slope, saved = (part.interval for part in found.parts)
    assert first.mean == pytest.approx(-0.4 + 0.001) and saved.mean == pytest.approx(0.1)
    assert slope.mean == pytest.approx(0.2 / np.log(10))
    assert any("nano (100,000 parameters), PPO-ptx less SFT: accuracy -0.20" in note for note in found.notes)
    grows = {"taxed": {"nano": -0.1, "tiny": -0.3, "small": -0.5}, "taxed-ptx": {"nano": -0.5, "tiny": -0.5}}
    found = tax.measure(Taxed(tmp_path / "b", grows), [0, 1, 2])
    assert [part.verdict for part in found.parts] == ["holds", "fails", "fails"]


def test_the_tax_is_asked_of_each_stage_against_the_one_before(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    plain, mixed = tax.trained(flow, "nano")
    differ = {name for name in type(plain).model_fields if getattr(plain, name) != getattr(mixed, name)}
    assert differ == {"out", "ptx_data", "ptx_weight"} and plain.model == flow.snapshot("sft-nano")
    for stage, before in (("sft", "pretrain"), ("taxed", "sft"), ("taxed-ptx", "sft")):
        assert tax.battery(flow, stage, "nano").against.endswith(f"battery-{before}-nano")
    # no text that a model was trained on is measured
    assert tax.battery(flow, "sft", "nano").tasks["text"].partition("seed=")[2] != str(flow.seed)


class Read(Written):
    """Pretrained models whose held-out loss falls by `gained` from a size to the next."""

    def __init__(self, root, table, gained=0.01):
        super().__init__(root, table)
        self.gained = gained

    def run(self, configs):
        super().run(configs)
        for config in configs:
            if isinstance(config, Pretrain):
                place = small_beats_large.LADDER.index(config.model)
                loss = 0.6 - self.gained * place + 0.001 * int(Path(config.out).parent.name)
                (Path(config.out) / "metrics.jsonl").write_text(json.dumps({"step": 1, "eval/loss": loss}) + "\n")


def test_small_against_large_by_ratio(tmp_path, monkeypatch):
    sizes_of(monkeypatch, small_beats_large, small_beats_large.LADDER)
    better = {of: {"gold/helpful": 1.0} for of in ("ppo-pico", "ppo-nano")}
    cells = Read(tmp_path / "a", better)
    found = small_beats_large.measure(cells, [0, 1, 2])
    assert [part.verdict for part in found.parts] == ["holds"] * (5 + 4 + 4 + 3)
    assert "pico over unaligned base, 10,000.0 times its size" in found.parts[4].name
    assert "nano over unaligned nano, 1.0 times its size" in found.parts[5].name
    gained = [part.interval.mean for part in found.parts[9:]]
    assert gained == pytest.approx([-0.01, -0.02, -0.03, -0.04, -0.01, -0.02, -0.03])
    steps = {config.model: config.steps for config in cells.asked if isinstance(config, Pretrain)}
    whole = SCALES["small"].pretrain_steps
    assert steps == {**dict.fromkeys(small_beats_large.LADDER[:-1], whole), "base": whole / 2}
    assert any("unaligned base: " in note and "read 50% of the steps" in note for note in found.notes)
    assert any("by SFT alone nano over unaligned base" in note and "+0.50" in note for note in found.notes)
    asked = [config for config in cells.asked if isinstance(config, Evaluate)]
    assert len({str(sorted(config.data.items())) for config in asked if "/0/" in config.out}) == 1
    better["pretrain-base"] = {"gold/helpful": 2.0}
    found = small_beats_large.measure(Read(tmp_path / "b", better), [0, 1, 2])
    assert [part.verdict for part in found.parts[:9]] == ["holds"] * 4 + ["fails"] + ["holds"] * 3 + ["fails"]


def test_a_large_model_that_has_read_too_little_is_no_rival(tmp_path, monkeypatch):
    sizes_of(monkeypatch, small_beats_large, small_beats_large.LADDER)
    better = {of: {"gold/helpful": 1.0} for of in ("ppo-pico", "ppo-nano")}
    found = small_beats_large.measure(Read(tmp_path, better, -0.01), [0, 1, 2])
    assert [part.verdict for part in found.parts] == ["holds"] * 9 + ["fails"] * 7


def test_cycles_of_one_mind_are_those_of_its_scores(monkeypatch):
    """Scores that are the people's own utilities expect their cycles; equal scores expect a quarter."""
    from accord.records import Prompt
    from accord.world import judge, parse, people, prompts, value
    from accord.world.data import scripted

    rng, ranked = random.Random(1), []
    for prompt in prompts(260, 3, "benign"):
        request = parse(prompt.turns)
        replies = list(dict.fromkeys(scripted(rng, request, "benign") for _ in range(4)))
        if len(replies) > 2:
            worth = [value(judge(prompt.turns, r), request.harmful, "overall") / 0.5 for r in replies]
            ranked.append((Prompt(prompt.turns, "benign", prompt.source), replies, worth))
    monkeypatch.setattr(transitivity, "people", lambda group, seed: people(group, seed, flips=0.0, notice=1.0))
    seen, expected, count = transitivity.cycles(ranked, "mixed", 3)
    assert count > 300 and abs(seen - expected) < 0.03
    even = [(prompt, replies, [0.0] * len(replies)) for prompt, replies, _ in ranked]
    assert transitivity.cycles(even, "mixed", 3)[1] == pytest.approx(0.25)
