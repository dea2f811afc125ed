"""The walls between the rooms, the size of files, and a command line that answers without torch."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import accord
from tests.fixtures.sources import nodes

SOURCE = Path(accord.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path):
    """Every module that a file imports, at the top or inside a function."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names(files):
    return [str(path.relative_to(SOURCE)) for path in files]


OBJECTIVES = [path for path in FILES if path.parent.name == "objectives"]


@pytest.mark.parametrize("path", OBJECTIVES, ids=names(OBJECTIVES))
def test_objectives_import_torch_and_themselves_alone(path):
    standard = set(sys.stdlib_module_names)
    for name in imports(path):
        root = name.split(".")[0]
        assert root in standard or root == "torch" or name.startswith("accord.objectives"), name


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name in ("world",)] + [SOURCE / "data" / "sources.py"], ids=lambda p: p.name
)
def test_the_world_and_the_sources_do_without_torch(path):
    assert not [name for name in imports(path) if name.split(".")[0] in ("torch", "transformers")]


def test_training_knows_nothing_of_feedback():
    for path in FILES:
        if path.parent.name == "training":
            assert not [n for n in imports(path) if n.startswith(("accord.objectives", "accord.records"))], path


def test_no_two_classes_share_a_name():
    seen = {}
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                assert node.name not in seen, (node.name, path, seen[node.name])
                seen[node.name] = path


def test_every_stage_has_its_place_in_the_layers():
    (rooms,) = [c for c in CONTRACTS if c["id"] == "rooms"]
    listed = {word for layer in rooms["layers"] for word in layer.replace("|", " ").split()}
    stages = {path.name for path in (SOURCE / "stages").iterdir() if (path / "run.py").is_file()}
    assert {f"accord.stages.{name}" for name in stages} <= listed


ROOT = SOURCE.parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
# contract: file that gets an import which the contract forbids, and the import
BROKEN = {
    "rooms": ("engine/packing.py", "import accord.models.loading"),
    "circles": ("claims/lab/cells.py", "import accord.claims.runner"),
    "engine": ("engine/forward/trunk.py", "import accord.engine.decode.decoder"),
    "ppo": ("stages/ppo/rollouts.py", "import accord.stages.ppo.update"),
}


def linted(folder):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "500"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_every_contract_is_broken_by_a_test():
    assert [contract["id"] for contract in CONTRACTS] == list(BROKEN)


EACH = [pytest.param({name}, id=name, marks=pytest.mark.slow) for name in BROKEN]


@pytest.mark.parametrize("contracts", [pytest.param(set(), id="none"), pytest.param(set(BROKEN), id="all"), *EACH])
def test_an_import_that_a_contract_forbids_breaks_it(contracts, tmp_path):
    shutil.copytree(SOURCE, tmp_path / "src" / "accord", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for contract in contracts:
        file, line = BROKEN[contract]
        with open(tmp_path / "src" / "accord" / file, "a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")
    done = linted(tmp_path)
    names = {c["id"]: c["name"] for c in CONTRACTS}
    assert done.returncode == bool(contracts), done.stdout + done.stderr
    for contract in contracts:
        assert f"{names[contract]} BROKEN" in " ".join(done.stdout.split()), done.stdout


def test_files_stay_readable():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 450, path
        for word in ("TODO", "FIXME", "XXX", "NotImplementedError", "pickle.load", "torch.load", "yaml.load("):
            assert word not in text, (path, word)


LOOPS = {"training/fit.py": "fit"}  # a training loop is read in one go, and may be longer


def test_functions_stay_readable():
    for path, name in zip(FILES, names(FILES), strict=True):
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                most = 150 if LOOPS.get(name) == node.name else 100
                assert node.end_lineno - node.lineno + 1 <= most, (path, node.name)


REPEATED = 6  # equal lines in a row that stand in two places


def said(path):
    """(line number, text) of every line that says something: not blank, no import, not a bracket alone."""
    text = path.read_text(encoding="utf-8")
    imported = {
        line
        for node in nodes(path)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(text.splitlines(), start=1)
    return [(n, line.strip()) for n, line in lines if line.strip(" ()[]{},:") and n not in imported]


def repeated(files):
    """Pairs of places where the same lines begin."""
    seen, found = {}, []
    for path in files:
        lines = said(path)
        for start in range(len(lines) - REPEATED + 1):
            run = tuple(text for _, text in lines[start : start + REPEATED])
            place = f"{path}:{lines[start][0]}"
            found += [(seen[run], place)] if run in seen else []
            seen.setdefault(run, place)
    return found


def test_no_six_lines_stand_twice():
    """What is written twice is mended once."""
    assert not repeated(FILES)


def test_six_lines_that_stand_twice_are_found(tmp_path):
    lines = [f"x = {i}" for i in range(6)]
    (tmp_path / "a.py").write_text("import os\n" + "\n\n".join(lines))
    (tmp_path / "b.py").write_text("if True:\n    " + "\n    ".join(lines) + "\n")
    (tmp_path / "c.py").write_text("\n".join(lines[:5]))
    ((first, second),) = repeated(sorted(tmp_path.glob("*.py")))
    assert first.endswith("a.py:2") and second.endswith("b.py:2")


def in_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_the_command_line_is_imported_without_heavy_packages():
    done = in_fresh_process(
        "import sys, accord.cli, accord.config, accord.records, accord.run\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'scipy', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_the_list_of_commands_needs_no_configs():
    done = in_fresh_process(
        "import sys\nfrom accord.cli import main\nassert main(['--help']) == 0\nsys.exit('pydantic' in sys.modules)"
    )
    assert done.returncode == 0 and "preference" in done.stdout, done.stderr


def test_help_needs_no_torch():
    done = in_fresh_process(
        "import sys\nfrom accord.cli import main\nassert main(['ppo', '--help']) == 0\nsys.exit('torch' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert "--kl_coefficient" in done.stdout


def text_calls(path):
    """Calls that turn bytes into text or text into bytes by the locale unless they are told how."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            named = isinstance(node.func, ast.Attribute)
            name = node.func.attr if named else getattr(node.func, "id", "")
            given = {keyword.arg for keyword in node.keywords}
            mode = next((a.value for a in node.args[0 if named else 1 :][:1] if isinstance(a, ast.Constant)), "r")
            # os.open gives a descriptor, which knows no text
            opens = name == "open" and "b" not in str(mode) and ast.unparse(node.func) != "os.open"
            if (opens or (named and name in ("read_text", "write_text"))) and "encoding" not in given:
                yield node.lineno


def test_text_is_utf8_whatever_the_locale():
    assert not [f"{path}:{line}" for path in FILES for line in text_calls(path)]


def test_what_a_library_does_is_left_to_it():
    """HTTP to httpx2, locks to filelock, which know redirects, proxies and other systems than this one."""
    for path in FILES:
        assert not {"urllib.request", "http.client", "fcntl", "msvcrt"} & imports(path), path
