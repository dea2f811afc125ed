"""What a report reads of a run folder: whatever is there, with the hash of every file that was read."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accord.disk import read_json, read_lines, read_yaml
from accord.errors import BadInput
from accord.evaluation.statistics import Interval
from accord.lineage import hash_file

Row = dict[str, Any]

# Order of the flow: snapshots are shown in it, whatever order the folders were named in.
FLOW = ("pretrain", "sft", "constitution", "dpo", "ppo")
LOGS = ("metrics.jsonl", "samples.jsonl")
MEASURED = (
    "evaluation.json",
    "ratings.json",
    "refusals.json",
    "gate.json",
    "frontier.json",
    "redteam.json",
    "rounds.json",
)
AT_WORK = ("revisions.json", "watch.json", "calibration.json", "steering.json", "checks.json")  # of a constitution
FILES = ("config.yaml", "lineage.json", *LOGS, *MEASURED, *AT_WORK, "manifest.json")


@dataclass(frozen=True)
class RunData:
    """One run folder. What the stage did not leave is empty; `hashes` has every file that was read.

    `changed` names files whose hash is not the manifest's: they were changed after the run.
    """

    path: Path
    name: str
    stage: str
    config: Row = field(default_factory=dict)
    lineage: Row = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    evaluation: Row = field(default_factory=dict)
    ratings: Row = field(default_factory=dict)
    refusals: Row = field(default_factory=dict)
    gate: Row = field(default_factory=dict)
    frontier: Row = field(default_factory=dict)
    rounds: Row = field(default_factory=dict)
    redteam: Row = field(default_factory=dict)
    revisions: list[Row] = field(default_factory=list)
    watch: Row = field(default_factory=dict)
    calibration: Row = field(default_factory=dict)
    steering: Row = field(default_factory=dict)
    checks: Row = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    finished: bool = False

    def series(self, metric: str, over: str = "step") -> tuple[list[float], list[float]]:
        """The rows that have `metric`, as (x, y); what is null or not finite is NaN."""
        rows = [row for row in self.metrics if metric in row]
        return [number(row.get(over)) for row in rows], [number(row[metric]) for row in rows]

    def names(self, prefix: str, suffix: str = "") -> list[str]:
        """NAMEs for which prefix + NAME + suffix was logged, in order of appearance; NAME has no slash."""
        found: dict[str, None] = {}
        for row in self.metrics:
            for key in row:
                name = key[len(prefix) : len(key) - len(suffix)]
                if key.startswith(prefix) and key.endswith(suffix) and name and "/" not in name:
                    found[name] = None
        return list(found)

    @property
    def slices(self) -> dict[str, Row]:
        """evaluation.json's numbers by slice."""
        slices: dict[str, Row] = self.evaluation.get("slices") or {}
        return slices

    def value(self, slice_: str, metric: str) -> Interval | None:
        """A metric of one slice; None if it was not measured there."""
        return interval(self.slices.get(slice_, {}).get(metric))


def load_run(path: Path | str) -> RunData:
    """Read a run folder; what is missing is left out.

    Raises BadInput that names the file, and the line, of what is broken, and for a folder with nothing to
    read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such run folder; give folders that a stage has written")
    present = [name for name in FILES if (folder / name).is_file()]
    if not present:
        raise BadInput(f"{folder}: not a run folder, it has none of {', '.join(FILES)}; give one that a stage wrote")
    hashes = {name: hash_file(folder / name) for name in present}
    config = _mapping(folder / "config.yaml")
    lineage = _mapping(folder / "lineage.json")
    evaluation = _mapping(folder / "evaluation.json")
    manifest = _mapping(folder / "manifest.json")
    _check_evaluation(folder / "evaluation.json", evaluation)
    return RunData(
        path=folder,
        name=folder.resolve().name,
        stage=str(lineage.get("stage") or _guess(evaluation, config)),
        config=config,
        lineage=lineage,
        metrics=read_lines(folder / "metrics.jsonl"),
        samples=read_lines(folder / "samples.jsonl"),
        evaluation=evaluation,
        ratings=_mapping(folder / "ratings.json"),
        refusals=_mapping(folder / "refusals.json"),
        gate=_mapping(folder / "gate.json"),
        frontier=_mapping(folder / "frontier.json"),
        rounds=_mapping(folder / "rounds.json"),
        redteam=_mapping(folder / "redteam.json"),
        revisions=_steps(folder / "revisions.json"),
        watch=_mapping(folder / "watch.json"),
        calibration=_mapping(folder / "calibration.json"),
        steering=_mapping(folder / "steering.json"),
        checks=_mapping(folder / "checks.json"),
        hashes=hashes,
        changed=tuple(name for name, found in hashes.items() if name in manifest and manifest[name] != found),
        finished="manifest.json" in present,
    )


def runs_below(run: RunData) -> list[Path]:
    """The run folders below one of rounds or of a frontier that a report shows: evaluations, models and policies."""
    found = [run.path / "first" / "evaluate"] if run.rounds else []
    for one in run.rounds.get("rounds") or []:
        folder = run.path / f"round-{one['round']}"
        policies = (folder / str(run.rounds.get("policy")), folder / "evaluate")
        found += [*sorted((folder / "models").glob("*")), *policies]
    if run.frontier:
        found += [*sorted(run.path.glob("ppo-*")), *sorted(run.path.glob("evaluate-*"))]
    return [folder for folder in found if (folder / "lineage.json").is_file()]


def number(value: Any) -> float:
    """A logged value as a float; null, and what is no number, is NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def interval(value: Any) -> Interval | None:
    """`{"mean", "low", "high", "n"}` of an artefact; None where there is none, NaN where a part is null."""
    if not isinstance(value, Mapping) or "mean" not in value:
        return None
    n = value.get("n")
    return Interval(
        number(value["mean"]), number(value.get("low")), number(value.get("high")), n if isinstance(n, int) else 0
    )


