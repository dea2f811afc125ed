"""Plan: what every stage needs on a machine before anything is bought, queued or started.

    shape of the model, lengths of the data → operations and bytes → the fastest way that fits → the command

The cost model is that of docs/scale.md. Nothing is loaded, nothing is trained.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accord.disk import write_text
from accord.errors import BadInput
from accord.stages.plan.choose import PlanInput, Planned, breaks_first, choose, engine_of, remedy
from accord.stages.plan.config import Forecast
from accord.stages.plan.launch import FILES, torchrun
from accord.stages.plan.machines import GIB, find_machine
from accord.stages.plan.shapes import find_lengths, find_shape
from accord.training.footprint import SHARE


def run(config: Forecast) -> dict[str, Any]:
    """Print the plan of every stage; with --out, leave `plan.json` and the files that start each.

    BadInput for a model, source or machine that cannot be read.
    """
    machine = find_machine(config.machine)
    machine = replace(machine, devices=config.devices or machine.devices)
    asked = PlanInput(config, find_shape(config.model), find_lengths(config), machine)
    choices: dict[str, Planned] = {stage: choose(stage, asked, machine.devices) for stage in config.stages}
    print(headline(asked))
    for choice in choices.values():
        print("\n" + "\n".join(said_of(choice, asked)))
    result = {
        "machine": asdict(machine),
        "parameters": asked.shape.numbers,
        "lengths": asdict(asked.lengths),
        "stages": {stage: plain(choice, asked) for stage, choice in choices.items()},
    }
    if config.out:
        write_plan(Path(config.out), result, choices, asked)
    return result


def headline(asked: PlanInput) -> str:
    machine, lengths, precision = asked.machine, asked.lengths, asked.config.precision
    return (
        f"{asked.config.model}: {asked.shape.numbers / 1e9:.3g}B parameters; {lengths.rows:,} rows, prompts of "
        f"{lengths.prompt:.0f} and replies of {lengths.reply:.0f} tokens\n"
        f"{machine.name}: {machine.devices} × {machine.bytes / GIB:.4g} GiB, {machine.rate(precision):.3g} "
        f"operations/s in {precision}, {machine.bandwidth:.3g} bytes/s ({machine.source})"
    )


def said_of(choice: Planned, asked: PlanInput) -> list[str]:
    """The lines of a stage."""
    memory, time, way = choice.memory, choice.time, choice.way
    kind = "shards" if way.sharded else "whole replicas" if way.ranks > 1 else "one process"
    how = [kind, f"LoRA rank {way.lora_rank}" if way.lora_rank else "every weight"]
    how += ["activations computed again"] if way.recompute else []
    lines = [f"{choice.work.stage}: {', '.join(how)}; micro-batches of {memory.micro_tokens} tokens"]
    parts = memory.parts | {"activations": memory.per_token * memory.micro_tokens}
    listed = ", ".join(f"{name} {size / GIB:.2g}" for name, size in parts.items() if size > 0.005 * memory.total)
    lines.append(f"  memory  {memory.total / GIB:.3g} of {asked.machine.bytes / GIB:.3g} GiB a device: {listed}")
    if not choice.fits:
        return [*lines, f"  does not fit into {SHARE:.0%} of a device: {remedy(choice.work.stage, asked)}"]
    spent = ", ".join(f"{name} {seconds:.3g}" for name, seconds in time.parts.items() if seconds)
    lines.append(f"  time    {duration(time.total)}: {time.steps:,} steps of {time.step:.3g} s ({spent})")
    if engine := engine_of(choice):
        lines.append(f"  replies {engine}")
    ranks, first = breaks_first(choice.work.stage, asked)
    lines.append("  breaks  " + (f"first at {ranks:,} devices: {first}" if ranks else first))
    return [*lines, f"  start   {torchrun(choice, asked)}"]


def duration(seconds: float) -> str:
    """In the unit that a person would say."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def plain(choice: Planned, asked: PlanInput) -> dict[str, Any]:
    """A choice as JSON holds it: bytes and seconds."""
    ranks, first = breaks_first(choice.work.stage, asked)
    return {
        "fits": choice.fits,
        "way": asdict(choice.way),
        "micro_tokens": choice.memory.micro_tokens,
        "memory": choice.memory.parts | {"activations": choice.memory.per_token * choice.memory.micro_tokens},
        "bytes": choice.memory.total,
        "steps": choice.time.steps,
        "step_seconds": choice.time.step,
        "step_parts": choice.time.parts,
        "seconds": choice.time.total,
        "engine": engine_of(choice),
        "breaks_first": {"devices": ranks, "what": first},
    }


def write_plan(out: Path, result: dict[str, Any], choices: dict[str, Planned], asked: PlanInput) -> None:
    """Leave the plan and, of every stage that fits, the files that start it. BadInput for a folder that is in use."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is not an empty folder; choose another")
    write_text(out / "plan.json", json.dumps(result, indent=1) + "\n")
    for stage, choice in choices.items():
        for ending, make in FILES.items() if choice.fits else ():
            text = make(choice, asked)
            write_text(out / f"{stage}.{ending}", f"#!/bin/sh\n{text}\n" if ending == "sh" else text)
