"""Where a round's steps work: its folder, its prompts, the snapshots before it, and how stages are called from it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from accord.data.rows import write_records
from accord.data.sources import read_prompts
from accord.errors import BadInput
from accord.evaluation.gate import GateBound
from accord.evaluation.promotion import comparisons_needed, one_sided
from accord.records import SPLITS, Prompt
from accord.run import RunFolder
from accord.stages.gate import Gate
from accord.stages.online.bounds import in_round, on_wins
from accord.stages.online.config import Online
from accord.stages.online.states import Ledger
from accord.stages.shared import load_all
from accord.training.order import epoch_order

FIRST = "first"  # the snapshot that the rounds began from, and what is measured of it


@dataclass(frozen=True)
class PromptsByUse:
    """What each use may ask: of every round its own to label and to judge, one set to evaluate all on, and those that
    PPO draws from."""

    labelled: Sequence[Sequence[Prompt]]
    judged: Sequence[Sequence[Prompt]]
    evaluated: Sequence[Prompt]
    optimised: Sequence[Prompt]


@dataclass
class Place:
    """One round. `stopped` says that a stage was asked to stop and had ended by then."""

    config: Online
    run: RunFolder
    ledger: Ledger
    gate: Gate
    prompts: PromptsByUse
    number: int
    incumbent: str
    stopped: bool = False

    @cached_property
    def folder(self) -> Path:
        """Of this round."""
        found = self.run.path / f"round-{self.number}"
        found.mkdir(exist_ok=True)
        return found

    @property
    def candidate(self) -> str:
        """The snapshot that this round trains."""
        return str(self.folder / self.config.policy / "snapshot")

    @property
    def labels_of(self) -> Path:
        """The folder of this round's labels."""
        return labels_folder(self.run.path, self.number)

    def common(self, *parts: str, seed: int = 0) -> dict[str, Any]:
        """Knobs that every stage has, for a run folder below this round's."""
        return self.below(self.folder.joinpath(*parts), seed)

    def below(self, out: Path, seed: int = 0) -> dict[str, Any]:
        """The same for any folder; what is there already is gone on with."""
        shared = {"seed": self.config.seed + seed, "threads": self.config.threads}
        return {"out": str(out), "resume": out.exists(), **shared}

    def ended(self, stage: RunFolder) -> RunFolder:
        """The stage; one that was at its last step when Ctrl-C came ends well, and the rounds still stop."""
        self.stopped |= stage.stop_requested
        return stage

    def shown(self, where: str | Path) -> str:
        """A path as `rounds.json` has it: from the run folder on, if it lies there."""
        inside = os.path.relpath(where, self.run.path)
        return str(where) if inside.startswith("..") else Path(inside).as_posix()


def labels_folder(run: Path, number: int) -> Path:
    """Where the labels of a round are."""
    return run / f"round-{number}" / "annotate"


def share_out(config: Online, run: RunFolder, gate: Gate) -> PromptsByUse:
    """The prompts by what they are for. Raises BadInput, with the numbers, where they are too few."""
    found: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
    prompts = list({prompt.id: prompt for prompt in found}.values())
    if not config.divides:
        return PromptsByUse(_labelled(config, _in_turn(prompts, config.seed), "--data has"), (), (), ())
    by_split = {name: _in_turn([p for p in prompts if p.split == name], config.seed) for name in SPLITS}
    labelled = _labelled(config, by_split["preference"], "--data has in split preference")
    if config.policy == "ppo" and not by_split["policy"]:
        raise BadInput("--data has no prompt in split policy, which --policy ppo draws from; give more data")
    fresh = by_split["evaluation"]
    count = judge_prompts(config, gate) if gate.bounds else 0
    needed = config.eval_prompts + config.rounds * count if gate.bounds else 0
    if len(fresh) < needed:
        raise BadInput(
            f"--eval_prompts {config.eval_prompts}, and {count} fresh ones to judge on in each of {config.rounds} "
            f"rounds, need {needed} of split evaluation and --data has {len(fresh)}; give more data, or set "
            "--judge_prompts"
        )
    evaluated, rest = fresh[: config.eval_prompts], fresh[config.eval_prompts :]
    judged = [rest[k * count : (k + 1) * count] for k in range(config.rounds)]
    return PromptsByUse(labelled, judged, evaluated, by_split["policy"])


def judge_prompts(config: Online, gate: Gate) -> int:
    """How many prompts a round's candidate and incumbent meet on: as asked for, or what --detect needs at the
    confidence that the strictest bound on wins has in a round."""
    if config.judge_prompts:
        return config.judge_prompts
    return max(needed_of(config, in_round(config, bound, config.rounds)) for bound in on_wins(gate))


def needed_of(config: Online, bound: GateBound) -> int:
    """Comparisons that a bound on the win rate needs to be met by a candidate that wins as often as --detect says."""
    against = min(bound.limit, config.detect - 0.01)
    return comparisons_needed(config.detect, confidence=one_sided(bound), against=against)


def _labelled(config: Online, prompts: Sequence[Prompt], have: str) -> list[Sequence[Prompt]]:
    needed = config.rounds * config.prompts
    if len(prompts) < needed:
        raise BadInput(
            f"{config.rounds} rounds of {config.prompts} prompts need {needed} different ones and {have} "
            f"{len(prompts)}; give more data, or lower --rounds or --prompts"
        )
    return [prompts[k * config.prompts : (k + 1) * config.prompts] for k in range(config.rounds)]


def _in_turn(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    return [prompts[i] for i in epoch_order(len(prompts), seed, 0)] if prompts else []


def keep_prompts(path: Path, prompts: Sequence[Prompt]) -> str:
    """Write prompts as a source, the same bytes each time; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, prompts)
    return str(path)


def sources_of(places: Mapping[int, Path], file: str) -> dict[str, str]:
    """The files of one name in the label folders of rounds, as sources named for their rounds."""
    return {f"round-{number}": str(folder / file) for number, folder in places.items() if (folder / file).is_file()}
