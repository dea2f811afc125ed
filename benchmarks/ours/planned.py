"""A stage as `accord plan` starts it on this machine, beside what the plan says of its memory and time."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from accord.cli import main
from accord.run import RunFolder
from accord.stages.plan.choose import PlanInput, choose
from accord.stages.plan.config import Forecast
from accord.stages.plan.launch import arguments
from accord.stages.plan.machines import find_machine
from accord.stages.plan.shapes import find_lengths, find_shape
from benchmarks.ours.policy import scorer_of
from benchmarks.ours.setting import Result, items_of, options
from benchmarks.workloads import Item, words

HELD_OUT = 8  # items of the workload, the last ones


def planned(folder: Path) -> Result:
    """Bytes and seconds of a step, planned and used; the run's own record of its memory, and the clock on the wall."""
    chosen = options(folder)
    items, held_out = items_of(folder)[:-HELD_OUT], items_of(folder)[-HELD_OUT:]
    knobs = {name: chosen[name] for name in ("batch_size", "lora_rank", "precision")}
    if chosen["stage"] == "ppo":
        knobs |= {"iterations": chosen["steps"], "cost_models": 1, "critic": "shared"}
    lengths: dict[str, Any] = {"prompt_tokens": len(items[0]["prompt"]), "reply_tokens": len(items[0]["replies"][0])}
    forecast = Forecast(model=str(folder / "model"), stages=[chosen["stage"]], rows=len(items), **lengths, **knobs)
    asked = PlanInput(forecast, find_shape(forecast.model), find_lengths(forecast), find_machine("this"))
    choice = choose(chosen["stage"], asked, 1)
    out, marks = folder / f"run-{time.time_ns()}", []
    log = RunFolder.log

    def noted(run: RunFolder, row: Any) -> None:
        log(run, row)
        marks.append(time.perf_counter())

    filled = {"SOURCE": written(folder / "items", chosen["stage"], items), f"runs/{chosen['stage']}": str(out)}
    if chosen["stage"] == "ppo":
        filled |= {"REWARD": scorer_of(folder, chosen, "preference"), "COST1": scorer_of(folder, chosen, "cost")}
    line = [filled.get(word, word) for word in arguments(choice, asked)]
    if chosen["stage"] != "ppo":
        line += ["--eval_data", written(folder / "held-out", chosen["stage"], held_out)]
    with patch.object(RunFolder, "log", noted):
        if code := main(line):
            raise RuntimeError(f"accord {' '.join(line)} ended with {code}")
    used = json.loads((out / "lineage.json").read_text())["peak_memory"]
    steps = [after - before for before, after in itertools.pairwise(marks)]
    return {
        "planned_bytes": choice.memory.total,
        "planned_parts": choice.memory.parts | {"activations": choice.memory.per_token * choice.memory.micro_tokens},
        "bytes": used,
        "micro_tokens": choice.memory.micro_tokens,
        "recompute": choice.way.recompute,
        # what DPO's reference says is computed before the first step
        "planned_seconds": choice.time.step - (choice.time.parts["reference"] if chosen["stage"] == "dpo" else 0.0),
        "seconds": sorted(steps),
    }


def written(folder: Path, stage: str, items: Sequence[Item]) -> str:
    """A file of the items as rows that the stage reads."""

    def turns(item: Item, reply: int) -> list[dict[str, str]]:
        said = words(item["replies"][reply][:-1])
        return [{"role": "user", "content": words(item["prompt"])}, {"role": "assistant", "content": said}]

    kinds: dict[str, Callable[[Item], dict[str, Any]]] = {
        "sft": lambda item: {"messages": turns(item, 0)},
        "dpo": lambda item: {"chosen": turns(item, 0), "rejected": turns(item, 1)},
        "ppo": lambda item: {"prompt": words(item["prompt"])},
    }
    folder.mkdir(exist_ok=True)
    file = folder / f"{stage}.jsonl"
    file.write_text("".join(json.dumps(kinds[stage](item)) + "\n" for item in items))
    return str(file)
