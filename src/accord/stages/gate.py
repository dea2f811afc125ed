"""Gate files: read, checked before anything is sampled, and decided by what an evaluation has left."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.config import Config, to_plain
from accord.disk import read_json, read_lines, read_yaml
from accord.errors import BadInput, GateClosed, did_you_mean
from accord.evaluation.gate import BoundVerdict, GateBound, judge_bound
from accord.lineage import hash_file
from accord.records import slice_names
from accord.run import RunFolder
from accord.stages.leaks import known_prompts

FILE = "gate.json"
# bounds that go by these names know what they are of; any other name says its metric
KNOWN = {
    "help": ("gold/helpful", "all"),
    "unsafe": ("gold/harm_share", "harmful"),
    "over_refusal": ("gold/refusal", "look-alike"),
    "tax": ("gold/correct", "skills"),
}
ASKED = {
    "at_least": ("at least", False),
    "at_most": ("at most", False),
    "change_at_least": ("at least", True),
    "change_at_most": ("at most", True),
}
TOP_KEYS = ("bounds", "confidence", "against")
BOUND_KEYS = ("metric", "slice", "confidence", "against", *ASKED)
# knobs that two evaluations must share for a change between them to be the snapshot's
ALIKE = ("temperature", "top_p", "top_k", "min_p", "stop", "max_new_tokens", "shots")
WINS, LOSSES = "win_rate", "loss"  # of an evaluation, beside what single replies have
LOSSES_FILE = "losses.jsonl"  # rows of demonstrations, as those of replies stand in samples.jsonl
ROLES = {"reward": "rewards", "cost": "costs"}  # first part of a metric's name: the knob that names its model


@dataclass(frozen=True)
class Gate:
    """The bounds of one file; `path` is "" where there is no gate."""

    path: str
    bounds: tuple[GateBound, ...]


def read_gate(path: str, against: str = "") -> Gate:
    """The bounds of a gate file (docs/gate.md); `against` is compared with where the file names nothing.

    BadInput names the file, the key and the nearest spelling. No path gives a gate without bounds.
    """
    if not path:
        return Gate("", ())
    value = read_yaml(path, "--gate")
    top = _keys(path, "", value, TOP_KEYS)
    listed = top.get("bounds")
    if not isinstance(listed, dict) or not listed:
        raise BadInput(f"{path}: bounds: expected names with a bound each, as in docs/gate.md")
    against = _text(path, "against", top.get("against", against))
    confidence = _confidence(path, "confidence", top.get("confidence", 0.95))
    return Gate(path, tuple(_bound(path, str(name), each, confidence, against) for name, each in listed.items()))


def _bound(path: str, name: str, value: Any, confidence: float, against: str) -> GateBound:
    at = f"bounds.{name}"
    given = _keys(path, at, value, BOUND_KEYS)
    asked = [key for key in ASKED if key in given]
    if len(asked) != 1:
        what = f"has {' and '.join(asked)}" if asked else "asks nothing"
        raise BadInput(f"{path}: {at}: {what}; give one of {', '.join(ASKED)}")
    if "metric" not in given and name not in KNOWN:
        near = did_you_mean(name, KNOWN)
        raise BadInput(f"{path}: {at}.metric: missing{near}; the bounds {', '.join(KNOWN)} alone need none")
    metric, slices = KNOWN.get(name, ("", "all"))
    if given.get("metric", metric) != metric:  # another metric is of all prompts unless a slice is named
        metric, slices = _text(path, f"{at}.metric", given["metric"]), "all"
    side, of_change = ASKED[asked[0]]
    compared = _text(path, f"{at}.against", given.get("against", against)) if of_change else ""
    if of_change and not compared:
        raise BadInput(f"{path}: {at}.{asked[0]}: a change from what? give against: RUN here or at the top of the file")
    if not of_change and "against" in given:
        raise BadInput(f"{path}: {at}.against: has no effect beside {asked[0]}; ask change_{asked[0]}, or leave it out")
    return GateBound(
        name,
        metric,
        _text(path, f"{at}.slice", given.get("slice", slices)),
        "at least" if side == "at least" else "at most",
        _number(path, f"{at}.{asked[0]}", given[asked[0]]),
        _confidence(path, f"{at}.confidence", given.get("confidence", confidence)),
        compared,
    )


def _keys(path: str, at: str, value: Any, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {at or 'the file'}: expected {', '.join(known)}, each with its value")
    for key in value:
        if key not in known:
            whole = f"{at}.{key}" if at else f"{key}"
            raise BadInput(
                f"{path}: unknown key {whole!r}{did_you_mean(str(key), known)}; here stand {', '.join(known)}"
            )
    return value


def _text(path: str, at: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{path}: {at}: expected a text, not {value!r}")
    return value


def _number(path: str, at: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{path}: {at}: expected a number, not {value!r}")
    return float(value)


def _confidence(path: str, at: str, value: Any) -> float:
    found = _number(path, at, value)
    if not 0.5 <= found < 1:
        raise BadInput(f"{path}: {at}: expected a confidence from 0.5 to below 1, not {found:g}")
    return found


def check_gate(gate: Gate, run: RunFolder, metrics: Iterable[str], prompts: Mapping[str, Iterable[str]]) -> None:
    """Refuse what can be known before the first reply: metrics, slices, judges, and evaluations to compare with.

    `metrics` are those that this evaluation will have of single replies, `prompts` the ids of the prompts by slice.
    """
    known, slices = list(metrics), {"all", *prompts} - {""}
    for bound in gate.bounds:
        at = f"{gate.path}: bounds.{bound.name}"
        if bound.metric not in known:
            raise BadInput(
                f"{at}.metric: this evaluation has no {bound.metric!r} of single replies"
                f"{did_you_mean(bound.metric, known)}; it has {', '.join(known)}"
            )
        for name in slice_names(bound.slices):
            if name not in slices:
                raise BadInput(
                    f"{at}.slice: no prompt is of the slice {name!r}{did_you_mean(name, slices)}; there are "
                    f"{', '.join(sorted(slices))}"
                )
        _check_judge(bound, run, at)
        if bound.metric == WINS and bound.against:
            raise BadInput(f"{at}: a win rate compares with --against as it is; ask at_least or at_most")
        if bound.metric == WINS and not run.config.judge:
            raise BadInput(f"{at}.metric: a win by whose word? give --judge")
        if bound.against:
            ids = {i for name, part in prompts.items() if _inside(bound, name) for i in part}
            _check_compared(bound, run, at, ids)


def _inside(bound: GateBound, slice_name: str) -> bool:
    return bound.slices == "all" or slice_name in slice_names(bound.slices)


def _judge(bound: GateBound, config: Config) -> tuple[str, str]:
    """Of a bound on a model's scores the role of the model among a run's parents, and where it is; else two empty."""
    metric = getattr(config, "judge", "") if bound.metric == WINS else bound.metric
    kind, _, rest = metric.partition("/")
    name = rest.split("/")[0]
    where = getattr(config, ROLES[kind], {}).get(name, "") if kind in ROLES else ""
    return (f"{kind}.{name}", where) if where else ("", "")


def _check_judge(bound: GateBound, run: RunFolder, at: str) -> None:
    """Refuse a judge that the snapshot was optimised against, or some of whose labels it learned from."""
    role, where = _judge(bound, run.config)
    if not role:
        return
    own = read_json(run.path / "data" / "parents.json")
    labels = {row["hash"] for row in _lineage(where).get("sources", [])}
    for ancestor in _ancestors(run.config.model):
        if any(p["hash"] and p["hash"] == own[role]["hash"] for p in ancestor.get("parents", [])):
            raise BadInput(
                f"{at}.metric: {where} trained this snapshot and cannot judge it; give a model that had no part"
            )
        shared = labels & {row["hash"] for row in ancestor.get("sources", [])}
        if shared and known_prompts(where, labelled=True) & known_prompts(run.config.model):
            raise BadInput(
                f"{at}.metric: {where} learned from labels that trained this snapshot too; give a model of other labels"
            )


def _lineage(snapshot: str) -> dict[str, Any]:
    """The lineage of the run that left a snapshot; empty of a model from elsewhere."""
    file = Path(snapshot).resolve().parent / "lineage.json"
    return dict(read_json(file)) if Path(snapshot).name == "snapshot" and file.is_file() else {}


def _ancestors(snapshot: str) -> list[dict[str, Any]]:
    """Lineages of the runs that made a snapshot and everything that had a part in it, as far as they can be found."""
    found: dict[str, dict[str, Any]] = {}
    ahead = [snapshot]
    while ahead:
        where = ahead.pop()
        if where not in found:
            found[where] = _lineage(where)
            ahead += [parent["path"] for parent in found[where].get("parents", [])]
    return list(found.values())


def _check_compared(bound: GateBound, run: RunFolder, at: str, ids: set[str]) -> None:
    """Refuse an evaluation that has not measured the same metric, in the same way, on some of the same prompts."""
    folder = Path(bound.against)
    for file in (file_of(bound), "config.yaml"):
        if not (folder / file).is_file():
            raise BadInput(f"{at}.against: {folder} is no finished evaluation: it has no {file}")
    if bound.metric.endswith("/expected"):
        raise BadInput(
            f"{at}: how sure a change of {bound.metric} is cannot be said, as both sides rest on one calibration; "
            f"bound that of {bound.metric.removesuffix('expected')}unsafe"
        )
    refuse_other_knobs(f"{at}.against: {folder}", folder, run.config, ALIKE)
    role, where = _judge(bound, run.config)
    own = read_json(run.path / "data" / "parents.json")
    other = read_json(folder / "data" / "parents.json").get(role, {}) if role else {}
    if role and other.get("hash") != own[role]["hash"]:
        raise BadInput(f"{at}.against: {folder} was not judged by {where}; evaluate it with the same model")
    if bound.metric != LOSSES and not ids & scores_by_prompt(read_lines(folder / file_of(bound)), bound).keys():
        raise BadInput(
            f"{at}.against: {folder} has {bound.metric} on no prompt of {bound.slices} that is measured here"
        )


def file_of(bound: GateBound) -> str:
    """The file of a run folder whose rows have a bound's metric."""
    return LOSSES_FILE if bound.metric == LOSSES else "samples.jsonl"


