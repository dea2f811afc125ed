"""Carries out a table of commands: python runs/pieces.py TABLE.yaml DATA_DIR [flags]; `--help` says what there is.

TABLE.yaml has `title` and `model` (a script that makes the model in a folder), `roads` (by name: `out`, `unit`, how
many of it, which pieces in order, and how many commands run side by side, `at_once`; the first road is taken unless
another is asked for), `sizes` (times the number of units, between `least` and `most`), `words` that commands share, and
`pieces`. A piece is a mapping from what a command leaves in OUT to the command. One begins as soon as everything before
it of which it names what it leaves has ended, so no core waits for the longest of a few. Blanks: {data}, {out},
{model}, {here}, {count} and what `sizes` and `words` name. A stopped run goes on when called again.
"""

import argparse
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from accord.disk import read_yaml

HERE = Path(__file__).resolve().parent
ONCE = ("data", "export", "python")  # what leaves its file whole, and refuses one that is there


class Command(NamedTuple):
    """What a command leaves in the run's folder, the command without where to, and what others leave that it needs."""

    leaves: str
    words: tuple[str, ...]
    needs: frozenset[str]


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


def planned(table: Mapping[str, Any], asked: argparse.Namespace) -> list[Command]:
    """The commands of the pieces that are asked for, in the table's order. SystemExit names a piece there is not."""
    road = table["roads"][asked.road]
    if unknown := sorted(set(asked.piece) - set(road["pieces"])):
        raise SystemExit(f"--piece {unknown[0]}: the road {asked.road} has {', '.join(road['pieces'])}")
    count, out = asked.count or road["count"], asked.out or road["out"]
    places = {"data": asked.data, "out": out, "model": asked.model or f"{out}/model", "here": str(HERE)}
    blanks: dict[str, Any] = {name: shlex.quote(place) for name, place in places.items()}
    blanks |= {"count": count, **sizes(table, count)}
    for name, text in table.get("words", {}).items():
        blanks[name] = text.format(**blanks)
    found: list[Command] = []
    for piece in asked.piece or road["pieces"]:
        for leaves, line in table["pieces"][piece].items():
            words = tuple(shlex.split(line.format(**blanks)))
            found.append(Command(leaves, words, needed(words, out, [before.leaves for before in found])))
    return found


def needed(words: Sequence[str], out: str, before: Sequence[str]) -> frozenset[str]:
    """Which of the things that earlier commands leave these words name by their first folder; a report needs all."""
    if tuple(words) == ("report",):
        return frozenset(before)
    named = {folder for word in words for folder in re.findall(re.escape(out) + r"/([^/?]+)", word)}
    return frozenset(leaves for leaves in before if leaves.split("/")[0] in named)


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
    lines = [pair for piece in named for pair in table["pieces"][piece].items()]
    return [leaves for leaves, line in lines if line.split()[0] not in (*ONCE, "report")]


def main(arguments: list[str]) -> int:
    table = read_yaml(Path(arguments[0]))
    asked = flags(table).parse_args(arguments[1:])
    commands = planned(table, asked)
    road = table["roads"][asked.road]
    out = Path(asked.out or road["out"])
    for command in commands:  # `accord data` makes no folders
        (out / command.leaves).parent.mkdir(parents=True, exist_ok=True)
    if not asked.model:
        subprocess.run(["python", HERE / table["model"], out / "model"], check=True)
    named = stages(table, road["pieces"])

    def carry_out(command: Command) -> int:
        words = call(command, out, table["title"], named)
        return subprocess.run(words, check=False).returncode if words else 0

    return in_order(commands, road["at_once"], carry_out)


def in_order(commands: Sequence[Command], at_once: int, carry_out: Callable[[Command], int]) -> int:
    """Carry them out, so many side by side; the first exit code that is not 0, after which none is begun, or 0."""
    waiting, failed = list(commands), 0
    running: dict[Future[int], Command] = {}
    with ThreadPoolExecutor(at_once) as pool:
        while running or (waiting and not failed):
            unmade = {command.leaves for command in (*waiting, *running.values())}
            ready = [command for command in waiting if not command.needs & unmade and not failed]
            for command in ready[: at_once - len(running)]:
                waiting.remove(command)
                running[pool.submit(carry_out, command)] = command
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                del running[ended]
                failed = failed or ended.result()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
