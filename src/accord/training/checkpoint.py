"""Checkpoints for resume: tensors in safetensors, the rest in JSON; never a pickle.

A checkpoint is a directory that is renamed into place when it is whole; only the newest is kept. `manifest.json` has
the hash of every file, and nothing is read of a checkpoint that is not what it says. Where weights are sharded every
rank writes a file of its own, by torch's distributed checkpoints (DCP) in their safetensors form, which needs no
pickle; any number of ranks reads it, sharded or not.
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from accord.disk import sync
from accord.errors import BadInput
from accord.lineage import hash_file
from accord.run import verify
from accord.training.shards import local

WHOLE = "tensors.safetensors"
FILE = 2**27  # bytes of a rank in one file: torch's writer holds a file twice in memory while it is written
COUNTER = "step"  # of AdamW: the one state that is a number, which DCP writes as a vector of one


def save(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
) -> None:
    """Write the trained parameters, the optimizers, torch's random state and `state` (JSON) after `step`.

    Every rank calls it where a module is sharded, else one does.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.part"
    tensors = _tensors(modules, optimizers)
    sharded = any(isinstance(tensor, DTensor) for tensor in tensors.values())
    writes = not sharded or dist.get_rank() == 0
    if writes:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    if sharded:
        _save_shards(tensors, temporary)
    else:
        save_file(tensors, temporary / WHOLE)
    if writes:
        (temporary / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
        hashes = {file.name: hash_file(file) for file in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(hashes), encoding="utf-8")
        for file in temporary.iterdir():
            sync(file)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        for old in folder.glob("step-*"):
            if old != target:
                shutil.rmtree(old)
    if sharded:
        dist.barrier()  # no rank goes on to a step that a checkpoint not yet there would be asked for


def _tensors(modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Everything that is saved, by its name."""
    tensors: dict[str, Tensor] = {"random/torch": torch.get_rng_state()}
    for name, module in modules.items():
        for key, parameter in _trained(module).items():
            tensors[f"module/{name}/{key}"] = parameter.detach()
    for name, optimizer in optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"optimizer/{name}/{index}/{slot}"] = torch.as_tensor(value).detach()
    return _apart(tensors)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: in one piece, and none in the storage of another.

    A copy of all would be as much memory again as weights and states; so only those are copied that must be.
    """
    taken: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        here = local(tensor)
        address = here.untyped_storage().data_ptr()
        if not isinstance(tensor, DTensor) and (address in taken or not here.is_contiguous()):
            tensor = tensor.contiguous().clone()
        taken.add(address)
        apart[name] = tensor
    return apart


def _save_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dist.barrier()  # the folder is there
    flat = {name: tensor.reshape(1) if tensor.ndim == 0 else tensor for name, tensor in tensors.items()}
    files, held = {}, 0.0
    for name, tensor in flat.items():
        held += tensor.nbytes / dist.get_world_size()
        files[name] = 1 + int(held / FILE)
    writer = dcp.HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    dcp.save(flat, storage_writer=writer)


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
    """Restore in place everything that `save` wrote; returns the JSON state with its `step`.

    BadInput names a file that is missing, that is not what was written, or that was put there.
    """
    refuse_changed(checkpoint)
    parameters = {f"module/{name}/{key}": p for name, m in modules.items() for key, p in _trained(m).items()}
    if (checkpoint / WHOLE).exists() and not any(isinstance(p, DTensor) for p in parameters.values()):
        tensors = load_file(checkpoint / WHOLE)
    else:
        tensors = _load_shards(checkpoint, parameters, optimizers)
    torch.set_rng_state(tensors["random/torch"])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
    for name, optimizer in optimizers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        prefix = f"optimizer/{name}/"
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, slot = key.removeprefix(prefix).split("/")
                slots.setdefault(int(index), {})[slot] = value.reshape(()) if slot == COUNTER else value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return state


def refuse_changed(checkpoint: Path) -> None:
    """Raise BadInput for a checkpoint that is not, file by file, what was written: nothing of it is then read."""
    try:
        verify(checkpoint)
        listed = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        for file in checkpoint.iterdir():
            known = file.suffix in (".safetensors", ".json")
            if not known or file.name not in {*listed, "manifest.json"}:
                raise BadInput(f"{file}: no part of this checkpoint")
    except BadInput as error:
        raise BadInput(f"{error}; bring it back as it was, or delete {checkpoint.parent} to begin anew") from None


def _load_shards(
    checkpoint: Path, parameters: Mapping[str, nn.Parameter], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """What is saved under every name, each rank's part of it where it is sharded here."""
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(checkpoint))
    wanted: dict[str, Tensor] = {name: torch.empty_like(p.detach()) for name, p in parameters.items()}
    held = {name: [p for group in o.param_groups for p in group["params"]] for name, o in optimizers.items()}
    known: Mapping[str, Any] = reader.read_metadata().state_dict_metadata  # of tensors alone
    for name, found in known.items():
        kind, owner, *rest = name.split("/")
        if kind == "optimizer" and held[owner][int(rest[0])].shape == found.size:
            wanted[name] = torch.zeros_like(held[owner][int(rest[0])].detach())
        elif kind != "module":
            wanted[name] = torch.empty(found.size, dtype=found.properties.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is no news that one process is alone
        dcp.load(wanted, storage_reader=reader)
    return wanted


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
