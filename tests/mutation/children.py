"""Children that try faults: in a copy of the tree, or in a process that has collected every test."""

import gc
import importlib
import itertools
import json
import os
import pkgutil
import shutil
import signal
import sys
import time
import traceback
import types
from collections import Counter, defaultdict
from pathlib import Path

from tests.mutation.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "runs", "benchmarks", "examples", "docs", "pyproject.toml", "README.md", "constraints.txt")
PLAINLY = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")


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


def quiet(answer: Path) -> None:
    """What this process says goes into a file beside its answer."""
    log = os.open(answer.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)


def run_tests(copy: Path, tests: list[str], cpu: dict[str, float], answer: Path, *, every: bool) -> None:
    """In a child: run tests of a copy of the tree, until one fails unless `every` is asked for; write which failed."""
    import pytest

    quiet(answer)
    os.chdir(copy)
    sys.path[:] = [str(copy), str(copy / "src"), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "src"]
    os.environ["PYTHONPATH"] = str(copy / "src")
    for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
        del sys.modules[name]
    plugin = Chosen(tests, cpu)
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    base = ["--basetemp", str(answer.with_suffix(".tmp")), "--rootdir", str(copy), *PLAINLY]
    code = pytest.main([*files, *base, *([] if every else ["-x"])], plugins=[plugin])
    # a conftest that cannot be imported is reported by nobody
    ended = [] if plugin.failed or code in (0, 1, 5) else [f"(pytest ended with {int(code)})"]
    ours = sys.modules.get("accord")
    if not ended and (ours is None or not Path(ours.__file__).is_relative_to(copy)):
        raise RuntimeError("the tests imported another package than the one with the fault")
    answer.write_text(json.dumps({"code": int(code), "failed": plugin.failed + ended}))


class Children:
    """Forks a child for each fault, so many at once, and reads what it answers."""

    def __init__(self, folder: Path, cpu: dict[str, float], workers: int) -> None:
        self.folder, self.cpu, self.slots = folder, cpu, range(workers)

    def work(self, slot: int, mutant: Mutant | None, tests: list[str], answer: Path) -> None:
        """In a child: write into `answer` which of the tests fail by the fault, the first; without one, all."""
        raise NotImplementedError

    def ended(self, slot: int, mutant: Mutant | None) -> None:
        """Tidy up after a child."""

    def run(self, asked: list[tuple[int, Mutant | None, list[str]]], say) -> dict[int, dict]:
        """Outcomes by number of what is asked, each a mutant (or none, and then every test) with its tests."""
        waiting, busy, free, found = list(reversed(asked)), {}, list(self.slots), {}
        while waiting or busy:
            while waiting and free:
                number, mutant, tests = waiting.pop()
                slot = free.pop()
                answer = self.folder / f"answer{number}.json"
                answer.unlink(missing_ok=True)
                child = fork(self.work, slot, mutant, tests, answer)
                busy[child] = (number, mutant, slot, answer, time.monotonic())
            for child in list(busy):
                number, mutant, slot, answer, start = busy[child]
                late = time.monotonic() - start > 900
                if late:
                    os.killpg(child, signal.SIGKILL)
                ended, status = os.waitpid(child, 0 if late else os.WNOHANG)
                if ended:
                    del busy[child]
                    free.append(slot)
                    self.ended(slot, mutant)
                    shutil.rmtree(answer.with_suffix(".tmp"), ignore_errors=True)
                    died = {"code": -1, "failed": ["(the process hung)" if late else f"(the process died: {status})"]}
                    found[number] = json.loads(answer.read_text()) if answer.exists() else died
                    say(number, found[number])
            time.sleep(0.02)
        return found


def fork(work, *arguments) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Copies(Children):
    """A child runs tests of a copy of the tree, one copy for each that runs at once."""

    def __init__(self, folder: Path, cpu: dict[str, float], workers: int) -> None:
        super().__init__(folder, cpu, workers)
        for copy in map(self.copy, self.slots):
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
            for name in COPIED:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, copy / name)

    def copy(self, slot: int) -> Path:
        return self.folder / f"copy{slot}"

    def work(self, slot: int, mutant: Mutant | None, tests: list[str], answer: Path) -> None:
        if mutant is not None:
            file = self.copy(slot) / "src" / "accord" / mutant.file
            file.write_bytes(mutant.apply(file.read_bytes()))
        run_tests(self.copy(slot), tests, self.cpu, answer, every=mutant is None)

    def ended(self, slot: int, mutant: Mutant | None) -> None:
        if mutant is not None:
            shutil.copy(ROOT / "src" / "accord" / mutant.file, self.copy(slot) / "src" / "accord" / mutant.file)


