"""`python -m benchmarks NAME`: one benchmark, whose last line is JSON. `all` runs them all and writes the results page.

Peers run in environments of their own: ACCORD_BENCH_TRL names the python of one with trl==1.16.0 (and peft for `real`),
ACCORD_BENCH_TRL19 that of one with trl==1.9.0 for PPO. The page, docs/results/performance.md, is written after every
benchmark; one that fails has a row that says so. `all --only a,b` runs those and keeps the rows of the others, if they
have the same settings and their code is committed; the page says of each which commit it is of.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import cases, page
from benchmarks.cases import Plan
from benchmarks.feedback import feedback
from benchmarks.gpu import gpu
from benchmarks.harness import Case, Result, Row, empty_rows, failure, machine, run_case

RESULTS = Path(__file__).parent.parent / "docs" / "results"


@dataclass(frozen=True)
class Benchmark:
    """Its cases, and how many rounds of how many steps: all of them together take about an hour on two cores."""

    cases: Callable[[Plan], list[Case]]
    rounds: int
    steps: int = 0


BENCHMARKS = {
    "sft": Benchmark(cases.sft, 3, 6),
    "preference": Benchmark(cases.preference, 3, 6),
    "ranking": Benchmark(cases.ranking, 3, 6),
    "dpo": Benchmark(cases.dpo, 3, 5),
    "dpo-vocab": Benchmark(cases.dpo_vocab, 3, 5),
    "generation": Benchmark(cases.generation, 3),
    "group": Benchmark(cases.group, 3, 7),
    "ppo": Benchmark(cases.ppo, 3, 4),
    "startup": Benchmark(cases.startup, 3),
    "agreement": Benchmark(cases.agreement, 1),
    "feedback": Benchmark(feedback, 3),
    "gpu": Benchmark(gpu, 3, 20),
    "real": Benchmark(cases.real, 3, 5),
}


@dataclass(frozen=True)
class Bounds:
    """How far a run goes: minutes after which no case is started (0: none), a file that is written after every case,
    what the names of its cases begin with."""

    minutes: float = 0.0
    save: Path | None = None
    cases: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--rounds", type=int, default=0, help="fresh processes of each side; 0: the benchmark's own")
    parser.add_argument("--steps", type=int, default=0, help="steps of a run; 0: the benchmark's own")
    parser.add_argument("--size", default="9M", choices=["toy", "1M", "9M"], help="parameters of the models (9M)")
    parser.add_argument("--model", default="", help="directory of a real model, for `real` and `feedback`")
    parser.add_argument("--minutes", type=float, default=0, help="start no case after so many; 0: no bound")
    parser.add_argument("--save", type=Path, help="JSON file, and a page beside it, written after every case")
    parser.add_argument("--cases", default="", help="of the benchmark: beginnings of their names, with semicolons")
    parser.add_argument("--only", default="", help="with all: names with commas, the others' rows are kept")
    chosen = parser.parse_args()
    names = [chosen.name] if chosen.name != "all" else chosen.only.split(",") if chosen.only else list(BENCHMARKS)
    if chosen.name == "all" and not chosen.only and not chosen.model:
        names = [name for name in names if name != "real"]
    if "real" in names and not (Path(chosen.model) / "config.json").is_file():
        parser.error("real is measured on a model of yours: give --model DIRECTORY, with its config.json")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"--only {unknown[0]}: there is no such benchmark; there are {', '.join(BENCHMARKS)}")
    plans = {name: plan_of(BENCHMARKS[name], chosen.rounds, chosen.steps, chosen.size) for name in BENCHMARKS}
    if chosen.model:
        plans["real"] = replace(plans["real"], size=Path(chosen.model).name, model=chosen.model)
        plans["feedback"] = replace(plans["feedback"], model=chosen.model)
    code = page.code_version()
    results = page.kept(RESULTS, plans, without=names) if chosen.name == "all" else []
    for name in names:
        results.append(run(name, plans[name], code, Bounds(chosen.minutes, chosen.save, chosen.cases)))
        if chosen.name == "all":
            page.write(RESULTS, sorted(results, key=lambda result: list(BENCHMARKS).index(result["name"])))
    return int(any(has_failed(row) for result in results if result["name"] in names for row in result["rows"]))


def plan_of(benchmark: Benchmark, rounds: int, steps: int, size: str) -> Plan:
    """The benchmark's own rounds and steps where none are asked for."""
    return Plan(rounds or benchmark.rounds, steps or benchmark.steps, size)


def run(name: str, plan: Plan, code: str, bounds: Bounds | None = None) -> Result:
    """One benchmark, whose table and JSON are printed; it always ends, if need be with a row that says what failed."""
    bounds = bounds or Bounds()
    started = time.time()
    print(f"{name}: {plan.rounds} rounds, {plan.size}", flush=True)
    rows: list[Row] = []
    result: Result = {
        "name": name,
        "rows": rows,
        "versions": {},
        "machine": machine(),
        "settings": page.settings(plan),
        "code": code,
    }
    try:
        for case in BENCHMARKS[name].cases(plan):
            if not case.name.startswith(tuple(bounds.cases.split(";"))):
                continue
            if bounds.minutes and time.time() - started > 60 * bounds.minutes:
                rows += empty_rows(case, f"not run: {bounds.minutes:g} minutes were over")
                continue
            found, seen = run_case(case, plan.rounds, toy=plan.toy)
            rows += found
            result["versions"] |= seen
            result["seconds"] = round(time.time() - started)
            if bounds.save is not None:
                page.write(bounds.save.parent, [result], bounds.save.stem)
    except Exception as error:  # the cases of this benchmark cannot be made; others can
        print(error, file=sys.stderr)
        rows.append({"case": "", "ratio": None, "equality": failure(error), "goal": "", "met": None})
    result["seconds"] = round(time.time() - started)
    show(rows)
    print(json.dumps(result, ensure_ascii=False))
    return result


def show(rows: Sequence[Row]) -> None:
    for row in rows:
        print(f"  {row['case']}: {page.figure(row)}   goal {row['goal']}   equality {page.equality(row)}")


def has_failed(row: Row) -> bool:
    return isinstance(row["equality"], str) and row["equality"].startswith("failed")


if __name__ == "__main__":
    sys.exit(main())
