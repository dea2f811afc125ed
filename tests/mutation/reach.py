"""A pytest plugin that keeps which test reaches which line, and how long each takes.

`python -m pytest -p tests.mutation.reach` writes what `REACH` names (a folder; `build/reach` by default):

- `coverage.sqlite`: coverage.py's data file, with a context for each test and for each fixture that tests share
- `tests.json`: of every test its seconds of CPU and of the clock, and the shared fixtures that it rests on
- `coverage.md`: how much of each room is reached; what only a process of its own runs does not count

A shared fixture is made while its first test runs, and its lines would count as that test's; under a context of their
own they count as reached by every test that asks for it.
"""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("REACH", ROOT / "build" / "reach"))


class Reach:
    def __init__(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.coverage = coverage.Coverage(data_file=str(FOLDER / "coverage.sqlite"), source=[str(ROOT / "src")])
        self.coverage.erase()
        self.coverage.start()
        self.contexts, self.inner = ["outside"], [(0.0, 0.0)]
        self.tests, self.fixtures = {}, {}

    @contextmanager
    def context(self, name):
        """Count lines under a name; yields a dictionary that holds the seconds when the block has ended."""
        self.contexts.append(name)
        self.inner.append((0.0, 0.0))
        self.coverage.switch_context(name)
        start, seconds = (time.process_time(), time.perf_counter()), {}
        try:
            yield seconds
        finally:
            passed = time.process_time() - start[0], time.perf_counter() - start[1]
            own = [whole - inside for whole, inside in zip(passed, self.inner.pop(), strict=True)]
            self.inner[-1] = tuple(outer + whole for outer, whole in zip(self.inner[-1], passed, strict=True))
            self.contexts.pop()
            self.coverage.switch_context(self.contexts[-1])
            seconds |= {"cpu": round(own[0], 3), "clock": round(own[1], 3)}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        with self.context(item.nodeid) as seconds:
            result = yield
        fixtures = [key_of(name, item) for name in item.fixturenames if is_shared(name, item)]
        self.tests[item.nodeid] = {**seconds, "fixtures": fixtures}
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        if fixturedef.scope == "function":
            return (yield)
        name = f"fixture {fixturedef.baseid}::{fixturedef.argname}"
        with self.context(name) as seconds:
            result = yield
        before = self.fixtures.get(name, {"cpu": 0.0, "clock": 0.0})
        self.fixtures[name] = {key: before[key] + seconds[key] for key in seconds}
        return result

    def pytest_sessionfinish(self):
        self.coverage.stop()
        self.coverage.save()
        found = {"tests": self.tests, "fixtures": self.fixtures}
        (FOLDER / "tests.json").write_text(json.dumps(found, indent=1))
        (FOLDER / "coverage.md").write_text(table(self.coverage, ROOT / "src" / "accord"))


def table(measured, package):
    """Statements of each room and how many a test has reached, as a table in Markdown."""
    rooms = {}
    for file in sorted(package.rglob("*.py")):
        inside = file.relative_to(package).parts
        room = "/".join(inside[:2] if inside[0] == "stages" and len(inside) > 2 else inside[:1]).removesuffix(".py")
        _, statements, _, missing, _ = measured.analysis2(str(file))
        before = rooms.get(room if len(inside) > 1 else "the door", (0, 0))
        rooms[room if len(inside) > 1 else "the door"] = (before[0] + len(statements), before[1] + len(missing))
    rooms["all"] = tuple(map(sum, zip(*rooms.values(), strict=True)))
    rows = [f"| {room} | {n} | {100 * (n - missing) / n:.1f} |" for room, (n, missing) in rooms.items() if n]
    return "\n".join(["| room | statements | reached, % |", "|---|---|---|", *rows]) + "\n"


def is_shared(name, item):
    found = item._fixtureinfo.name2fixturedefs.get(name)
    return bool(found) and found[-1].scope != "function"


def key_of(name, item):
    found = item._fixtureinfo.name2fixturedefs[name][-1]
    return f"fixture {found.baseid}::{found.argname}"


def pytest_configure(config):
    config.pluginmanager.register(Reach())
