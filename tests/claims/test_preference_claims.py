"""Claims about preference models by hand, on made-up runs whose answers are known, and whole at the smallest scale."""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from accord import world
from accord.claims import annotators, bradley_terry, label_noise, planted, pm_scaling
from accord.claims.lab.cells import Cells
from accord.claims.lab.recipes import SCALES, GoldFlow, Scale
from accord.claims.lab.workers import Workers, run_stage
from accord.data.rows import write_records
from accord.data.sources import read_comparisons
from accord.evaluation.groups import likeliest_weights
from accord.records import unit_hash
from accord.stages.evaluate.config import Evaluate
from accord.stages.online.config import Annotate
from accord.stages.preference.config import Preference
from accord.stages.score.config import Score


def worth(comparison, k, group="mixed"):
    turns = comparison.prompt.turns
    gold = world.judge(turns, comparison.replies[k])
    return world.value(gold, world.parse(turns).harmful, comparison.criterion, group)


@functools.cache
def compared(count, seed, criterion, temperature, flips, group):
    """What people say, once for all cases that differ in the models alone."""
    people = world.Annotator(temperature=temperature, flips=flips, group=group, seed=seed)
    return world.comparisons(count, seed=seed, criterion=criterion, annotator=people)


class Written:
    """Cells that train nothing: people answer as they do, and `score(config, comparison, k)` makes the columns."""

    def __init__(self, root, score, people=300):
        self.root, self.score, self.people, self.scale = root, score, people, "small"

    def flow(self, seed):
        return GoldFlow(self.root / str(seed), SCALES["small"], seed, True)

    tuned = Cells.tuned

    def base(self, seeds):
        return [self.flow(seed) for seed in seeds]

    def run(self, configs):
        for config in configs:
            folder = Path(config.out)
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(config, Annotate):
                self.annotate(config, folder)
            elif isinstance(config, Score):
                self.scores(config, folder)
            elif isinstance(config, Preference):
                (folder / "snapshot").mkdir(exist_ok=True)
                size = {"nano": 1_000, "tiny": 10_000, "small": 100_000}.get(folder.name.split("-")[1], 1)
                save_file({"w": torch.zeros(size)}, folder / "snapshot" / "model.safetensors")
            elif isinstance(config, Evaluate):
                self.evaluate(folder)

    def annotate(self, config, folder):
        seed = int(unit_hash(folder.name) * 1e6) + config.seed
        for criterion in config.criteria:
            said = compared(self.people, seed, criterion, config.temperature, config.flips, config.group)
            write_records(folder / f"comparisons-{criterion}.jsonl", said)

    def scores(self, config, folder):
        with open(folder / "scores.jsonl", "w") as stream:
            for comparison in read_comparisons(str(config.data), config.criterion).records:
                for k in range(2):
                    row = {"record_id": comparison.id, "scores": self.score(config, comparison, k)}
                    stream.write(json.dumps(row) + "\n")

    def evaluate(self, folder):
        """The policy of the worst group's model gives the reply that the minority values more, the others the other."""
        with open(folder / "samples.jsonl", "w") as stream:
            for comparison in world.comparisons(60, seed=9, criterion="overall"):
                better = int(worth(comparison, 1, "cautious") > worth(comparison, 0, "cautious"))
                chosen = better if "worst" in folder.name else 1 - better
                prompt = [turn._asdict() for turn in comparison.prompt.turns]
                row = {"prompt_id": comparison.prompt.id, "slice": comparison.prompt.slice, "prompt": prompt}
                stream.write(json.dumps(row | {"reply": comparison.replies[chosen]}) + "\n")


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_bradley_terry_finds_a_calibrated_model_calibrated_and_a_sharp_one_not(tmp_path, sharpness):
    def planted(config, comparison, k):
        return {"model/logit": sharpness * worth(comparison, k) / bradley_terry.TEMPERATURE}

    finding = bradley_terry.measure(Written(tmp_path, planted, people=600), [0, 1, 2, 3])
    parts = {part.name: part for part in finding.parts}
    slope = parts["reliability slope"]
    # not that its interval covers the truth: one in twenty worlds would not
    assert slope.interval.mean == pytest.approx(1 / sharpness, rel=0.08)
    assert (slope.verdict == "fails") == (sharpness > 1)
    correlation = parts["correlation of score differences with the planted log-odds"]
    assert correlation.interval.mean == pytest.approx(1.0) and correlation.verdict == "holds"
    excess = parts["calibration error beyond that of chance"]
    assert excess.interval.low < 0.02 if sharpness == 1 else excess.interval.mean > 0.005
    assert finding.figure.lstrip().startswith("<svg")


