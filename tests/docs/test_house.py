"""docs/house.md names places that exist, in the tree that exists, between walls that hold."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import accord

SOURCE = Path(accord.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
PLACES = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)))


def definitions(path):
    """Names that a file defines, methods and fields as Class.name."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in getattr(node, "body", []) if hasattr(part, "name")}
    return found


@pytest.mark.parametrize("file, name", PLACES, ids=lambda part: part)
def test_a_place_is_there(file, name):
    assert name in definitions(SOURCE / file)


def test_the_ways_are_long_enough_to_be_ways():
    ways = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    steps = {way.splitlines()[0]: len(re.findall(r"^\d+\. ", way, re.MULTILINE)) for way in ways}
    assert [n for title, n in steps.items() if title.startswith("The way")] == [16, 12, 6]
    assert len(re.findall(r"^\| .+\? \|", PAGE, re.MULTILINE)) == 10


def test_the_tree_names_every_file():
    tree = PAGE.split("```")[1]
    words = set(re.findall(r"\w+", tree))
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts
        if path.name in ("__init__.py", "config.py", "run.py") or room[0] in ("world", "objectives", "reporting"):
            continue
        if room[0] in ("evaluation", "labelers") or (room[0] == "claims" and len(room) == 2):
            continue
        assert path.stem in words, f"{'/'.join(room)} is not in the tree of docs/house.md"
    for folder in (p for p in SOURCE.rglob("*") if p.is_dir() and p.name not in ("__pycache__", "templates")):
        assert folder.name in words, folder


def test_the_walls_are_those_that_are_held():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (rooms,) = [contract for contract in settings["contracts"] if contract["id"] == "rooms"]
    told = PAGE.split("## The walls")[1].split("```")[1]
    told = [line.strip() for line in told.replace("\n", " ").split(">")]
    held = [" ".join(layer.replace("accord.", "").split()) for layer in rooms["layers"]]
    assert len(told) == len(held)
    for a, b in zip(told, held, strict=True):
        first = b.split(" | ")[0]
        assert a.startswith((first, "the other stages")), (a, b)