def display_names(runs: Sequence[RunData]) -> list[str]:
    """A short name for every run: its folder's, with as many parents as it takes to tell them apart.

    Never the whole path: a report may be passed on, and does not say where on a disk it was made.
    """
    parts = [run.path.resolve().parts for run in runs]
    names = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts) > 1:
            depth += 1
        names.append("/".join(own[-depth:]))
    return names


def measured_run(evaluation: RunData, runs: Sequence[RunData]) -> RunData | None:
    """The run whose snapshot an evaluation measured, if it is among the runs."""
    model = str(evaluation.evaluation.get("model") or evaluation.config.get("model") or "")
    if not model:
        return None
    wanted = _snapshot_of(Path(model))
    return next((run for run in runs if run is not evaluation and _snapshot_of(run.path) == wanted), None)


def measured_start(evaluation: RunData, runs: Sequence[RunData]) -> bool:
    """Whether an evaluation measured what some run here was trained from, though nobody here trained that."""
    return bool(trained_from(evaluation, runs, FLOW))


def trained_from(evaluation: RunData, runs: Sequence[RunData], stages: Sequence[str]) -> int:
    """How many runs of these stages began with the model that an evaluation measured."""
    own = _model_hashes(evaluation)
    return sum(bool(own & _model_hashes(run)) for run in runs if run.stage in stages)


def _model_hashes(run: RunData) -> set[str]:
    parents = [p for p in run.lineage.get("parents") or [] if isinstance(p, dict) and p.get("role") == "model"]
    return {str(parent["hash"]) for parent in parents if parent.get("hash")}


def model_name(evaluation: RunData) -> str:
    """What an evaluation calls its model: the last part of the path that says something."""
    model = str(evaluation.evaluation.get("model") or "")
    name = _snapshot_of(Path(model)).name if model else ""
    return name or evaluation.name


def _snapshot_of(path: Path) -> Path:
    whole = Path(os.path.abspath(path))
    return whole.parent if whole.name == "snapshot" else whole


def _guess(evaluation: Row, config: Row) -> str:
    if "slices" in evaluation:
        return "evaluate"
    if "criterion" in evaluation or "criterion" in config:
        return "preference"
    return "ppo" if "rewards" in config else "unknown"


def _steps(path: Path) -> list[Row]:
    value = _value(path) or []
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise BadInput(f"{path}: must be a list of objects; run its stage again")
    return value


def _value(path: Path) -> Any:
    if not path.is_file():
        return None
    return read_yaml(path) if path.suffix == ".yaml" else read_json(path)


def _mapping(path: Path) -> Row:
    value = _value(path)
    if value is None and (path.suffix == ".yaml" or not path.is_file()):
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{path}: holds a {type(value).__name__} where an object belongs; run its stage again")
    return value


def _check_evaluation(path: Path, value: Row) -> None:
    slices = value.get("slices")
    if slices is not None and not (
        isinstance(slices, dict) and all(isinstance(measured, dict) for measured in slices.values())
    ):
        raise BadInput(f"{path}: 'slices' must map each slice to its numbers; evaluate the snapshot again")
    rows = value.get("rows")
    if rows is not None and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise BadInput(f"{path}: 'rows' must be a list of objects; train the preference model again")
