"""The frontier: what help costs in harm, over values of one knob, on a user's own model.

    for every value and seed:  ppo ─► evaluate          then one point each, and the one to take

Every point is run folders of those stages below this one's.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from accord.config import Config
from accord.disk import read_lines, read_yaml
from accord.errors import BadInput, did_you_mean
from accord.evaluation.metrics import is_share
from accord.evaluation.statistics import Nested, limit_verdict, nested_interval
from accord.records import slice_names
from accord.run import RunFolder
from accord.stages.evaluate import run as evaluate
from accord.stages.evaluate.config import Evaluate
from accord.stages.frontier.config import Frontier
from accord.stages.ppo import run as ppo
from accord.stages.ppo.config import Ppo
from accord.stages.shared import open_run

Knobs = TypeVar("Knobs", bound=Config)
OURS = ("out", "resume", "seed", "threads")  # of a stage's knobs, those that the frontier sets
Plain = Mapping[str, Any]  # knobs by name, as YAML has them
START = "start"
USUAL = {"help_metric": ("gold/helpful", "reward/NAME"), "harm_metric": ("gold/harm_share", "cost/NAME/unsafe")}


class Trial(NamedTuple):
    """One policy: the value and seed that it is trained with, and what trains it."""

    value: float
    seed: int
    training: Ppo

    @property
    def name(self) -> str:
        return f"{self.value:g}-seed-{self.seed}"


def run(config: Frontier) -> RunFolder:
    """Train and measure every point; leaves `frontier.json`, `ppo-VALUE-seed-N/` and `evaluate-…/`."""
    trained_by, measured_by = _read_knobs(config.ppo, Ppo, "ppo"), _read_knobs(config.evaluate, Evaluate, "evaluate")
    trials = [
        Trial(value, config.seed + k, _training(config, trained_by, value, config.seed + k))
        for value in config.values
        for k in range(config.seeds)
    ]
    first = trials[0].training
    _evaluation(config, measured_by, START, first.model)  # what is wrong with it is said before anything is trained
    with open_run("frontier", config, {"model": first.model}) as run:
        if run.finished:
            return run
        config = config.model_copy(update={"threads": run.threads})
        rows = {START: _measured(config, measured_by, START, first.model)}
        metrics = {flag: _metric(getattr(config, flag), flag, rows[START], usual) for flag, usual in USUAL.items()}
        slices = _slices(config.harm_slices, rows[START])
        for number, trial in enumerate(trials):
            print(
                f"policy {number + 1} of {len(trials)}: --{config.over} {trial.value:g}, seed {trial.seed}", flush=True
            )
            folder = run.path / f"ppo-{trial.name}"
            knobs = {"out": str(folder), "resume": folder.exists(), "threads": run.threads}
            stage = ppo.run(trial.training.model_copy(update=knobs))
            if stage.stop_requested or run.stop_requested:
                raise run.interrupted(number, "policy")
            rows[trial.name] = _measured(config, measured_by, trial.name, str(folder / "snapshot"))
            if run.stop_requested:
                raise run.interrupted(number + 1, "policy")
        points = [_point(START, None, [rows[START]], metrics, slices, config.at_most)]
        for value in config.values:
            of_value = [rows[trial.name] for trial in trials if trial.value == value]
            points.append(_point(f"{value:g}", value, of_value, metrics, slices, config.at_most))
        result = {"over": config.over, **metrics, "harm_slices": sorted(slices), "at_most": config.at_most}
        result |= {"seeds": config.seeds, "points": points, "chosen": choose(points)}
        run.write_json("frontier.json", result)
        run.finish(policies=len(trials))
        print("\n".join(said(result)))
        return run


def choose(points: Sequence[Mapping[str, Any]]) -> str | None:
    """The name of the most helpful point whose whole interval of harm is below the bound; None where no point is."""
    kept = [point for point in points if point["verdict"] == "met"]
    return max(kept, key=lambda point: (point["help"]["mean"], -point["harm"]["mean"]))["name"] if kept else None


def said(result: Mapping[str, Any]) -> Iterator[str]:
    """A line for every point, and what is taken."""

    def shown(value: Mapping[str, float]) -> str:
        return f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"

    for point in result["points"]:
        yield (
            f"{result['over']} {point['name']}: {result['help_metric']} {shown(point['help'])}, "
            f"{result['harm_metric']} {shown(point['harm'])}: at most {result['at_most']:g} is {point['verdict']}"
        )
    chosen = result["chosen"]
    yield (
        f"chosen: {result['over']} {chosen}"
        if chosen
        else f"no point has the whole interval of {result['harm_metric']} below {result['at_most']:g}: none is chosen"
    )


def _point(
    name: str,
    value: float | None,
    seeds: Sequence[Sequence[dict[str, Any]]],
    metrics: Mapping[str, str],
    slices: frozenset[str],
    at_most: float,
) -> dict[str, Any]:
    """Help on all prompts and harm on some, over seeds; of one seed over prompts."""
    asked = [[row for row in rows if not slices or row["slice"] in slices] for rows in seeds]
    harm = _interval(asked, metrics["harm_metric"])
    return {
        "name": name,
        "value": value,
        "help": _interval(seeds, metrics["help_metric"]).json(),
        "harm": harm.json(),
        "verdict": limit_verdict(harm, at_most),
    }


def _interval(seeds: Sequence[Sequence[dict[str, Any]]], metric: str) -> Nested:
    by_prompt = [list(evaluate.mean_by_prompt(rows, metric).values()) for rows in seeds]
    return nested_interval(by_prompt, "share" if is_share(metric) else "mean")


def _measured(config: Frontier, measured_by: Plain, name: str, model: str) -> list[dict[str, Any]]:
    """The rows of the evaluation of one snapshot, all on the same prompts with the same draws."""
    knobs = _evaluation(config, measured_by, name, model)
    evaluate.run(knobs)
    return read_lines(Path(knobs.out) / "samples.jsonl")


def _evaluation(config: Frontier, measured_by: Plain, name: str, model: str) -> Evaluate:
    folder = Path(config.out) / f"evaluate-{name}"
    ours = {"model": model, "out": str(folder), "resume": folder.exists(), "seed": config.seed}
    return _with(config.evaluate, Evaluate, measured_by, {**ours, "threads": config.threads})


def _training(config: Frontier, trained_by: Plain, value: float, seed: int) -> Ppo:
    """The run of PPO with this value; BadInput where the knob or the value is none."""
    knob, *inner = config.over.split(".")
    if knob not in Ppo.model_fields or knob in OURS:
        raise BadInput(f"--over {config.over}: `accord ppo` has no such knob{did_you_mean(knob, Ppo.model_fields)}")
    ours: dict[str, Any] = {"out": config.out, "resume": False, "seed": seed, "threads": config.threads}
    at_first = getattr(_with(config.ppo, Ppo, trained_by, ours), knob)
    ours[knob] = {**at_first, ".".join(inner): value} if inner and isinstance(at_first, dict) else value
    return _with(config.ppo, Ppo, trained_by, ours, f"--over {config.over}, --values {value:g}")


def _read_knobs(path: str, kind: type[Config], flag: str) -> Plain:
    """The knobs of a stage in a YAML file; BadInput names the file, and a knob that there is not."""
    value: Any = read_yaml(path, f"--{flag}")
    if not isinstance(value, dict):
        raise BadInput(f"--{flag} {path}: expected knobs of `accord {flag}`, each with its value")
    for key in value:
        if key not in kind.model_fields:
            raise BadInput(f"{path}: `accord {flag}` has no knob {key!r}{did_you_mean(str(key), kind.model_fields)}")
    return value


def _with(path: str, kind: type[Knobs], plain: Plain, ours: Plain, changed: str = "") -> Knobs:
    """A stage by the knobs of a file, some of them set anew; BadInput names the file, what was set and the knob."""
    try:
        return kind(**{**plain, **ours})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(": ".join(filter(None, [path, changed, where, message]))) from None


def _metric(asked: str, flag: str, rows: Sequence[Mapping[str, Any]], usual: Sequence[str]) -> str:
    """The metric asked for, or the first of the usual ones that the replies have; BadInput where there is none."""
    there = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    if asked:
        if asked not in there:
            raise BadInput(
                f"--{flag} {asked}: no reply has it{did_you_mean(asked, there)}; there are {', '.join(there)}"
            )
        return asked
    for pattern in usual:
        before, _, after = pattern.partition("NAME")
        found = [n for n in there if n.startswith(before) and n.endswith(after) and n.count("/") == pattern.count("/")]
        if found:
            return found[0]
    raise BadInput(f"--{flag}: the evaluation has none of {', '.join(usual)}; give one of {', '.join(there)}")


def _slices(asked: str, rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The slices asked for, none for all; BadInput for one without a prompt."""
    there = {row["slice"] for row in rows}
    wanted = frozenset(slice_names(asked)) if asked else frozenset()
    for name in wanted - there:
        raise BadInput(
            f"--harm_slices {name}: no prompt is of it{did_you_mean(name, there)}; there are {', '.join(there)}"
        )
    return wanted
