"""What the tasks of our side share: the workload's options, and a run folder with a clock."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accord.config import Config
from accord.models.loading import add_adapters
from accord.run import RunFolder
from accord.training.distributed import World
from benchmarks.clock import now
from benchmarks.workloads import Item

Result = dict[str, Any]


class Clocked(RunFolder):
    """A run folder that notes the time whenever a step is logged."""

    def __init__(self, stage: str, config: Any, device: str) -> None:
        super().__init__(stage, config, {})
        self.device = device
        self.marks: list[float] = []
        self.rows: list[dict[str, Any]] = []

    def log(self, row: Mapping[str, Any]) -> None:
        super().log(row)
        self.marks.append(now(self.device))
        self.rows.append(dict(row))


def options(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "options.json").read_text())
    return found


def items_of(folder: Path) -> list[Item]:
    found: list[Item] = json.loads((folder / "items.json").read_text())
    return found


def world_of(chosen: dict[str, Any]) -> World:
    """One process on the device that the options name; the CPU where they name none."""
    return World(0, 1, torch.device(chosen.get("device", "cpu")))


def knobs(folder: Path, chosen: dict[str, Any], model: str) -> dict[str, Any]:
    """The knobs that every training task shares."""
    return {
        "model": str(folder / model),
        "data": "as in items.json",
        "out": str(folder / f"ours-{time.time_ns()}"),
        "learning_rate": chosen["learning_rate"],
        "schedule": "constant",
        "warmup": 0.0,
        "batch_size": chosen["batch_size"],
        "precision": "bf16" if chosen.get("bf16") else "f32",
        "checkpoint_every": 0,
        "threads": 1,
        "lora_rank": chosen.get("lora_rank", 0),
        "micro_tokens": chosen.get("micro_tokens", 8192),
        "recompute": chosen.get("recompute", "off"),
    }


def placed(model: nn.Module, config: Config, world: World) -> nn.Module:
    """The model with the adapters that the config asks for, on its device."""
    return add_adapters(model, config, scalar=False, seed=0).to(world.device)  # type: ignore[arg-type]
