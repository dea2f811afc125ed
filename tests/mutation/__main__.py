"""`python -m tests.mutation SEED`: draw faults, run the tests that reach each, say which nobody notices.

`python -m pytest -p tests.mutation.reach` comes first: it says which test reaches which line, and how long it takes.

A fault is made in a copy of the tree. A process that has the libraries loaded forks one child for each, which runs the
tests that reach its lines, quickest first, until one fails or a minute of processor time is spent; two at a time. A
fault that no test reaches is one that nobody notices. A test that takes twenty times as long as it should fails. At the
end every test that noticed something runs without a fault: one that fails then has noticed nothing, and the fault is
tried again without it.
"""

import argparse
import difflib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path

from tests.mutation.mutants import Mutant, draw

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0  # of processor time for one fault
COPIED = ("src", "tests", "runs", "benchmarks", "examples", "docs", "pyproject.toml", "README.md", "constraints.txt")
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

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that reach the mutant, quickest first, as many as fit into a minute."""
        first, last = mutant.lines
        there = self.lines[mutant.file]
        contexts = set().union(*(there[line] for line in range(first, last + 1) if line in there))
        tables = TABLES if mutant.outside else ()
        found = [n for n, needs in self.fixtures.items() if contexts & {n, *needs} or n.startswith(tables)]
        made: set[str] = set()
        chosen, spent = [], 0.0
        for name in sorted(found, key=lambda name: self.cpu[name] + sum(map(self.made, self.fixtures[name]))):
            spent += self.cpu[name] + sum(self.made(f) for f in self.fixtures[name] if f not in made)
            if chosen and spent > SECONDS:
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


class Chosen:
    """A plugin: the tests that were asked for, in that order, each with a bound on its processor time."""

    def __init__(self, tests: list[str], cpu: dict[str, float]) -> None:
        self.place = {name: number for number, name in enumerate(tests)}
        self.cpu, self.failed = cpu, []

    def pytest_configure(self) -> None:
        from hypothesis import settings

        settings.register_profile("busy", deadline=None, database=None)
        settings.load_profile("busy")

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.signal(signal.SIGPROF, _too_long)
        signal.setitimer(signal.ITIMER_PROF, 20.0 + 20 * self.cpu.get(nodeid, 1.0))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} (import)")


def _too_long(*_) -> None:
    raise TimeoutError("this test takes twenty times as long as it does without the fault")


def run_tests(copy: Path, tests: list[str], cpu: dict[str, float], answer: Path, *, every: bool) -> None:
    """In a child: run tests of a copy of the tree, until one fails unless `every` is asked for; write which failed."""
    import pytest

    log = os.open(answer.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(copy)
    sys.path[:] = [str(copy), str(copy / "src"), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "src"]
    os.environ["PYTHONPATH"] = str(copy / "src")
    for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
        del sys.modules[name]
    plugin = Chosen(tests, cpu)
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    base = [
        "--basetemp",
        str(answer.with_suffix(".tmp")),
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-q",
        "--rootdir",
        str(copy),
    ]
    code = pytest.main([*files, *base, *([] if every else ["-x"])], plugins=[plugin])
    ours = sys.modules.get("accord")
    if ours is None or not Path(ours.__file__).is_relative_to(copy):
        raise RuntimeError("the tests imported another package than the one with the fault")
    answer.write_text(json.dumps({"code": int(code), "failed": plugin.failed}))


def fork(work, *arguments, **options) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    try:
        work(*arguments, **options)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Copies:
    """Copies of the tree, one for each child at a time, and what the children answer."""

    def __init__(self, folder: Path, reached: Reached, workers: int) -> None:
        self.folder, self.reached = folder, reached
        self.copies = [folder / f"copy{number}" for number in range(workers)]
        for copy in self.copies:
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
            for name in COPIED:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, copy / name)

    def run(self, asked: list[tuple[int, Mutant | None, list[str]]], say) -> dict[int, dict]:
        """Outcomes by number of what is asked, each a mutant (or none, and then every test) with its tests."""
        waiting, busy, free, found = list(reversed(asked)), {}, list(self.copies), {}
        while waiting or busy:
            while waiting and free:
                number, mutant, tests = waiting.pop()
                copy = free.pop()
                if mutant is not None:
                    file = copy / "src" / "accord" / mutant.file
                    file.write_bytes(mutant.apply(file.read_bytes()))
                answer = self.folder / f"answer{number}.json"
                answer.unlink(missing_ok=True)
                child = fork(run_tests, copy, tests, self.reached.cpu, answer, every=mutant is None)
                busy[child] = (number, mutant, copy, answer, time.monotonic())
            for child in list(busy):
                number, mutant, copy, answer, start = busy[child]
                late = time.monotonic() - start > 900
                if late:
                    os.killpg(child, signal.SIGKILL)
                ended, status = os.waitpid(child, 0 if late else os.WNOHANG)
                if ended:
                    del busy[child]
                    free.append(copy)
                    if mutant is not None:
                        shutil.copy(ROOT / "src" / "accord" / mutant.file, copy / "src" / "accord" / mutant.file)
                    shutil.rmtree(answer.with_suffix(".tmp"), ignore_errors=True)
                    died = {"code": -1, "failed": ["(the process hung)" if late else f"(the process died: {status})"]}
                    found[number] = json.loads(answer.read_text()) if answer.exists() else died
                    say(number, found[number])
            time.sleep(0.05)
        return found


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
    copies = Copies(options.out, reached, options.workers)

    def say(number: int, found: dict) -> None:
        outcome = found["failed"][0] if found["failed"] else f"NOBODY NOTICES (of {len(tests[number])} tests)"
        print(f"{number:4} {shown[number]}\n     {outcome}", flush=True)

    numbers = options.only or range(len(drawn))
    tests = {number: reached.tests(drawn[number]) for number in numbers}
    found = copies.run([(n, drawn[n], tests[n]) for n in numbers if tests[n]], say)
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
