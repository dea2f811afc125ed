"""How two sides are compared: equality first, then rounds of A B A B, each a fresh process on one thread.

A side is a program that reads a workload folder and prints, as its last line, one JSON object:
`seconds` (CPU-seconds of each timed step), what must be equal, and `versions`.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Result = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """A program of this folder under an interpreter of its own."""

    name: str
    python: str
    program: str

    def run(self, task: str, folder: Path) -> Result:
        """One fresh process; raises RuntimeError with the end of what it said if it fails."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent)])
            if self.name == "accord"
            else "",
        }
        command = [self.python, str(HERE / self.program), task, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{self.name} failed on {task}:\n{done.stderr[-3000:]}")
        result: Result = json.loads(done.stdout.strip().splitlines()[-1])
        return result


OURS = Side("accord", sys.executable, "ours.py")


def peer(variable: str, version: str, program: str) -> Side | None:
    """The peer's side, under the interpreter that an environment variable names; None (and a note) without it."""
    python = os.environ.get(variable, "")
    if not Path(python).is_file():
        print(
            f"{variable} names no interpreter, so the peer does not run: make an environment of its own with "
            f"`pip install {version}` and set {variable} to its python"
        )
        return None
    return Side(version, python, program)


@dataclass(frozen=True)
class Pair:
    """Rounds of both sides on one workload."""

    ours: list[Result]
    theirs: list[Result]

    @property
    def ratio(self) -> dict[str, float]:
        """The peer's CPU time over ours: median, least and largest over the rounds."""
        ratios = [
            statistics.median(b["seconds"]) / statistics.median(a["seconds"])
            for a, b in zip(self.ours, self.theirs, strict=True)
        ]
        return spread(ratios)


def interleave(task: str, folder: Path, ours: Side, theirs: Side, rounds: int) -> Pair:
    """Run both sides in turn; prints each round."""
    pair = Pair([], [])
    for number in range(rounds):
        pair.ours.append(ours.run(task, folder))
        pair.theirs.append(theirs.run(task, folder))
        a, b = (statistics.median(side[-1]["seconds"]) for side in (pair.ours, pair.theirs))
        print(f"  {task} round {number + 1}/{rounds}: {ours.name} {a:.3f} s, {theirs.name} {b:.3f} s, {b / a:.2f}x")
    return pair


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def training_equality(ours: Result, theirs: Result) -> dict[str, Any]:
    """Same tokens; first loss within 1e-4, first gradient norm and fifth loss within 1e-3, all relative (f32)."""
    gaps = {
        "loss_1": relative(ours["losses"][0], theirs["losses"][0]),
        "grad_norm_1": relative(ours["grad_norms"][0], theirs["grad_norms"][0]),
        "loss_5": relative(ours["losses"][4], theirs["losses"][4]),
    }
    bounds = {"loss_1": 1e-4, "grad_norm_1": 1e-3, "loss_5": 1e-3}
    same_tokens = ours["tokens"] == theirs["tokens"]
    holds = same_tokens and all(gaps[name] <= bounds[name] for name in bounds)
    return {"holds": holds, "same_tokens": same_tokens, **{name: float(f"{gap:.2g}") for name, gap in gaps.items()}}


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(b), 1e-12)


def row(case: str, ratio: Mapping[str, float] | None, equality: Any, goal: str, **more: Any) -> Result:
    """One row; a ratio whose equality does not hold is void."""
    void = ratio is not None and isinstance(equality, dict) and not equality.get("holds", True)
    return {"case": case, "ratio": None if void else ratio, "equality": equality, "goal": goal, **more} | (
        {"void": ratio} if void else {}
    )


def machine() -> dict[str, Any]:
    """The processor, its cores and how busy it was; AMX decides whether bf16 pays on a CPU."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": name or platform.processor(),
        "cores": os.cpu_count(),
        "amx_bf16": "amx_bf16" in text,
        "load": round(os.getloadavg()[0], 2),
    }


def finish(name: str, rows: Sequence[Result], versions: Mapping[str, str]) -> Result:
    """Print the table and, as the last line, the JSON of one benchmark."""
    for found in rows:
        ratio = found["ratio"]
        shown = f"{ratio['median']:.2f}x ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else "—"
        print(f"  {found['case']}: {shown}   goal {found['goal']}   equality {found['equality']}")
    result = {"name": name, "rows": list(rows), "versions": dict(versions), "machine": machine()}
    print(json.dumps(result))
    return result
