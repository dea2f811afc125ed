"""Small faults of five kinds, each a change of one place in one file of the package.

- `comparison`: `<` becomes `>`, `==` `!=`, `in` `not in`, `is` `is not`
- `term`: of a sum, product or condition one side goes; a `-` or a `not` in front goes
- `constant`: 3 becomes 4, 0.5 becomes 0.75, True False
- `arguments`: two arguments that stand beside each other change places
- `line`: a statement goes whose absence leaves code that runs: a call, a change of what there was before, a refusal, an
  early return

What only a reader sees is left alone: annotations, docstrings, the words of messages and descriptions.
"""

import ast
import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOMS = ("objectives", "engine", "data", "models", "stages/ppo", "stages/preference", "evaluation")
KINDS = ("comparison", "term", "constant", "arguments", "line")
TURNED: dict[type, str] = {
    ast.Lt: ">",
    ast.Gt: "<",
    ast.LtE: ">=",
    ast.GtE: "<=",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
EITHER_WAY = ("max", "min", "maximum", "minimum", "logaddexp", "hypot", "transpose")
SPOKEN = (
    "print",
    "warn",
    "BadInput",
    "ValueError",
    "RuntimeError",
    "TypeError",
    "Metric",
)  # what they say is for a reader


@dataclass(frozen=True)
class Mutant:
    """A fault: bytes `start` to `end` of a file (below `src/accord`) become `text`.

    `lines`, first and last, are those on which it is seen to have run; a fault in a signature or outside of functions
    has those of everything that it stands in front of.
    """

    file: str
    kind: str
    start: int
    end: int
    text: str
    line: int
    lines: tuple[int, int]
    outside: bool  # of functions: it runs when the file is imported

    def apply(self, source: bytes) -> bytes:
        """The file with the fault."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def show(self, source: bytes) -> str:
        """Where and what, in one line."""
        return (
            f"{self.file}:{self.line} {self.kind}: {_flat(source[self.start : self.end].decode())} → {_flat(self.text)}"
        )


def draw(package: Path, seed: str, count: int) -> list[Mutant]:
    """`count` mutants, as many of each kind and the kinds in turn; the seed is a commit's hash."""
    drawn = []
    for kind in KINDS:
        some = [mutant for mutant in _all_of(package) if mutant.kind == kind]
        random.Random(f"{seed} {kind}").shuffle(some)
        drawn.append(mutant for mutant in some if _compiles(mutant.apply((package / mutant.file).read_bytes())))
    return [mutant for turn in itertools.islice(zip(*drawn, strict=False), -(-count // len(KINDS))) for mutant in turn][
        :count
    ]


@functools.cache
def _all_of(package: Path) -> tuple[Mutant, ...]:
    files = sorted(path for room in ROOMS for path in (package / room).rglob("*.py"))
    return tuple(found for path in files for found in mutants(path.read_bytes(), path.relative_to(package).as_posix()))


def mutants(source: bytes, file: str) -> list[Mutant]:
    """Every fault of a file, in its order; a few leave no Python."""
    return list(_Finder(source, file).walk(ast.parse(source), None, set()))


class _Finder:
    def __init__(self, source: bytes, file: str) -> None:
        self.source, self.file, self.depth = source, file, 0
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def walk(self, node: ast.AST, home: tuple[int, int] | None, seen: set[str]) -> Iterator[Mutant]:
        """Faults of a node and of what is in it; `home`: the lines of its statement; `seen`: the names bound so far."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = (node.body[0].lineno, node.body[-1].end_lineno or 0)
            for default in [*node.args.defaults, *node.args.kw_defaults, *node.decorator_list]:
                if default is not None:
                    yield from self.walk(default, body, seen)
            names = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            self.depth += 1
            yield from self.block(node.body, names, inside=True)
            self.depth -= 1
        elif isinstance(node, ast.ClassDef | ast.Module):
            everything = (1, len(self.starts)) if isinstance(node, ast.Module) else (node.lineno, node.end_lineno or 0)
            for child in node.body:
                yield from self.walk(child, everything, seen)
        elif isinstance(node, ast.stmt):
            yield from self.statement(node, home, seen)
        elif isinstance(node, ast.expr | ast.comprehension | ast.keyword | ast.ExceptHandler | ast.match_case):
            yield from self.expression(node, home, seen)
        elif isinstance(node, ast.withitem):
            yield from self.walk(node.context_expr, home, seen)

    def block(self, body: list[ast.stmt], seen: set[str], *, inside: bool) -> Iterator[Mutant]:
        for place, node in enumerate(body):
            if inside and _may_go(node, seen, last=place == len(body) - 1):
                lines = (node.lineno, node.end_lineno or 0)
                yield self.mutant("line", node, "pass", lines)
            yield from self.walk(node, None, seen)
            seen |= _bound(node)

    def statement(self, node: ast.stmt, home: tuple[int, int] | None, seen: set[str]) -> Iterator[Mutant]:
        blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(node, "handlers", [])]
        blocks += [case.body for case in getattr(node, "cases", [])]
        first = min((block[0].lineno for block in blocks if block), default=(node.end_lineno or 0) + 1)
        own = home or (node.lineno, max(node.lineno, first - 1))
        if isinstance(node, ast.If) and "__name__" in _names(node.test):  # what only a file run by itself does
            return
        if _is_text(node) or isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Raise):
            return
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "body", "orelse", "finalbody", "handlers", "cases"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self.walk(child, own, seen)
        if isinstance(node, ast.AugAssign):
            yield self.mutant("term", node, f"{self.text(node.target)} = {self.text(node.value)}", own)
        for block in blocks:
            yield from self.block(block, seen, inside=home is None)

    def expression(self, node: ast.AST, home: tuple[int, int] | None, seen: set[str]) -> Iterator[Mutant]:
        assert home is not None
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Call) and _called(node) in SPOKEN):
            return
        if isinstance(node, ast.keyword) and node.arg == "description":
            return
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = self.text(node.left), self.text(node.comparators[0])
            yield self.mutant("comparison", node, f"{left} {TURNED[type(node.ops[0])]} {right}", home)
        if isinstance(node, ast.BinOp) and not any(_is_words(s) or _is_type(s) for s in (node.left, node.right)):
            for side in (node.left, node.right):
                if not (
                    side is node.right and isinstance(node.op, ast.Sub | ast.Div | ast.FloorDiv | ast.Mod | ast.Pow)
                ):
                    yield self.mutant("term", node, f"({self.text(side)})", home)
        if isinstance(node, ast.BoolOp):
            word = " and " if isinstance(node.op, ast.And) else " or "
            for gone in node.values:
                rest = word.join(self.text(value) for value in node.values if value is not gone)
                yield self.mutant("term", node, f"({rest})", home)
        if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
            yield self.mutant("term", node, f"({self.text(node.operand)})", home)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield self.mutant("constant", node, _moved(node.value), home)
        if isinstance(node, ast.Call) and _called(node) not in EITHER_WAY:
            for one, other in pairwise(node.args):
                if ast.dump(one) != ast.dump(other) and not isinstance(other, ast.Starred | ast.GeneratorExp):
                    start, end = self.place(one)[0], self.place(other)[1]
                    between = self.source[self.place(one)[1] : self.place(other)[0]].decode()
                    text = self.text(other) + between + self.text(one)
                    yield Mutant(self.file, "arguments", start, end, text, one.lineno, home, self.depth == 0)
        for child in ast.iter_child_nodes(node):
            yield from self.walk(child, home, seen)

    def place(self, node: ast.AST) -> tuple[int, int]:
        begin = self.starts[node.lineno - 1] + node.col_offset
        return begin, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        start, end = self.place(node)
        return self.source[start:end].decode()

    def mutant(self, kind: str, node: ast.AST, text: str, lines: tuple[int, int]) -> Mutant:
        return Mutant(self.file, kind, *self.place(node), text, node.lineno, lines, self.depth == 0)


def _may_go(node: ast.stmt, seen: set[str], *, last: bool) -> bool:
    """Whether code without this statement still runs as a rule: nothing is then unknown by name."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call) and _called(node.value) not in SPOKEN
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(isinstance(t, ast.Subscript | ast.Attribute) or _names(t) <= seen for t in targets)
    return isinstance(node, ast.Raise | ast.Continue | ast.Break) or (isinstance(node, ast.Return) and not last)


def _bound(node: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _names(node: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} or {""}


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_words(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    if isinstance(node, ast.Constant):
        return node.value is None
    return isinstance(node, ast.Name) and node.id[:1].isupper() and not node.id.isupper()


def _moved(value: bool | int | float) -> str:
    if isinstance(value, bool | int):
        return repr(not value) if isinstance(value, bool) else repr(value + 1)
    return repr(1.5 * value if value else 1.0)


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _flat(text: str) -> str:
    return " ".join(text.split())
