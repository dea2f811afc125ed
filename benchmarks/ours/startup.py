"""C8: how long the command line takes to answer, and a stage to make its first step."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.ours.setting import Result, items_of
from benchmarks.workloads import words


def children_seconds(command: list[str]) -> float:
    """CPU-seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def startup(folder: Path) -> Result:
    """CPU-seconds of `accord --help` above Python's own, and of `accord sft` for one step from start to end."""
    data = folder / "demonstrations.jsonl"
    pairs = [(item["prompt"], item["replies"][0][:-1]) for item in items_of(folder)]
    rows = [{"prompt": words(prompt), "completion": words(reply)} for prompt, reply in pairs]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    accord = [sys.executable, "-m", "accord"]
    bare = children_seconds([sys.executable, "-c", "pass"])
    above = children_seconds([*accord, "--help"]) - bare
    command = [*accord, "sft", "--model", str(folder / "model"), "--data", str(data), "--threads", "1"]
    out = folder / f"startup-{time.time_ns()}"
    first = children_seconds([*command, "--out", str(out), "--epochs", "0.01"])
    if (steps := len((out / "metrics.jsonl").read_text().splitlines())) != 1:
        raise RuntimeError(f"accord sft made {steps} steps where one was asked for")
    return {"help": above, "first_step": first}
