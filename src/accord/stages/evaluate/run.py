"""Evaluation: replies of a snapshot to prompts, measured by everything that is known about them.

Gold judges on prompts of the gold world, preference and cost models anywhere, KL to a reference, win rate against
another evaluation on the same prompts, language-model loss. Every mean has a bootstrap interval over prompts, for
all prompts and for each slice.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accord.data.chat import Renderer
from accord.data.rows import answer_row, rollout_row
from accord.data.sources import read_demonstrations, read_prompts
from accord.disk import read_lines
from accord.engine.engines import InProcess
from accord.engine.packing import Group
from accord.engine.texts import conversation_group, rollout_groups, said
from accord.errors import BadInput
from accord.evaluation.metric_names import METRICS
from accord.evaluation.metrics import metric_interval
from accord.evaluation.safety import SafetyCalibration, with_fit
from accord.evaluation.statistics import pair_outcomes, win_rate
from accord.models.likelihood import likelihoods
from accord.models.loading import load_policy
from accord.models.policy import reply_logprobs
from accord.models.scorers import open_scorer
from accord.records import Demonstration, Prompt, is_part_of, slices_above
from accord.run import RunFolder
from accord.stages.evaluate.config import Evaluate
from accord.stages.evaluate.rows import Row, ids_by_name
from accord.stages.gate import LOSSES, LOSSES_FILE, WINS, check_gate, decide_gate, read_gate, uphold
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.shared import (
    Drawn,
    cache_of,
    draw,
    drop_long,
    drop_long_prompts,
    gold_scores,
    load_all,
    open_renderer,
    open_run,
)
from accord.training import distributed
from accord.training.precision import choose_precision, lowered


def run(config: Evaluate) -> RunFolder:
    """Measure a snapshot; leaves `evaluation.json` and `samples.jsonl`."""
    parents = {"model": config.model} | ({"reference": config.reference} if config.reference else {})
    parents |= {f"reward.{n}": p for n, p in config.rewards.items()} | {f"cost.{n}": p for n, p in config.costs.items()}
    with open_run("evaluate", config, parents) as run:
        if run.finished:
            return uphold(run)
        gate = read_gate(config.gate, config.against)
        world = distributed.start(run.threads)
        renderer = open_renderer(config.model, run, world)
        measures = Measures(config, renderer, world.device)
        prompts: list[Prompt] = load_all(
            read_prompts, config.data, config, run, split=config.split, renderers=measures.renderers
        )
        refuse_trained_prompts(prompts, [config.model], "--data")
        refuse_trained_prompts(prompts, [*config.rewards.values(), *config.costs.values()], "--data", labelled=True)
        held_out = read_held_out(config, run, renderer)
        prompts = drop_long_prompts(renderer, prompts, config.max_length, run)
        check_gate(gate, run, measures.names(prompts), ids_by_name((prompt.slice, prompt.id) for prompt in prompts))
        model = load_policy(config.model, trainable=False).to(world.device)
        precision = run.decide("precision", lambda: choose_precision(world))
        engine = InProcess(model, cache_of(config, model))
        with lowered(precision, world.device):
            for drawn in draw(run, engine, renderer, prompts, config, samples=config.samples, seed=config.seed):
                for row in measures.rows(drawn):
                    run.add_sample(row)
        rows = read_lines(run.path / "samples.jsonl")
        result = summarise(config, rows, measures.calibrations)
        result["normalizers"] = {name: scorer.normalizer.as_json() for name, scorer in measures.rewards.items()}
        losses: list[Row] = []
        if held_out:
            groups = [conversation_group(renderer, d, "assistant") for d in held_out]
            groups, shown = drop_long(groups, held_out, config.max_length, run, "eval_data")
            with lowered(precision, world.device):
                losses = measure_losses(run, model, groups, shown, config.micro_tokens, world.device)
            result["loss"] = sum(row["scores"][LOSSES] for row in losses) / len(losses)
        run.write_json("evaluation.json", result)
        fits = {f"cost/{name}/expected": fit.relative_error for name, fit in measures.calibrations.items()}
        decide_gate(gate, run, [*rows, *losses, *wins_of(config, rows)], fits)
        run.finish(n=len(rows))
        return uphold(run)


def read_held_out(config: Evaluate, run: RunFolder, renderer: Renderer) -> list[Demonstration]:
    """The demonstrations to measure loss on, of which the snapshot has learned none; empty where none are asked for."""
    if not config.eval_data:
        return []
    found: list[Demonstration] = load_all(
        read_demonstrations,
        config.eval_data,
        config,
        run,
        split=config.split,
        what="eval_data",
        renderers=[renderer],
    )
    refuse_trained_prompts([d.prompt for d in found], [config.model], "--eval_data")
    return found


def measure_losses(
    run: RunFolder,
    model: nn.Module,
    groups: Sequence[Group],
    shown: Sequence[Demonstration],
    micro_tokens: int,
    device: torch.device,
) -> list[Row]:
    """−log p of every token that the demonstrations train, a row a token; `losses.jsonl` has one a demonstration.

    So the mean over rows is the mean over tokens, as everywhere, and their clusters are the demonstrations.
    """
    rows: list[Row] = []
    found = likelihoods(model, groups, micro_tokens, device)
    (run.path / LOSSES_FILE).unlink(missing_ok=True)
    for demonstration, (told,) in zip(shown, found, strict=True):
        prompt, scores = demonstration.prompt, {LOSSES: -told.logprob / told.tokens}
        row = answer_row(prompt.id, prompt.slice, "loss", tokens=told.tokens, scores=scores)
        run.append(LOSSES_FILE, row)
        rows += [row] * told.tokens
    return rows


def wins_of(config: Evaluate, rows: Sequence[Row]) -> list[Row]:
    """A row for each prompt that `--against` has too: 1 where the judge scores this snapshot higher, ½ as high."""
    if not config.against:
        return []
    _, ours, others = compared(config, rows, read_lines(Path(config.against) / "samples.jsonl"))
    slices = {row["prompt_id"]: row["slice"] for row in rows}
    shared = [prompt for prompt in ours if prompt in others]
    outcomes = pair_outcomes([ours[prompt] - others[prompt] for prompt in shared])
    return [
        {"prompt_id": prompt, "slice": slices[prompt], "scores": {WINS: float(outcome)}}
        for prompt, outcome in zip(shared, outcomes, strict=True)
    ]


class Measures:
    """The scorers and the reference of an evaluation, loaded once."""

    def __init__(self, config: Evaluate, renderer: Renderer, device: torch.device) -> None:
        self.config, self.renderer, self.device = config, renderer, device
        self.rewards = {n: open_scorer(p, "preference", renderer, device, n) for n, p in config.rewards.items()}
        self.costs = {n: open_scorer(p, "cost", renderer, device, n) for n, p in config.costs.items()}
        self.calibrations = {
            n: SafetyCalibration(**scorer.measured["calibration"])
            for n, scorer in self.costs.items()
            if scorer.measured.get("calibration")
        }
        self.reference = load_policy(config.reference, trainable=False).to(device) if config.reference else None

    @property
    def renderers(self) -> list[Renderer]:
        """The policy's, and those of scorers that have another."""
        others = [scorer.renderer for scorer in (*self.rewards.values(), *self.costs.values()) if scorer.renderer]
        return [self.renderer, *others]

    def names(self, prompts: Sequence[Prompt]) -> list[str]:
        """The metrics that replies to these prompts will have; some of gold's only on some slices."""
        names = ["length", *(f"reward/{name}" for name in self.rewards)]
        for name in self.costs:
            names += [f"cost/{name}", f"cost/{name}/unsafe"]
            names += [f"cost/{name}/expected"] if name in self.calibrations else []
        names += ["kl"] if self.reference is not None else []
        names += [name for name, knob in ((WINS, self.config.against), (LOSSES, self.config.eval_data)) if knob]
        has_truth = any(prompt.source.startswith("world:") for prompt in prompts)
        return names + ([name for name in METRICS if name.startswith("gold/")] if has_truth else [])

    def rows(self, drawn: Drawn) -> list[Row]:
        """One row per reply: the text, every score, KL to the reference."""
        config = self.config
        prompts = [prompt for prompt, replies in drawn for _ in replies]
        rollouts = [rollout for _, replies in drawn for rollout in replies]
        texts = [said(self.renderer, config.stop, r.ids) for r in rollouts]
        groups = rollout_groups(rollouts)
        columns: dict[str, list[float]] = {"length": [float(len(r.ids)) for r in rollouts]}
        for name, scorer in self.rewards.items():
            column = scorer.scores(prompts, texts, groups, micro_tokens=config.micro_tokens)
            columns[f"reward/{name}"] = column.tolist()
        for name, scorer in self.costs.items():
            raw = scorer.raw_scores(prompts, texts, groups, micro_tokens=config.micro_tokens)
            columns[f"cost/{name}"] = raw.tolist()
            columns[f"cost/{name}/unsafe"] = (raw > 0).float().tolist()
            if calibration := self.calibrations.get(name):
                columns[f"cost/{name}/expected"] = torch.sigmoid(raw / calibration.temperature).tolist()
        if self.reference is not None:
            theirs = reply_logprobs(self.reference, groups, config.temperature, config.micro_tokens, self.device)
            columns["kl"] = [sum(r.logprobs) - t for r, t in zip(rollouts, theirs, strict=True)]
        rows = []
        for i, (prompt, rollout, text) in enumerate(zip(prompts, rollouts, texts, strict=True)):
            scores = {name: values[i] for name, values in columns.items()} | gold_scores(prompt, text)
            about = {"model": config.model, "temperature": config.temperature}
            rows.append(rollout_row(prompt, text, rollout, scores=scores, kl=scores.get("kl"), **about))
        return rows


