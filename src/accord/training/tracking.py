"""The rows of `metrics.jsonl` for other people's viewers, under the same names, written on this machine.

`metrics.jsonl` is the record and is always written; this is a copy of its numbers. TensorBoard's and W&B's stand in the
run folder, Trackio's in its own database.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accord.errors import BadInput

FOLDER = "tracking"


def _tensorboard(folder: Path, name: str, knobs: Mapping[str, Any], step: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    # what a resume does again replaces what was seen of it
    return TensorBoardTracker("", folder, purge_step=step)


def _trackio(folder: Path, name: str, knobs: Mapping[str, Any], step: int) -> Any:
    from accelerate.tracking import TrackioTracker

    # one place for all runs of a machine, where `trackio show` looks; it is chosen when trackio is imported
    return TrackioTracker("accord", name=name, config=dict(knobs), resume="allow" if knobs["resume"] else "never")


def _wandb(folder: Path, name: str, knobs: Mapping[str, Any], step: int) -> Any:
    from accelerate.tracking import WandBTracker

    folder.mkdir(exist_ok=True)
    return WandBTracker("accord", name=name, config=dict(knobs), dir=str(folder), mode="offline")


OPEN: dict[str, Callable[[Path, str, Mapping[str, Any], int], Any]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}


class Tracker:
    """A viewer's log of one run, begun with the first row. BadInput where the viewer's package is missing."""

    def __init__(self, kind: str, run: Path, knobs: Mapping[str, Any]) -> None:
        if importlib.util.find_spec(kind) is None:
            raise BadInput(f"--track {kind} needs the package {kind}: pip install 'accord[track]', or leave it out")
        name = "/".join(run.resolve().parts[-2:])
        self._begin = lambda step: OPEN[kind](run / FOLDER, name, knobs, step)
        self._theirs: Any = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Hand on the numbers of a row; what is none, or is not finite, has no place in a curve."""
        step = int(row["step"])
        if self._theirs is None:
            self._theirs = self._begin(step)
            self._theirs.main_process_only = False  # the caller is; its own way of asking would start a world
            self._theirs.start()
        numbers = {name: float(value) for name, value in row.items() if name != "step" and _is_finite(value)}
        self._theirs.log(numbers, step=step)

    def close(self) -> None:
        """Have everything written."""
        if self._theirs is not None:
            self._theirs.finish()
            self._theirs = None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