class Swaps(Children):
    """A plugin of a process that has collected every test: a child's functions get the code of the file with the fault.

    It begins at once, and the tests of most faults take less than what importing takes. What runs when a file is
    imported does not change by it, nor do processes that a test starts: `Copies` is for what nobody has noticed here.
    """

    def __init__(self, answer: Path, cpu: dict[str, float], workers: int, asked: list) -> None:
        super().__init__(answer.parent, cpu, workers)
        self.answer, self.asked = answer, asked

    def pytest_runtestloop(self, session) -> bool:
        """Try every fault, then every test that noticed one without it; write which are noticed, and by what."""
        import accord

        self.session, self.items = session, {item.nodeid: item for item in session.items}
        for module in pkgutil.walk_packages(accord.__path__, "accord."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        gc.unfreeze()
        self.functions = defaultdict(list)
        for found in gc.get_objects():
            if isinstance(found, types.FunctionType):
                self.functions[found.__code__.co_filename].append(found)
        gc.collect()
        gc.freeze()
        found = self.run(self.asked, lambda *_: None)
        noticing = sorted({name for answer in found.values() for name in answer["failed"]})
        control = set(self.run([(-1, None, noticing)], lambda *_: None)[-1]["failed"])
        # a child that died may have done so of being changed in its life: such a fault is tried anew
        right = self.items.keys() - control
        noticed = {n: answer for n, answer in found.items() if answer["failed"] and right >= {*answer["failed"]}}
        self.answer.write_text(json.dumps(noticed))
        return True

    def work(self, slot: int, mutant: Mutant | None, tests: list[str], answer: Path) -> None:
        quiet(answer)
        plugin, config = Chosen(tests, self.cpu), self.session.config
        config.pluginmanager.register(plugin)
        config._tmp_path_factory._basetemp = answer.with_suffix(".tmp")
        answer.with_suffix(".tmp").mkdir()
        if mutant is None or swap(self.functions, mutant):
            items = [self.items[name] for name in tests if name in self.items]
            for item, after in itertools.zip_longest(items, items[1:]):
                config.hook.pytest_runtest_protocol(item=item, nextitem=after)
                if plugin.failed and mutant is not None:
                    break
        answer.write_text(json.dumps({"code": 0, "failed": plugin.failed}))


def swap(functions: dict[str, list[types.FunctionType]], mutant: Mutant) -> int:
    """Give every function of the mutant's file, nested ones by what holds them, its code there; how many changed."""
    file = ROOT / "src" / "accord" / mutant.file
    text = file.read_bytes()
    before, after = (_codes(compile(source, str(file), "exec")) for source in (text, mutant.apply(text)))
    names = {code: name for name, code in before.items()}
    changed = 0
    for function in functions[str(file)]:
        code = function.__code__
        new = after.get(names.get(code), code)
        if new != code and new.co_freevars == code.co_freevars:
            function.__code__ = new
            changed += 1
    return changed


def _codes(code: types.CodeType) -> dict[tuple[str, int], types.CodeType]:
    """Every function's code in a file's, by its name and how many of that name stand before it."""
    found: dict[tuple[str, int], types.CodeType] = {}
    waiting, count = [code], Counter()
    while waiting:
        one = waiting.pop()
        found[one.co_qualname, count[one.co_qualname]] = one
        count[one.co_qualname] += 1
        waiting.extend(c for c in one.co_consts if isinstance(c, types.CodeType))
    return found


def collect(plugin: Swaps) -> None:
    """In a child: collect every test, and leave the rest to the plugin."""
    import pytest

    quiet(plugin.answer)
    os.chdir(ROOT)
    pytest.main(["tests", "-s", *PLAINLY], plugins=[plugin])
