"""docs/results/performance.md and .json: what was measured, of which code, on which machine."""

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Plan
from benchmarks.harness import Result, Row

ROOT = Path(__file__).parent.parent
MEASURED = ("src", "benchmarks")  # what a figure depends on
CHANGED = " with changes"


def code_version() -> str:
    """The last commit that touched what is measured, and whether it was changed since; empty outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words, "--", *MEASURED], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    commit = git("log", "-1", "--format=%h")
    return commit + (CHANGED if commit and git("status", "--porcelain") else "")


def settings(plan: Plan) -> dict[str, Any]:
    return {"rounds": plan.rounds, "steps": plan.steps, "size": plan.size}


def kept(folder: Path, plans: Mapping[str, Plan], *, without: Collection[str]) -> list[Result]:
    """Stored results of committed code with the same settings, but for the benchmarks that are run again.

    They may be of an earlier commit, as the page then says. Those on a real model have its name for a size.
    """
    file = folder / "performance.json"
    stored: list[Result] = json.loads(file.read_text()) if file.is_file() else []
    return [
        result
        for result in stored
        if result["name"] in plans
        and result["name"] not in without
        and result["code"]
        and not result["code"].endswith(CHANGED)
        and (result["name"] == "real" or result["settings"] == settings(plans[result["name"]]))
    ]


def write(folder: Path, results: Sequence[Result], name: str = "performance") -> None:
    """Both files of that name, from the results alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(page(results))


def page(results: Sequence[Result]) -> str:
    """A table of every row; below it, of every benchmark, its rounds, the machine's load and how long it took."""
    versions = {name: version for result in results for name, version in result["versions"].items()}
    return "\n".join(
        [
            "# Performance",
            "",
            "Written by `python -m benchmarks all`; [engine.md](../engine.md#benchmarks) says how it measures. A ratio "
            "is the peer's CPU-seconds on one thread over ours, or what the case says: median and range of the rounds. "
            "A row whose equality does not hold is void and has no figure.",
            "",
            "Models have random weights, texts the lengths of HH-RLHF, unless the case says otherwise.",
            "",
            "| benchmark | case | measured | goal | met | equality |",
            "|---|---|---|---|---|---|",
            *(table_row(result["name"], row) for result in results for row in result["rows"]),
            "",
            "| benchmark | code | size | rounds | steps | load before | seconds | on | machine |",
            "|---|---|---|---|---|---|---|---|---|",
            *(run_row(result) for result in results),
            "",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
            "",
        ]
    )


def table_row(name: str, row: Row) -> str:
    met = {True: "yes", False: "no", None: ""}[row["met"]]
    cells = (name, row["case"], figure(row), row["goal"], met, equality(row).replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


def run_row(result: Result) -> str:
    chosen, busy = result["settings"], result["machine"]
    cells = (result["name"], result["code"] or "unknown", chosen["size"], chosen["rounds"], chosen["steps"] or "")
    bf16 = f"bf16 by {busy['bf16']}" if busy["bf16"] else "no bf16 units"
    where = ", ".join([*filter(None, [busy.get("gpu")]), f"{busy['cpu']}", f"{busy['cores']} cores", bf16])
    return f"| {' | '.join(map(str, (*cells, busy['load'], result['seconds'], busy['measured'], where)))} |"


def figure(row: Row) -> str:
    """What a row measured: median and range; nothing where it measured nothing."""
    found = row["ratio"] or row.get("measured")
    if row.get("void"):
        return "void"
    if not found:
        return ""
    unit = "x" if row["ratio"] else f" {row['unit']}"
    return f"{found['median']:.4g}{unit} ({found['min']:.4g}–{found['max']:.4g})"


def equality(row: Row) -> str:
    found = row["equality"]
    return found if isinstance(found, str) else ", ".join(f"{name} {value}" for name, value in found.items())