def test_the_numbers_of_a_seed_are_told_apart():
    """People who see high scores twice as sharply as low ones: the slope of the upper half is the larger."""
    rng = np.random.default_rng(3)
    d, means = rng.normal(0, 1.5, 4000), rng.normal(size=4000)
    sharper = np.where(means > 0, 2.0, 1.0)
    margins = np.where(rng.random(4000) < 1 / (1 + np.exp(-sharper * d)), d, -d)
    slope, _, level, correlation = bradley_terry.statistics(margins, means, 3 * margins)
    upper, lower = (bradley_terry.slope_of(margins[part]) for part in (means > 0, means <= 0))
    assert level == pytest.approx(1.0, abs=0.2) and lower + 0.1 < slope < upper - 0.1
    assert upper == pytest.approx(2.0, abs=0.2) and correlation == pytest.approx(1.0)


def test_the_error_beyond_chance_is_about_0_for_a_calibrated_model_of_any_size():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        d = rng.normal(0, 1.5, 300)
        first = rng.random(300) < 1 / (1 + np.exp(-d))
        found.append(bradley_terry.excess_error(np.where(first, d, -d)))
    assert abs(np.mean(found)) < 0.01
    plain = np.mean([abs(f) for f in found])
    assert plain < 0.03


def test_the_fit_recovers_planted_coefficients():
    """Accuracy 0.4 + 0.02 ln P + 0.03 ln D in every cell, exactly."""
    grid = [(math.log(p), math.log(d)) for p in (1e3, 1e4, 1e5) for d in pm_scaling.COUNTS]
    accuracy = [0.4 + 0.02 * p + 0.03 * d for p, d in grid]
    outcomes = (np.linspace(0, 1, 20_001)[:, None] < accuracy).astype(float)
    assert pm_scaling.fit(outcomes, grid) == pytest.approx([0.4, 0.02, 0.03], abs=1e-3)


@pytest.mark.parametrize("per_data", [0.05, 0.0])
def test_pm_scaling_tells_growth_from_none(tmp_path, monkeypatch, per_data):
    sizes = {"nano": 1e3, "tiny": 1e4, "small": 1e5}
    monkeypatch.setattr(pm_scaling, "TESTED", 400)

    def score(config, comparison, k):
        out = {}
        for size, count in ((s, c) for s in pm_scaling.SIZES for c in pm_scaling.COUNTS):
            chance = 0.45 + 0.02 * math.log(sizes[size]) + per_data * math.log(count / 250)
            right = unit_hash(f"{comparison.id} {config.seed} {size} {count}") < chance
            out[f"{size}-{count}/logit"] = float((comparison.ranks[k] == 1) == right)
        return out

    finding = pm_scaling.measure(Written(tmp_path, score), [0, 1, 2])
    b, c = finding.parts
    assert b.interval.mean == pytest.approx(0.02, abs=0.012)
    assert c.interval.mean == pytest.approx(per_data, abs=0.012)
    assert c.verdict == ("holds" if per_data else "undecided")
    assert "1,000 parameters" in finding.notes[0]


def test_annotators_shows_a_minority_that_one_model_hides(tmp_path):
    """The pooled model thinks as the majority does, each head as its group."""

    def score(config, comparison, k):
        heads = {f"groups/simulated:{g}/logit": 5 * worth(comparison, k, g) for g in annotators.GROUPS}
        return heads | {"pooled/logit": 5 * worth(comparison, k, annotators.MAJORITY)}

    finding = annotators.measure(Written(tmp_path, score, people=200), [0, 1, 2, 3])
    gain, hidden, wins = finding.parts
    assert gain.verdict == "holds" and gain.interval.mean > 0.02
    assert hidden.interval.mean > 0 and wins.interval.mean > 0.7
    assert wins.verdict == "holds"
    assert any(note.startswith("cautious: pooled model") for note in finding.notes)


def as_planted(config, comparison, k, *, sharper=1.0):
    """Models that found what was planted, or are sharper than that."""
    if comparison.criterion == planted.GROUPED:
        scale = sharper / planted.TEMPERATURE
        return {f"groups/simulated:{g}/logit": scale * worth(comparison, k, g) for g in planted.HEADS}
    if comparison.criterion == bradley_terry.CRITERION:
        return {"model/logit": sharper * worth(comparison, k) / planted.SHARP}
    temperatures = {"reliability": planted.TEMPERATURE, "ties": planted.TIED_TEMPERATURE}
    return {f"{name}/logit": sharper * worth(comparison, k) / t for name, t in temperatures.items()}


