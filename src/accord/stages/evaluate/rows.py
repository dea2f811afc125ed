"""What the commands that ask a snapshot questions share: a run from its folder to its gate, a row for each answer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn

from accord.config import Run
from accord.disk import read_lines
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluateBias, EvaluateHonesty, EvaluateTasks
from accord.stages.gate import Gate, decide_gate, read_gate, refuse_other_knobs, uphold
from accord.stages.shared import open_run
from accord.training import distributed
from accord.training.distributed import World
from accord.training.precision import choose_precision, lowered
from accord.training.progress import Progress

CHUNK = 256  # rows between two writes
Item = TypeVar("Item")
Row = dict[str, Any]
Questions = EvaluateTasks | EvaluateHonesty | EvaluateBias


class Opened(NamedTuple):
    """A run that asks questions, its gate, and the rows that another snapshot gave (`--against`)."""

    run: RunFolder
    world: World
    gate: Gate
    before: list[Row]


def ask_snapshot(
    command: str,
    config: Questions,
    parents: Mapping[str, str],
    knobs: Sequence[str],
    ask: Callable[[Opened], tuple[list[Row], Row]],
    tell: Callable[[Row], None],
) -> RunFolder:
    """A run of `accord {command}`: `ask` gives the rows and what they come to, `tell` says that, the gate is upheld.

    Runs are compared (`--against`) where `knobs` are alike. Leaves `evaluation.json`.
    """
    with open_run(command.replace(" ", "-"), config, parents) as run:
        if run.finished:
            return uphold(run)
        before = compared_with(config.against, command, config, knobs)
        gate = read_gate(config.gate, config.against)
        rows, found = ask(Opened(run, distributed.start(run.threads), gate, before))
        about = {"model": config.model, "against": config.against or None, "n": len(rows), "seed": config.seed}
        result = {**about, **found}
        run.write_json("evaluation.json", result)
        tell(result)
        decide_gate(gate, run, rows)
        run.finish(n=len(rows))
        return uphold(run)


def answer_all(
    run: RunFolder,
    world: World,
    model: str,
    items: Sequence[Item],
    answer: Callable[[nn.Module, Sequence[Item]], Iterable[Row]],
    unit: str,
) -> list[Row]:
    """The rows of `samples.jsonl`, one an item, of which a resumed run has the first; Interrupted after Ctrl-C.

    `model` is loaded for it, and answers in the precision of the run.
    """
    policy = load_policy(model, trainable=False).to(world.device)
    precision = run.decide("precision", lambda: choose_precision(world))
    first = run.keep_samples(1)
    progress = Progress(run.stage, len(items), unit=unit, first=first)
    with lowered(precision, world.device):
        for start in range(first, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            for row in answer(policy, chunk):
                run.add_sample(row)
            progress.update(start + len(chunk), {})
            if run.stop_requested and start + CHUNK < len(items):
                raise run.interrupted(start + len(chunk), unit)
    return read_lines(run.path / "samples.jsonl")


def ids_by_name(named: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Ids by the name that each belongs to, from (name, id)."""
    found: dict[str, set[str]] = {}
    for name, one in named:
        found.setdefault(name, set()).add(one)
    return found


def compared_with(against: str, command: str, config: Run, knobs: Sequence[str]) -> list[Row]:
    """The rows of `--against`, none where it is empty; BadInput where it is no such run, or had other such knobs."""
    if not against:
        return []
    folder = Path(against)
    if not (folder / "samples.jsonl").is_file() or not (folder / "config.yaml").is_file():
        raise BadInput(f"--against {folder}: no finished run of `accord {command}`")
    refuse_other_knobs(f"--against {folder}", folder, config, knobs)
    return read_lines(folder / "samples.jsonl")


def parents_of_runs(runs: Mapping[str, str], **more: str) -> dict[str, str]:
    """Role → folder of a command that reads run folders: `runs` by name, `more` by role where one is given."""
    return {f"run.{name}": path for name, path in runs.items()} | {role: at for role, at in more.items() if at}


def spelled(interval: Mapping[str, Any]) -> str:
    """An interval in a line; what is not known is n/a."""
    shown = ["n/a" if interval[key] is None else f"{interval[key]:.3f}" for key in ("mean", "low", "high")]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
