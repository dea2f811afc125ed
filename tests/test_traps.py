"""`traps.toml` keeps its word: every trap has a test, and the test fails when the bug is put back."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import accord

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(accord.__file__).parent
TRAPS = tomllib.loads((ROOT / "tests" / "traps.toml").read_text())
COUNTS = {"A": 13, "B": 11, "C": 27, "D": 8, "E": 7, "F": 8, "G": 11}
GUARDED = [name for name, trap in TRAPS.items() if "test" in trap]


def test_every_trap_has_one_entry_in_order():
    assert list(TRAPS) == [f"{letter}{i + 1}" for letter, count in COUNTS.items() for i in range(count)]


def test_an_entry_has_a_test_and_a_change_or_a_reason():
    for name, trap in TRAPS.items():
        keys = {"title", "reason"} if "reason" in trap else {"title", "test", "file", "find", "replace"}
        assert set(trap) == keys, name
        assert all(trap.values()) or trap.get("replace") == "", name


def functions(path):
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", GUARDED)
def test_the_tests_of_a_trap_exist(name):
    for node in TRAPS[name]["test"]:
        file, _, function = node.partition("::")
        assert function.split("[")[0] in functions(ROOT / file), node


@pytest.mark.parametrize("name", GUARDED)
def test_the_change_of_a_trap_is_one_line_that_still_compiles(name):
    trap = TRAPS[name]
    text = (SOURCE / trap["file"]).read_text()
    assert text.count(trap["find"]) == 1, trap["find"]
    changed = text.replace(trap["find"], trap["replace"])
    lines = [pair for pair in zip(text.splitlines(), changed.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(lines) == 1
    compile(changed, trap["file"], "exec")


# A plugin of the inner run: it says which package the tests imported, and whether the changed module was among it.
GUARD = """
import os, sys
from pathlib import Path

def pytest_sessionfinish(session):
    where = Path(os.environ["CHANGED"])
    name = ".".join(["accord", *where.with_suffix("").relative_to(Path(os.environ["SOURCE"])).parts])
    found = sys.modules.get(name.removesuffix(".__init__"))
    if found is None or Path(found.__file__).resolve() != where.resolve():
        session.exitstatus = 99
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", GUARDED)
def test_the_tests_of_a_trap_fail_when_the_bug_is_back(name, tmp_path):
    trap = TRAPS[name]
    shutil.copytree(SOURCE, tmp_path / "accord", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "accord" / trap["file"]
    file.write_text(file.read_text().replace(trap["find"], trap["replace"]))
    (tmp_path / "trap_guard.py").write_text(GUARD)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *trap["test"], "-q", "-rf", "-p", "no:cacheprovider", "-p", "trap_guard"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CHANGED": str(file),
            "SOURCE": str(tmp_path / "accord"),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    # 1: tests failed; 2 to 5: nothing was tested; 99: something else was imported than what was changed
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    for node in trap["test"]:
        assert any(found.split("[")[0] == node or found == node for found in failed), f"{node} does not notice"
