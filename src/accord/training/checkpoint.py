"""Checkpoints for resume: tensors in safetensors, the rest in JSON; never a pickle.

A checkpoint is a directory that is renamed into place when it is whole; only the newest is kept.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accord.run import sync


def save(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
) -> None:
    """Write the trained parameters, the optimizers, torch's random state and `state` (JSON) after `step`."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors: dict[str, Tensor] = {"random/torch": torch.get_rng_state()}
    for name, module in modules.items():
        for key, parameter in _trained(module).items():
            tensors[f"module/{name}/{key}"] = parameter.detach().contiguous().clone()
    for name, optimizer in optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"optimizer/{name}/{index}/{slot}"] = torch.as_tensor(value).contiguous().clone()
    save_file(tensors, temporary / "tensors.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
    for file in temporary.iterdir():
        sync(file)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


class Due:
    """When a checkpoint is due: every so many steps, and so many minutes after the last one; 0 is never."""

    def __init__(self, steps: int, minutes: float) -> None:
        self._steps, self._seconds = steps, 60 * minutes
        self._last = monotonic()

    def after(self, step: int) -> bool:
        """Whether one is, with `step` steps done; it is then taken for written."""
        now = monotonic()
        due = bool(self._steps and step % self._steps == 0) or bool(self._seconds and now - self._last >= self._seconds)
        self._last = now if due else self._last
        return due


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def load(
    checkpoint: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Restore in place everything that `save` wrote; returns the JSON state with its `step`."""
    tensors = load_file(checkpoint / "tensors.safetensors")
    torch.set_rng_state(tensors["random/torch"])
    for name, module in modules.items():
        with torch.no_grad():
            for key, parameter in _trained(module).items():
                parameter.copy_(tensors[f"module/{name}/{key}"])
    for name, optimizer in optimizers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, slot = key.removeprefix(prefix).split("/")
                slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return state


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