@pytest.mark.parametrize(("sharper", "tested"), [(1.0, 600), (2.0, 200)])
def test_what_is_planted_is_found_by_models_that_are_right_alone(tmp_path, monkeypatch, sharper, tested):
    for name, count in (("TRAINED", 40), ("TESTED", tested)):
        monkeypatch.setattr(planted, name, count)
    finding = planted.measure(Written(tmp_path, lambda *asked: as_planted(*asked, sharper=sharper)), [0, 1])
    found = {part.name: part.interval for part in finding.parts if not part.name.startswith("the same")}
    assert len(finding.parts) == 2 * len(found) == 16
    assert found["temperature of people, 0.5"].mean == pytest.approx(0.5 / sharper, rel=1e-6)
    failed = {part.name for part in finding.parts if part.verdict == "fails"}
    assert bool(failed) == (sharper > 1)
    if sharper == 1:
        for flips in planted.FLIPS:
            assert found[f"reliability of people who flip {flips:.0%}"].mean == pytest.approx(1 - flips, abs=0.03)
        assert found["ν of ties, 0.8"].mean == pytest.approx(0.8, abs=0.08)
        assert found["weight of cautious values, 0.6"].mean == pytest.approx(0.6, abs=0.1)
        assert found["weight of eager values, 0.4"].mean == pytest.approx(0.4, abs=0.1)


def test_the_temperature_is_that_of_the_people_though_the_model_misses_half():
    rng = np.random.default_rng(0)
    d = rng.normal(0, 2, 40_000)
    assert planted.temperature(d, 0.7 * d) == pytest.approx(0.7, rel=1e-6)
    # half of what the people look at is hidden from a model that is calibrated on the rest
    hidden = rng.normal(0, 2, d.size)
    chosen = np.where(rng.random(d.size) < planted.expit(d + hidden), d, -d)
    seen = likeliest_weights(chosen[:, None], np.ones(d.size))
    assert planted.temperature(float(seen[0]) * d, 0.7 * (d + hidden)) == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize(("lost", "tested"), [(0.0, 400), (0.1, 700)])
def test_label_noise_tells_what_flips_cost_and_what_a_remedy_costs(tmp_path, monkeypatch, lost, tested):
    """Every model is right with a chance that falls with the flips, that of `drop` by `lost` more."""
    monkeypatch.setattr(label_noise, "TESTED", tested)

    def score(config, comparison, k):
        out, better = {}, worth(comparison, k) > worth(comparison, 1 - k)
        for way, share in label_noise.grid():
            chance = 0.9 - 0.5 * share - (lost if way == "drop" else 0.0)
            right = unit_hash(f"{comparison.id} {config.seed} {share}") < chance
            out[f"noise-{way}-{share:g}/logit"] = float(better == right)
        return out

    finding = label_noise.measure(Written(tmp_path, score), [0, 1, 2])
    falls, beyond_length, smoothing, flip, drop = finding.parts
    assert falls.interval.mean == pytest.approx(0.2, abs=0.05) and falls.verdict == "holds"
    assert beyond_length.interval.mean > 0 and smoothing.interval.mean == flip.interval.mean == 0.0
    assert drop.interval.mean == pytest.approx(-lost, abs=0.03)
    assert drop.verdict == ("fails" if lost else "holds")
    assert len(finding.notes) == 5 and "length alone" in finding.notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("claim", [bradley_terry, pm_scaling, annotators, planted, label_noise])
def test_the_whole_claim_at_the_smallest_scale(tmp_path, monkeypatch, nano, claim):
    """Nothing is learned at this size; every cell runs and every number is there."""
    monkeypatch.setitem(SCALES, "small", Scale("nano", 400, 6, 60, 90, 60, 60, 200, 2, 8, 8, "f32"))
    monkeypatch.setattr(Workers, "run", lambda self, jobs: [run_stage(*job) for job in jobs])
    monkeypatch.setattr(pm_scaling, "COUNTS", (40, 80))
    monkeypatch.setattr(pm_scaling, "SIZES", ("nano",))
    for claim_of_pairs in (pm_scaling, planted, label_noise):
        monkeypatch.setattr(claim_of_pairs, "TESTED", 80)
    for claim_of_pairs in (planted, label_noise):
        monkeypatch.setattr(claim_of_pairs, "TRAINED", 80)
    cells = Cells(tmp_path, "small")
    finding = claim.measure(cells, [0])
    assert all(part.name and part.interval.n > 0 for part in finding.parts)
    assert finding.figure.lstrip().startswith("<svg") and finding.notes and len(cells.hash()) == 16
