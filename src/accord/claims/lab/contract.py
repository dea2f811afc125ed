"""What a claim is, how its verdict is reached, and the page it leaves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from accord.claims.lab.cells import Cells
from accord.disk import write_text
from accord.errors import BadInput
from accord.evaluation.statistics import Interval, Nested, interval_of_seeds, seeds_to_decide

Verdict = Literal["holds", "fails", "undecided"]
FIRST_VERDICT_SEED = 1000  # seeds below are for development
ERROR = 0.05  # of a first try's intervals


@dataclass(frozen=True, slots=True)
class Part:
    """One condition of a rule: an estimate with its interval, and the bound that it is held to.

    `direction` "above" asks for the whole interval to lie above `bound`, "below" for below it.
    """

    name: str
    interval: Interval
    bound: float
    direction: Literal["above", "below"]
    level: float = 1 - ERROR

    @property
    def verdict(self) -> Verdict:
        side = self.interval.side_of(self.bound)
        return "undecided" if side == "undecided" else "holds" if side == self.direction else "fails"

    @property
    def passing(self) -> int | None:
        """How many seeds lie on the asked side by themselves: what to read where seeds fall into two heaps."""
        if not isinstance(self.interval, Nested):
            return None
        sign = 1 if self.direction == "above" else -1
        return sum(sign * (value - self.bound) > 0 for value in self.interval.values)

    @property
    def deciding_n(self) -> int | None:
        """About how many seeds would decide it if the estimate stays; of one seed, how many of its outcomes."""
        if self.verdict != "undecided" or math.isnan(self.interval.low):
            return None
        if isinstance(self.interval, Nested) and len(self.interval.values) > 1:
            return seeds_to_decide(self.interval, self.bound, self.level)
        distance = abs(self.interval.mean - self.bound)
        half = (self.interval.high - self.interval.low) / 2
        return math.ceil(self.interval.n * (half / distance) ** 2) if distance > 0 else None

    def json(self) -> dict[str, Any]:
        """The condition in NAME.json, with every seed's value: the interval and verdict can be computed again."""
        return {
            "name": self.name,
            **self.interval.json(),
            "bound": self.bound,
            "direction": self.direction,
            "verdict": self.verdict,
            "passing": self.passing,
            "deciding_n": self.deciding_n,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """What an experiment gave: the conditions, other numbers worth reading, and a figure (SVG)."""

    parts: Sequence[Part]
    notes: Sequence[str]
    figure: str


@dataclass(frozen=True, slots=True)
class Claim:
    """`statistic` and `rule` are fixed in code before any run; `measure` runs the cells and computes them."""

    name: str
    claim: str
    source: str
    statistic: str
    rule: str
    measure: Callable[[Cells, Sequence[int]], Finding]


def verdict_of(parts: Sequence[Part]) -> Verdict:
    """All conditions hold; or one fails; else undecided."""
    verdicts = {part.verdict for part in parts}
    return "fails" if "fails" in verdicts else "undecided" if "undecided" in verdicts else "holds"


def level_of(tries: int) -> float:
    """The level of the intervals of try number `tries`, from 1: every try spends half of the error of the one before.

    A first try comes out on the wrong side with a probability of 2.5 %, all tries together with less than 5 %.
    """
    return 1 - ERROR / 2 ** (tries - 1)


def at_level(part: Part, level: float) -> Part:
    """The condition with its interval, of several seeds, at another level."""
    found = part.interval
    if level == part.level or not isinstance(found, Nested):
        return replace(part, level=level)
    return replace(part, interval=interval_of_seeds(found.values, found.sizes, found.kind, level), level=level)


def earlier_tries(before: dict[str, Any] | None, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What the page tells of each try before this one, the first one first; `before` is the NAME.json that is there.

    A run of the same seeds is the same try. Development comes before the first. Raises BadInput for seeds of which an
    earlier try used some, for another try on a single seed (its interval cannot be widened: its outcomes are not kept),
    and for development where a verdict stands.
    """
    if before is None or min(before["seeds"]) < FIRST_VERDICT_SEED:
        return []
    if min(seeds) < FIRST_VERDICT_SEED:
        raise BadInput(f"a verdict on {before['name']} stands there; give --results another folder to develop")
    earlier: list[dict[str, Any]] = before.get("earlier", [])
    if list(seeds) != before["seeds"]:
        earlier = [*earlier, {key: before[key] for key in ("seeds", "value", "interval", "verdict", "config_hash")}]
    used = {seed for told in earlier for seed in told["seeds"]}
    if used & set(seeds):
        raise BadInput(
            f"seeds {', '.join(map(str, sorted(used & set(seeds))))} of {before['name']} were used by an earlier try; "
            "another takes fresh ones (--first_seed)"
        )
    if earlier and len(seeds) < 2:
        raise BadInput(f"another try of {before['name']} needs --seeds 2 or more")
    return earlier


def recomputed(result: dict[str, Any]) -> list[str]:
    """What of a NAME.json does not follow from the values of the seeds in it: intervals and verdicts, by condition.

    An interval of one seed rests on that seed's outcomes, which are not kept; its verdict is checked all the same. A
    file without seeds' values is of the old method and says so.
    """
    wrong, parts = [], []
    level = level_of(result.get("tries", 1))
    for saved in result["parts"]:
        low, high = (math.nan if saved[end] is None else saved[end] for end in ("low", "high"))
        interval = Interval(math.nan if saved["mean"] is None else saved["mean"], low, high, saved["n"])
        if "values" not in saved and saved["n"]:
            wrong.append(f"{saved['name']}: no values of seeds (the interval is of the old method)")
        elif len(saved.get("values", ())) > 1:
            values = [math.nan if value is None else value for value in saved["values"]]
            interval = interval_of_seeds(values, saved["sizes"], saved["kind"], level)
            if not np.allclose([interval.low, interval.high], [low, high], rtol=1e-9, atol=1e-12, equal_nan=True):
                wrong.append(f"{saved['name']}: [{interval.low}, {interval.high}] and not [{low}, {high}]")
        parts.append(Part(saved["name"], interval, saved["bound"], saved["direction"], level))
        if parts[-1].verdict != saved["verdict"]:
            wrong.append(f"{saved['name']}: {parts[-1].verdict} and not {saved['verdict']}")
    if verdict_of(parts) != result["verdict"]:
        wrong.append(f"the whole: {verdict_of(parts)} and not {result['verdict']}")
    return wrong


def write_results(folder: Path, result: dict[str, Any], figure: str) -> None:
    """Write NAME.json, NAME.svg and the page NAME.md from a result."""
    import json

    name = result["name"]
    write_text(folder / f"{name}.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / f"{name}.svg", figure)
    rows = [_row(part) for part in result["parts"]]
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    kind = "verdict" if min(result["seeds"]) >= FIRST_VERDICT_SEED else "development"
    level = 100 * level_of(result["tries"])
    lines = [
        f"# Claim `{name}`: {result['verdict']}",
        "",
        f"> {result['claim']} ({result['source']})",
        "",
        f"**Statistic.** {result['statistic']}",
        "",
        f"**Rule.** {result['rule']}",
        "",
        *_told(result),
        f"| condition | estimate | {level:g} % interval | asked | seeds that pass | n | verdict |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"![{name}]({name}.svg)",
        "",
        *(f"- {note}" for note in result["notes"]),
        "",
        f"Scale {result['scale']}, {kind} seeds {seeds}; config hash `{result['config_hash']}`, "
        f"world {result['world']}; "
        f"{result['seconds']:.0f} s of cells. Generated by `accord claims {name} --scale {result['scale']} "
        f"--seeds {len(result['seeds'])} --first_seed {min(result['seeds'])}`.",
        "",
    ]
    write_text(folder / f"{name}.md", "\n".join(lines))


def _told(result: dict[str, Any]) -> list[str]:
    """What a page says of the tries before."""
    if not result["earlier"]:
        return []
    tries = [
        f"- seeds {', '.join(map(str, told['seeds']))}: {told['verdict']}, {_number(told['value'])} "
        f"[{', '.join(map(_number, told['interval']))}] (config hash `{told['config_hash']}`)"
        for told in result["earlier"]
    ]
    return [f"**Try {result['tries']}**, on fresh seeds and at a wider interval. Before it:", "", *tries, ""]


def _row(part: dict[str, Any]) -> str:
    interval = f"[{_number(part['low'])}, {_number(part['high'])}]"
    seeds = len(part.get("values") or [])
    what = "seeds" if seeds > 1 else "outcomes"
    verdict = part["verdict"] + (f" (about {part['deciding_n']} {what} would decide)" if part["deciding_n"] else "")
    asked = f"{part['direction']} {part['bound']:g}"
    passing = "n/a" if part["passing"] is None else f"{part['passing']} of {seeds}"
    return f"| {part['name']} | {_number(part['mean'])} | {interval} | {asked} | {passing} | {part['n']} | {verdict} |"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
