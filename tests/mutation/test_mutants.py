"""The tool that tries the tests: its faults by hand, and that a draw is a function of its seed."""

import ast
import shutil
import types
from collections import Counter
from pathlib import Path

import accord
from accord.objectives import kl
from tests.mutation.children import swap
from tests.mutation.mutants import KINDS, ROOMS, draw, mutants

PACKAGE = Path(accord.__file__).parent
SOURCE = '''"""Words."""
LEAST = 3
Found = Sequence[int] | None


def f(x: int, y: float = 0.5, *, told: bool = True):
    """More 5 words."""
    if x < LEAST and not told:
        raise ValueError(f"{x} is less than {LEAST + 1}")
    total = y
    total += g(x, y)
    print("seen", 7)
    h(x)
    return -total
'''
EXPECTED = """
comparison 8 x < LEAST → x > LEAST
term 8 x < LEAST and not told → (not told)
term 8 x < LEAST and not told → (x < LEAST)
term 8 not told → (told)
term 11 total += g(x, y) → total = g(x, y)
term 14 -total → (total)
constant 2 3 → 4
constant 6 0.5 → 0.75
constant 6 True → False
arguments 11 x, y → y, x
line 9 raise ValueError(f"{x} is less than {LEAST + 1}") → pass
line 11 total += g(x, y) → pass
line 13 h(x) → pass
"""


def test_the_faults_of_a_file_by_hand():
    source = SOURCE.encode()
    found = {f"{m.kind} {m.line} {m.show(source).partition(f'{m.kind}: ')[2]}" for m in mutants(source, "f.py")}
    assert found == set(EXPECTED.strip().splitlines())


def test_what_a_fault_is_seen_by():
    """A default by the body of its function, a number beside functions by the whole file, a condition by its line."""
    lines = {(m.kind, m.line): m.lines for m in mutants(SOURCE.encode(), "f.py")}
    assert lines["constant", 6] == (7, 14) and lines["constant", 2][0] == 1 and lines["constant", 2][1] >= 14
    assert lines["comparison", 8] == (8, 8) and lines["line", 9] == (9, 9)
    outside = {(m.kind, m.line) for m in mutants(SOURCE.encode(), "f.py") if m.outside}
    assert outside == {("constant", 2), ("constant", 6)}


def test_a_draw_is_a_function_of_its_seed_and_takes_as_many_of_each_kind(tmp_path):
    """From two of the rooms."""
    for room in ("objectives", "stages/ppo"):
        shutil.copytree(PACKAGE / room, tmp_path / room)
    drawn = draw(tmp_path, "a seed", 50)
    assert drawn == draw(tmp_path, "a seed", 50) != draw(tmp_path, "another", 50)
    assert Counter(m.kind for m in drawn) == dict.fromkeys(KINDS, 10)
    assert all(m.file.startswith(ROOMS) for m in drawn)
    for mutant in drawn:
        source = (PACKAGE / mutant.file).read_bytes()
        changed = mutant.apply(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), mutant


def test_functions_get_the_code_of_the_file_with_the_fault_and_no_other_changes():
    file = Path(kl.__file__)
    one, other = (types.FunctionType(f.__code__, vars(kl)) for f in (kl.sqrt_kl, kl.annealed))
    source = file.read_bytes()
    line = source[: source.index(b"math.sqrt(max")].count(b"\n") + 1
    fault = next(m for m in mutants(source, "objectives/kl.py") if m.kind == "constant" and m.line == line)
    assert one(0.25) == 0.5
    assert swap({str(file): [one, other]}, fault) == 1
    assert one(0.25) != 0.5 and other.__code__ == kl.annealed.__code__
