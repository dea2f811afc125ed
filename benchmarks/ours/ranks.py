"""The memory of a rank: the whole of `accord sft`, in one process or in several as torchrun starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from accord.cli import main
from accord.stages.sft import run as stage
from accord.training import distributed
from benchmarks.clock import peak_mib
from benchmarks.ours.planned import written
from benchmarks.ours.setting import Result, items_of, options

PROGRAM = Path(__file__).parent / "__main__.py"


def ranks(folder: Path) -> Result:
    """The largest memory of a rank above its own before there is a model: libraries loaded, processes joined."""
    chosen = options(folder)
    written(folder, "sft", items_of(folder))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(chosen["ranks"])]
    started = [sys.executable, *launcher, str(PROGRAM), "rank", str(folder)]
    done = subprocess.run(started, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-1500:]}\n{done.stderr[-6000:]}")
    found = [json.loads(file.read_text()) for file in sorted(folder.glob(f"memory-*-of-{chosen['ranks']}.json"))]
    return {"above_mib": max(peak - idle for idle, peak in found), "ranks": len(found)}


def rank(folder: Path) -> Result:
    """One of them: the command, and a file with what it held before it and at most."""
    chosen = options(folder)
    world = distributed.start(1, shard=chosen["shard"])
    assert stage.run is not None  # its libraries are loaded
    idle = psutil.Process().memory_info().rss / 2**20  # now, and not the most that loading took
    line = ["sft", "--model", str(folder / "model"), "--data", str(folder / "sft.jsonl")]
    line += ["--out", str(folder / f"run-of-{world.size}"), "--shard", str(chosen["shard"]).lower()]
    line += ["--batch_size", str(chosen["batch_size"]), "--micro_tokens", str(chosen["micro_tokens"])]
    line += ["--recompute", chosen["recompute"], "--precision", "f32", "--threads", "1", "--compile", "off"]
    if code := main([*line, "--epochs", "1", "--learning_rate", "1e-5"]):
        raise RuntimeError(f"accord sft ended with {code}")
    kept = folder / f"memory-{os.environ['RANK']}-of-{world.size}.json"
    kept.write_text(json.dumps([idle, peak_mib(world.device.type)]))
    return {}