def refuse_other_knobs(at: str, folder: Path, config: Config, knobs: Sequence[str]) -> None:
    """Raise BadInput where the run in `folder` had another value of one of the knobs: a change would be the knob's."""
    theirs = read_yaml(folder / "config.yaml")
    ours = to_plain(config)
    for knob in knobs:
        if knob in ours and theirs.get(knob, ours[knob]) != ours[knob]:
            raise BadInput(
                f"{at} was measured with --{knob} {theirs[knob]!r}, this is with {ours[knob]!r}; a change would be the "
                "knob's"
            )


def scores_by_prompt(rows: Sequence[Mapping[str, Any]], bound: GateBound) -> dict[str, list[float]]:
    """What rows of `samples.jsonl` hold of a bound's metric on its slices, by prompt."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"].get(bound.metric)
        if value is not None and _inside(bound, row["slice"]):
            found.setdefault(row["prompt_id"], []).append(float(value))
    return found


def decide_gate(
    gate: Gate, run: RunFolder, rows: Sequence[Mapping[str, Any]], fit_errors: Mapping[str, float] | None = None
) -> None:
    """Judge every bound by the rows of this evaluation; said aloud, and left in `gate.json`.

    `fit_errors` are those of calibrated shares, by metric.
    """
    if not gate.bounds:
        return
    found: list[BoundVerdict] = []
    written = []
    for bound in gate.bounds:
        theirs = None
        compared = {}
        if bound.against:
            file = Path(bound.against) / file_of(bound)
            theirs, compared = scores_by_prompt(read_lines(file), bound), {"against_hash": hash_file(file)}
        verdict = judge_bound(
            bound, scores_by_prompt(rows, bound), theirs, fit_error=(fit_errors or {}).get(bound.metric, 0.0)
        )
        judge = _judge(bound, run.config)[1]
        found.append(verdict)
        written.append(verdict.json() | compared | ({"judge": _measured(judge)} if judge else {}))
        print(verdict, flush=True)
    passed = all(verdict.kept == "met" for verdict in found)
    run.write_json(FILE, {"file": gate.path, "passed": passed, "bounds": written})


def _measured(judge: str) -> dict[str, Any]:
    """Where a judging model is, and how often it agreed with held-out labels, where its run says so."""
    file = Path(judge).resolve().parent / "evaluation.json"
    rows = read_json(file).get("rows") or [] if Path(judge).name == "snapshot" and file.is_file() else []
    accuracy = next((row["accuracy"] for row in rows if row.get("subset") == "all"), None)
    return {"path": judge, "accuracy": accuracy}


def uphold(run: RunFolder) -> RunFolder:
    """The run; GateClosed where it has left a gate that was not passed, now or when it was made."""
    file = run.path / FILE
    found: dict[str, Any] = read_json(file) if file.is_file() else {}
    if found and not found["passed"]:
        shut = [f"{bound['name']} ({bound['verdict']})" for bound in found["bounds"] if bound["verdict"] != "met"]
        raise GateClosed(f"refused by {found['file']}: {', '.join(shut)}; {file} has the numbers")
    return run