def summarise(config: Evaluate, rows: Sequence[Row], calibrations: Mapping[str, SafetyCalibration]) -> dict[str, Any]:
    """Means with intervals for all rows and per slice, and the win rate against another evaluation."""
    names = ["all", *slices_above({row["slice"] for row in rows})]
    by_slice = {name: [row for row in rows if name == "all" or is_part_of(row["slice"], name)] for name in names}
    result: dict[str, Any] = {
        "model": config.model,
        "reference": config.reference or None,
        "against": config.against or None,
        "n": len(rows),
        "seed": config.seed,
        "calibrations": {name: calibration.json() for name, calibration in calibrations.items()},
        "slices": {name: {"n": len(part), **intervals(part, config, calibrations)} for name, part in by_slice.items()},
        "win_rate": None,
    }
    if config.against:
        theirs = read_lines(Path(config.against) / "samples.jsonl")
        result["win_rate"] = {name: _win_rate(config, part, theirs) for name, part in by_slice.items()}
    return result


def intervals(
    rows: Sequence[Row], config: Evaluate, calibrations: Mapping[str, SafetyCalibration]
) -> dict[str, dict[str, Any]]:
    """Mean and 95 % interval (over prompts) of every score that some of the rows have; of an expected unsafe
    share the error of its calibration is in it."""
    errors = {f"cost/{name}/expected": calibration.relative_error for name, calibration in calibrations.items()}
    out = {}
    for metric in dict.fromkeys(name for row in rows for name in row["scores"]):
        having = [row for row in rows if row["scores"].get(metric) is not None]
        values = [row["scores"][metric] for row in having]
        interval = metric_interval(
            metric,
            values,
            clusters=[row["prompt_id"] for row in having],
            seed=config.seed,
            resamples=config.bootstrap,
        )
        out[metric] = (with_fit(interval, values, errors[metric]) if metric in errors else interval).json()
    return out


