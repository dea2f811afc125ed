"""How two sides are compared: equality first, then rounds of A B A B, each a fresh process on one thread.

A side is a program that reads a workload folder and prints, as its last line, one JSON object: `seconds` of each timed
step (benchmarks/clock.py), what must be equal, and `versions`.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.postgres import why_not
from benchmarks.workloads import Workload

HERE = Path(__file__).parent
TIMEOUT = 1800  # seconds for one process; a side that hangs must not cost the other benchmarks
Options = dict[str, Any]
Result = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """A program of this folder; `variable` names the interpreter of a peer that lives in its own environment."""

    name: str
    program: str
    variable: str = ""

    @property
    def python(self) -> str:
        """Its interpreter; empty where the variable names none."""
        found = os.environ.get(self.variable, "") if self.variable else sys.executable
        return found if Path(found).is_file() else ""

    def run(self, task: str, folder: Path, options: Options) -> Result:
        """One fresh process; raises RuntimeError with the end of what it said if it fails."""
        (folder / "options.json").write_text(json.dumps(options))
        paths = [HERE.parent] if self.variable else [HERE.parent / "src", HERE.parent]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        command = [self.python, str(HERE / self.program), task, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
        if done.returncode:
            raise RuntimeError(f"{self.name} failed on {task}:\n{done.stderr[-3000:]}")
        result: Result = json.loads(done.stdout.strip().splitlines()[-1])
        return result


OURS = Side("accord", "ours/__main__.py")
TRL = Side("trl==1.16.0", "peers/trl116.py", "ACCORD_BENCH_TRL")
TRL19 = Side("trl==1.9.0", "peers/trl19.py", "ACCORD_BENCH_TRL19")


@dataclass(frozen=True)
class Goal:
    """A bound on the median of a measure, in `unit` (x: a ratio)."""

    bound: float
    at_most: bool
    unit: str = "x"

    def __str__(self) -> str:
        space = "" if self.unit == "x" else " "
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}{space}{self.unit}"

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def at_least(bound: float, unit: str = "x") -> Goal:
    return Goal(bound, False, unit)


def at_most(bound: float, unit: str = "x") -> Goal:
    return Goal(bound, True, unit)


@dataclass(frozen=True)
class Pair:
    """Results of both sides, round by round; `theirs` is empty where a case has no other side."""

    ours: list[Result] = field(default_factory=list)
    theirs: list[Result] = field(default_factory=list)


@dataclass(frozen=True)
class Measure:
    """One number of a round, from both results, and the goal for its median; `name` is added to the case's."""

    goal: Goal
    of: Callable[[Result, Result], float]
    name: str = ""


@dataclass(frozen=True)
class Job:
    """A task by a side, with its options."""

    side: Side
    task: str
    options: Options


@dataclass(frozen=True)
class Case:
    """What is run on one workload by whom, what must be equal, and what is measured.

    `equality` sees the rounds. Where `given` names a task, both sides run that once before the rounds, and the first
    round has its results too: what is drawn differs between sides, so what they make of the same replies is compared
    apart. `needs` is what the machine must have for the measures to mean anything: one of LACKS, or nothing.
    """

    name: str
    workload: Workload
    ours: Job
    theirs: Job | None
    equality: Callable[[Pair], dict[str, Any]]
    measures: Sequence[Measure]
    given: str = ""
    needs: str = ""


LACKS = {"bf16": "its CPU has no bf16 units", "cuda": "it has no GPU", "postgresql": "it has no PostgreSQL"}
CPUINFO = Path("/proc/cpuinfo")
BF16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}  # as it names them


