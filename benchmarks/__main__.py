"""`python -m benchmarks NAME [--rounds N] [--steps N] [--size 9M]`: one benchmark, whose last line is JSON.

`python -m benchmarks all` runs every one and writes docs/results/performance.md. The peer runs in environments of its
own: ACCORD_BENCH_TRL names the python of one with trl==1.16.0.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.cases import BENCHMARKS, Plan
from benchmarks.harness import Result, finish
from benchmarks.startup import startup

ALL = {**BENCHMARKS, "startup": startup}
RESULTS = Path(__file__).parent.parent / "docs" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*ALL, "all"])
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each side (5)")
    parser.add_argument(
        "--steps", type=int, default=12, help="optimizer steps of a training run, 2 of them untimed (12)"
    )
    parser.add_argument("--size", default="9M", help="model: toy, 1M or 9M parameters (9M)")
    chosen = parser.parse_args()
    plan = Plan(chosen.rounds, chosen.steps, chosen.size, 512 if chosen.size == "toy" else 8192)
    if chosen.name != "all":
        finish(chosen.name, *ALL[chosen.name](plan))
        return 0
    results = [finish(name, *benchmark(plan)) for name, benchmark in ALL.items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "performance.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "performance.md").write_text(page(results, plan))
    return 0


def page(results: list[Result], plan: Plan) -> str:
    """The results page, from the rows alone."""
    where = results[0]["machine"]
    lines = [
        "# Performance",
        "",
        "Written by `python -m benchmarks all`. CPU-seconds on one thread, the peer's over ours; median and range of "
        f"{plan.rounds} rounds, sides in turn, each a fresh process; {plan.size} parameters, random weights, lengths "
        "recorded from HH-RLHF. A row whose equality does not hold has no ratio.",
        "",
        f"Machine: {where['cpu']}, {where['cores']} cores, AMX bf16 {'yes' if where['amx_bf16'] else 'no'}; load "
        f"{where['load']} at the start.",
        "",
        "| benchmark | case | ratio | goal | equality |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        for found in result["rows"]:
            ratio = found["ratio"]
            shown = f"{ratio['median']:.2f}x ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else ""
            equality = found["equality"]
            said = equality if isinstance(equality, str) else ", ".join(f"{k} {v}" for k, v in equality.items())
            lines.append(f"| {result['name']} | {found['case']} | {shown} | {found['goal']} | {said} |")
    versions = {name: version for result in results for name, version in result["versions"].items()}
    lines += ["", "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