def compared(
    config: Evaluate, rows: Sequence[Row], theirs: Sequence[Row]
) -> tuple[str, Mapping[str, float], Mapping[str, float]]:
    """Whose score decides, and what it is by prompt here and there; BadInput where nothing can be compared."""
    judge = config.judge or ("gold/helpful" if any("gold/helpful" in r["scores"] for r in rows) else "")
    judge = judge or next((name for row in rows for name in row["scores"] if name.startswith("reward/")), "")
    if not judge:
        raise BadInput("--against needs a score to decide by; give --rewards.NAME DIR or --judge NAME")
    ours, others = mean_by_prompt(rows, judge), mean_by_prompt(theirs, judge)
    if not ours.keys() & others.keys():
        raise BadInput(f"--against {config.against} has no prompt in common with this evaluation, or no score {judge}")
    return judge, ours, others


def _win_rate(config: Evaluate, rows: Sequence[Row], theirs: Sequence[Row]) -> dict[str, Any]:
    judge, ours, others = compared(config, rows, theirs)
    shared = [prompt for prompt in ours if prompt in others]
    return {**win_rate([ours[p] for p in shared], [others[p] for p in shared]).json(), "judge": judge}


def mean_by_prompt(rows: Sequence[Row], metric: str) -> Mapping[str, float]:
    """Mean of a score over each prompt's replies; prompts without it are left out."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"].get(metric)
        if value is not None and math.isfinite(value):
            sums.setdefault(row["prompt_id"], []).append(value)
    return {prompt: sum(values) / len(values) for prompt, values in sums.items()}
