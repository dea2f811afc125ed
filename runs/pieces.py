"""Carries out a table of commands: python runs/pieces.py TABLE.yaml DATA_DIR [flags]; `--help` says what there is.

TABLE.yaml has `title` and `model` (a script that makes the model in a folder), `roads` (by name: `out`, `unit`, how
many of it and which pieces, in order; the first is taken unless another is asked for), `sizes` (times the number of
units, between `least` and `most`), `words` that commands share, and `pieces`. A piece is a list of steps, a step a
mapping from what it leaves in OUT to the command that leaves it; the commands of a step need nothing of each other, and
two run side by side. Blanks: {data}, {out}, {model}, {here}, {count} and what `sizes` and `words` name. A stopped run
goes on when called again.
"""

import argparse
import math
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from accord.disk import read_yaml

HERE = Path(__file__).resolve().parent
ONCE = ("data", "export", "python")  # what leaves its file whole, and refuses one that is there


class Command(NamedTuple):
    """What a command leaves in the run's folder, and the command without where to."""

    leaves: str
    words: tuple[str, ...]


def flags(table: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The flags of a table's script; the unit of its first road is the name of one."""
    first = next(iter(table["roads"].values()))
    parser = argparse.ArgumentParser(description=table["title"], allow_abbrev=False)
    parser.add_argument("data", metavar="DATA_DIR")
    parser.add_argument("--road", choices=list(table["roads"]), default=next(iter(table["roads"])))
    parser.add_argument(f"--{first['unit']}", dest="count", type=int, default=0, help="how large (default: the road's)")
    pieces = ", ".join(f"{name} ({', '.join(road['pieces'])})" for name, road in table["roads"].items())
    parser.add_argument("--piece", action="append", default=[], help=f"only this, several times for several: {pieces}")
    parser.add_argument("--model", default="", help="snapshot (default: made from the package that carries it)")
    parser.add_argument("--out", default="", help="folder (default: the road's)")
    return parser


def sizes(table: Mapping[str, Any], count: int) -> dict[str, int]:
    """Every size of the table at so many units."""
    return {
        name: max(size.get("least", 1), min(size.get("most", sys.maxsize), math.ceil(round(size["times"] * count, 6))))
        for name, size in table.get("sizes", {}).items()
    }


def planned(table: Mapping[str, Any], asked: argparse.Namespace) -> Iterator[list[Command]]:
    """The steps of the pieces that are asked for, in the table's order. SystemExit names a piece that there is not."""
    road = table["roads"][asked.road]
    if unknown := sorted(set(asked.piece) - set(road["pieces"])):
        raise SystemExit(f"--piece {unknown[0]}: the road {asked.road} has {', '.join(road['pieces'])}")
    count, out = asked.count or road["count"], asked.out or road["out"]
    places = {"data": asked.data, "out": out, "model": asked.model or f"{out}/model", "here": str(HERE)}
    blanks: dict[str, Any] = {name: shlex.quote(place) for name, place in places.items()}
    blanks |= {"count": count, **sizes(table, count)}
    for name, text in table.get("words", {}).items():
        blanks[name] = text.format(**blanks)
    for piece in asked.piece or road["pieces"]:
        for step in table["pieces"][piece]:
            yield [Command(leaves, tuple(shlex.split(line.format(**blanks)))) for leaves, line in step.items()]


def call(command: Command, out: Path, title: str, reported: Sequence[str]) -> list[str]:
    """The process that carries it out; none where what it leaves is there and whole.

    A report is of those `reported` that have come to their end.
    """
    place = out / command.leaves
    if command.words == ("report",):
        runs = [str(out / name) for name in reported if (out / name / "manifest.json").exists()]
        return ["accord", "report", *runs, "--out", str(place), "--title", title]
    if command.words[0] in ONCE and place.exists():
        return []
    if command.words[0] == "python":
        return ["python", *command.words[1:], str(place)]
    goes_on = ["--resume"] if place.is_dir() else []
    return ["accord", *command.words, "--out", str(place), *goes_on]


def stages(table: Mapping[str, Any], named: Sequence[str]) -> list[str]:
    """The run folders that these pieces leave, in their order."""
    steps = [step for piece in named for step in table["pieces"][piece]]
    return [leaves for step in steps for leaves, line in step.items() if line.split()[0] not in (*ONCE, "report")]


def main(arguments: list[str]) -> int:
    table = read_yaml(Path(arguments[0]))
    asked = flags(table).parse_args(arguments[1:])
    steps = list(planned(table, asked))
    out = Path(asked.out or table["roads"][asked.road]["out"])
    out.mkdir(parents=True, exist_ok=True)
    if not asked.model:
        subprocess.run(["python", HERE / table["model"], out / "model"], check=True)
    named = stages(table, table["roads"][asked.road]["pieces"])
    for step in steps:
        for command in step:  # `accord data` makes no folders
            (out / command.leaves).parent.mkdir(parents=True, exist_ok=True)
        calls = filter(None, [call(command, out, table["title"], named) for command in step])
        if failed := side_by_side(list(calls)):
            return failed
    return 0


def side_by_side(calls: Sequence[list[str]]) -> int:
    """Run them, two at a time; the first exit code that is not 0, after which none is begun, or 0."""
    codes: list[int] = []

    def carry_out(words: list[str]) -> None:
        if not any(codes):
            codes.append(subprocess.run(words, check=False).returncode)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(carry_out, calls))
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
