"""`python -m tests.mutation SEED`: draw faults, run the tests that reach each, say which nobody notices.

`python -m pytest -p tests.mutation.reach` comes first: it says which test reaches which line, and how long it takes.

A process forks one child for each fault, which runs the tests that reach its lines, quickest first, until one fails or
a minute of processor time is spent; two at a time. First in children of a process that has collected every test, whose
functions are changed; what nobody notices there is then made in a copy of the tree, which is imported anew. A fault
that no test reaches is one that nobody notices. A test that takes twenty times as long as it should fails. At the end
every test that noticed something runs without a fault: one that fails then has noticed nothing, and the fault is tried
again without it.
"""

import argparse
import difflib
import importlib
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

from tests.mutation.children import ROOT, Copies, Swaps, collect, fork
from tests.mutation.mutants import Mutant, draw

SECONDS = 60.0  # of processor time for one fault
FIRST = 15.0  # of them where functions are changed: what nobody notices there is tried again
# what stands outside of functions runs for whoever imports it; these read it, from whatever file
TABLES = ("tests/docs/", "tests/test_cli.py")
# everything heavy that the tests import and that is not ours
LOADED = (
    "torch",
    "torch.distributed.run",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "tokenizers",
    "safetensors.torch",
    "peft",
    "pytest",
    "hypothesis",
    "pydantic",
    "jsonargparse",
    "yaml",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.metrics",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "jinja2",
)


class Reached:
    """Which tests reach a line, by what `tests.mutation.reach` has written."""

    def __init__(self, folders: list[Path]) -> None:
        from coverage import CoverageData

        self.cpu: dict[str, float] = {}
        self.fixtures: dict[str, list[str]] = {}
        self.lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for folder in folders:
            said = json.loads((folder / "tests.json").read_text())
            self.cpu |= {name: found["cpu"] for part in said.values() for name, found in part.items()}
            self.fixtures |= {name: found["fixtures"] for name, found in said["tests"].items()}
            data = CoverageData(str(folder / "coverage.sqlite"))
            data.read()
            for file in data.measured_files():
                name = file.rpartition("/src/accord/")[2]
                now = moved(Path(file), ROOT / "src" / "accord" / name)
                for line, contexts in data.contexts_by_lineno(file).items():
                    if line in now:
                        self.lines[name][now[line]] |= set(contexts)

    def tests(self, mutant: Mutant, seconds: float) -> list[str]:
        """The tests that reach the mutant, quickest first, as many as fit into so many seconds of processor time."""
        first, last = mutant.lines
        there = self.lines[mutant.file]
        contexts = set().union(*(there[line] for line in range(first, last + 1) if line in there))
        tables = TABLES if mutant.outside else ()
        found = [n for n, needs in self.fixtures.items() if contexts & {n, *needs} or n.startswith(tables)]
        made: set[str] = set()
        chosen, spent = [], 0.0
        for name in sorted(found, key=lambda name: self.cpu[name] + sum(map(self.made, self.fixtures[name]))):
            spent += self.cpu[name] + sum(self.made(f) for f in self.fixtures[name] if f not in made)
            if chosen and spent > seconds:
                break
            made |= {*self.fixtures[name]}
            chosen.append(name)
        return chosen

    def made(self, fixture: str) -> float:
        return self.cpu.get(fixture, 0.0)


def moved(before: Path, after: Path) -> dict[int, int]:
    """Where each line of a file stands that has changed elsewhere since."""
    if not (before.exists() and after.exists()):
        return {}
    texts = [path.read_text(encoding="utf-8").splitlines() for path in (before, after)]
    blocks = difflib.SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks()
    return {a + i + 1: b + i + 1 for a, b, size in blocks for i in range(size)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("seed", help="the hash of a commit")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--reach", type=Path, nargs="+", default=[ROOT / "build" / "reach"])
    parser.add_argument("--out", type=lambda text: Path(text).absolute(), default=ROOT / "build" / "mutation")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the draw, to try again")
    options = parser.parse_args()
    package = ROOT / "src" / "accord"
    drawn = draw(package, options.seed, options.count)
    shown = [mutant.show((package / mutant.file).read_bytes()) for mutant in drawn]
    reached = Reached(options.reach)
    for name in LOADED:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    copies = Copies(options.out, reached.cpu, options.workers)

    def say(number: int, found: dict) -> None:
        outcome = found["failed"][0] if found["failed"] else f"NOBODY NOTICES (of {len(tests[number])} tests)"
        print(f"{number:4} {shown[number]}\n     {outcome}", flush=True)

    numbers = options.only or range(len(drawn))
    tests = {number: reached.tests(drawn[number], SECONDS) for number in numbers}
    inside = [(n, drawn[n], reached.tests(drawn[n], FIRST)) for n in numbers if tests[n] and not drawn[n].outside]
    swapped = options.out / "swapped.json"
    swapped.unlink(missing_ok=True)
    os.waitpid(fork(collect, Swaps(swapped, reached.cpu, options.workers, inside)), 0)
    found = {int(n): answer for n, answer in json.loads(swapped.read_text()).items()}
    for number, answer in found.items():
        say(number, answer)
    rest = [(n, drawn[n], tests[n]) for n in numbers if tests[n] and n not in found]
    found |= copies.run(rest, say)
    noticing = sorted({name for answer in found.values() for name in answer["failed"] if name in reached.cpu})
    control = copies.run([(-1, None, noticing)], lambda *_: None)[-1]["failed"]
    if unknown := [name for name in control if name not in reached.cpu]:
        raise RuntimeError(f"the tests do not run without a fault: {unknown}")
    again = [n for n in found if control and set(found[n]["failed"]) & set(control)]
    if again:
        print(f"failing without a fault: {', '.join(control)}", flush=True)
        tests |= {n: [name for name in tests[n] if name not in control] for n in again}
        found |= copies.run([(n, drawn[n], tests[n]) for n in again], say)
    for number in numbers:
        found.setdefault(number, {"code": 5, "failed": []})
    survivors = [n for n in numbers if not found[n]["failed"]]
    rows = [{"mutant": shown[n], "tests": len(tests[n]), **found[n]} for n in numbers]
    (options.out / "mutation.json").write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1))
    sys.path.insert(0, str(ROOT / "src"))
    from accord.evaluation.statistics import wilson

    share = wilson(len(rows) - len(survivors), len(rows))
    print(f"noticed {len(rows) - len(survivors)} of {len(rows)} [{share.low:.3f}, {share.high:.3f}]; not noticed:")
    for n in survivors:
        print(f"{n:4} {shown[n]} ({len(tests[n])} tests reach it)")


if __name__ == "__main__":
    main()
