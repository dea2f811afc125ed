"""The ladder of sizes: models that are taught the same, how many parameters they have, what grows with those."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import Nested, nested_interval
from accord.stages.pretrain.config import Pretrain
from accord.stages.sft.config import Sft

SIZES = ("nano", "tiny", "small")


def base(flow: GoldFlow, size: str) -> tuple[Pretrain, Sft]:
    """A language model of another size, taught as the flow teaches its own."""
    pretrain, sft = f"pretrain-{size}", f"sft-{size}"
    first = flow.pretrain().model_copy(update={"model": size, "out": str(flow.root / pretrain)})
    second = flow.sft().model_copy(update={"model": flow.snapshot(pretrain), "out": str(flow.root / sft)})
    return first, second


def parameters_in(snapshot: Path) -> int:
    """Numbers in a snapshot's weights, from the headers of its files."""
    from safetensors import safe_open

    total = 0
    for file in snapshot.glob("*.safetensors"):
        with safe_open(file, framework="np") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def slope(logs: Sequence[float], table: np.ndarray) -> Nested:
    """The interval over seeds (rows) of the least-squares slope over sizes (columns)."""
    return nested_interval([float(np.polyfit(logs, row, 1)[0]) for row in table])
