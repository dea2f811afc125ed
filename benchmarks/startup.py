"""C8: how long the command line takes to answer, and a stage to make its first step."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import Plan, Rows, Versions
from benchmarks.harness import OURS, row, spread
from benchmarks.workloads import SIZES, hh_items, write_workload

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def children_seconds(command: list[str]) -> float:
    """CPU-seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def startup(plan: Plan) -> tuple[Rows, Versions]:
    """CPU-seconds, so that other processes on the machine do not count."""
    help_above, first_step = [], []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        write_workload(where, hh_items(24, 512), vocab=512, size=SIZES["toy"], options={})
        data = where / "demonstrations.jsonl"
        rows = [{"prompt": f"w{i + 3} w9", "completion": " w5 w6"} for i in range(200)]
        data.write_text("".join(json.dumps(r) + "\n" for r in rows))
        for number in range(plan.rounds):
            bare = children_seconds([sys.executable, "-c", "pass"])
            help_above.append(children_seconds([sys.executable, "-m", "accord", "--help"]) - bare)
            out = where / f"run-{number}"
            command = [sys.executable, "-m", "accord", "sft", "--model", str(where / "model"), "--data", str(data)]
            first_step.append(children_seconds([*command, "--out", str(out), "--threads", "1", "--epochs", "0.01"]))
            print(f"  round {number + 1}: help {help_above[-1]:.3f} s above Python, one step {first_step[-1]:.2f} s")
    return [
        row("accord --help above Python's own start, seconds", None, spread(help_above), "< 0.3"),
        row("accord sft, one step and its snapshot, seconds", None, spread(first_step), "< 8"),
    ], {"accord": OURS.name, "measured": time.strftime("%Y-%m-%d")}