def run_case(case: Case, rounds: int, *, toy: bool) -> tuple[list[Row], dict[str, str]]:
    """The rows of a case, and the versions of what ran. A side that fails gives rows that say so.

    What this machine cannot measure runs at toy size alone, to show that it does, and has no figure.
    """
    lacking = case.needs if case.needs and case.needs not in abilities() else ""
    if lacking and not toy:
        return empty_rows(case, f"not run: this machine cannot measure it, {LACKS[lacking]}"), {}
    if case.theirs is not None and not case.theirs.side.python:
        return empty_rows(case, f"not run: {how_to_get(case.theirs.side)}"), {}
    print(case.name, flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            case.workload.write(Path(folder))
            pair = compare(case, Path(folder), rounds)
        versions = {name: v for r in (*pair.theirs[:1], *pair.ours[:1]) for name, v in r["versions"].items()}
        equality = case.equality(pair)
        if lacking:
            print(f"  equality {equality}")
            return empty_rows(case, f"ran at toy size; not measured, {LACKS[lacking]}"), versions
        return [make_row(case, measure, pair, equality) for measure in case.measures], versions
    except Exception as error:  # whatever it was, the other cases are still worth their time
        print(error, file=sys.stderr)
        return empty_rows(case, failure(error)), {}


def failure(error: Exception) -> str:
    """What a row says of an error: its last line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"failed: {lines[-1].strip() if lines else type(error).__name__}"


def compare(case: Case, folder: Path, rounds: int) -> Pair:
    """The rounds, both sides in turn; prints each."""
    jobs = [case.ours] if case.theirs is None else [case.ours, case.theirs]
    before = [job.side.run(case.given, folder, job.options) if case.given else {} for job in jobs]
    results: list[list[Result]] = [[] for _ in jobs]
    for number in range(rounds):
        for job, found in zip(jobs, results, strict=True):
            found.append(job.side.run(job.task, folder, job.options))
        said = [f"{readings(m, Pair(*results))[-1]:.4g} {m.goal.unit}{m.name}" for m in case.measures]
        print(f"  round {number + 1}/{rounds}: {'; '.join(said)}", flush=True)
    return Pair(*([{**first, **found[0]}, *found[1:]] for first, found in zip(before, results, strict=True)))


def readings(measure: Measure, pair: Pair) -> list[float]:
    """The measure in every round."""
    return [measure.of(a, b) for a, b in zip(pair.ours, pair.theirs or [{}] * len(pair.ours), strict=True)]


def make_row(case: Case, measure: Measure, pair: Pair, equality: dict[str, Any]) -> Row:
    """One row; a number whose equality does not hold is void. A unit of its own makes it no ratio but `measured`."""
    found = spread(readings(measure, pair))
    row = empty_row(case, measure, equality)
    if not equality.get("holds", True):
        return {**row, "void": found}
    kind = "ratio" if measure.goal.unit == "x" else "measured"
    return {**row, kind: found, "met": measure.goal.met(found["median"]), **seconds(pair)}


def seconds(pair: Pair) -> dict[str, Any]:
    """Mean seconds of a step of ours and of the peer, in the last round, where both were timed."""
    last = [side[-1] for side in (pair.ours, pair.theirs) if side]
    timed = [float(f"{statistics.fmean(found['seconds']):.3g}") for found in last if "seconds" in found]
    return {"seconds": timed} if len(timed) == 2 else {}


def empty_row(case: Case, measure: Measure, equality: Any) -> Row:
    goal = measure.goal
    row = {"case": case.name + measure.name, "ratio": None, "equality": equality, "goal": str(goal), "met": None}
    return row if goal.unit == "x" else {**row, "measured": None, "unit": goal.unit}


def empty_rows(case: Case, why: str) -> list[Row]:
    """Every row of a case without a figure, and why."""
    return [empty_row(case, measure, why) for measure in case.measures]


def how_to_get(side: Side) -> str:
    return (
        f"no peer, {side.variable} names no interpreter; make an environment of its own with "
        f"`pip install {side.name}` and set {side.variable} to its python"
    )


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and largest, to four digits."""
    values = list(values)
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def faster(ours: Result, theirs: Result) -> float:
    """The peer's mean seconds of a step over ours: with texts of many lengths steps differ, not alike on both sides."""
    return statistics.fmean(theirs["seconds"]) / statistics.fmean(ours["seconds"])


def extra_memory(ours: Result, theirs: Result) -> float:
    """Our memory above the loaded model over theirs."""
    return float(ours["extra_mib"] / theirs["extra_mib"])


def abilities() -> set[str]:
    """Of what a case may need, what this machine has."""
    found = {"bf16"} if machine()["bf16"] else set()
    found |= set() if why_not() else {"postgresql"}
    import torch

    return found | ({"cuda"} if torch.cuda.is_available() else set())


def gpu() -> dict[str, str]:
    """The card, where there is one."""
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def machine() -> dict[str, Any]:
    """The processor, its cores and how busy it is; without units for it bf16 is slower than f32."""
    text = CPUINFO.read_text() if CPUINFO.is_file() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": name or platform.processor(),
        **gpu(),
        "cores": os.cpu_count(),
        "bf16": next((unit for flag, unit in BF16_UNITS.items() if flag in text), ""),
        "load": round(os.getloadavg()[0], 2),
        "measured": time.strftime("%Y-%m-%d"),
    }
