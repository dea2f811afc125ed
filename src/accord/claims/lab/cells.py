"""Cells: run folders addressed by the hash of their config, shared between claims, two at a time on one thread each."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.claims.lab.workers import Workers
from accord.config import Config, to_plain
from accord.disk import read_json
from accord.run import config_hash, settled


class OutOfTime(Exception):
    """Cells were left for another call."""


class Cells:
    """Runs stages of the gold flow below one folder and remembers what they cost.

    No stage begins later than `until` (seconds since the epoch); OutOfTime is raised where one is left for that.
    """

    def __init__(self, root: Path, scale: str, until: float = math.inf) -> None:
        self.root = root
        self.scale = scale
        self.until = until
        self.used: dict[str, str] = {}

    def flow(self, seed: int) -> GoldFlow:
        """The gold flow of a seed; its folder carries the hash of everything that the base stages depend on."""
        from accord.world import world_hash

        probe = GoldFlow(Path("."), SCALES[self.scale], seed, False, 1)
        base = [
            probe.pretrain(),
            probe.sft(),
            *probe.samples(),
            *probe.annotations(),
            probe.helpful(),
            probe.harmless(),
        ]
        digest = hashlib.sha256(json.dumps([world_hash(), *map(config_hash, base)]).encode()).hexdigest()[:12]
        return GoldFlow(self.root / f"gold-{self.scale}-{seed}-{digest}", SCALES[self.scale], seed, True, 1)

    def tuned(self, seeds: Sequence[int]) -> list[GoldFlow]:
        """Flows up to the fine-tuned model, for every seed."""
        flows = [self.flow(seed) for seed in seeds]
        for stage in ("pretrain", "sft"):
            self.run([getattr(flow, stage)() for flow in flows])
        return flows

    def base(self, seeds: Sequence[int]) -> list[GoldFlow]:
        """Flows with everything before policy optimisation done, for every seed."""
        flows = self.tuned(seeds)
        self.run([config for flow in flows for config in flow.samples()])
        self.run([config for flow in flows for config in flow.annotations()])
        self.run([config for flow in flows for config in (flow.helpful(), flow.harmless())])
        return flows

    def run(self, configs: Sequence[Config]) -> None:
        """Run what is not finished yet, side by side."""
        missing = [config for config in configs if not self._finished(config)]
        if missing:
            with Workers() as workers:
                jobs = [(type(config).__name__.lower(), config) for config in missing]
                if left := workers.run(jobs, self.until):
                    raise OutOfTime(f"{left} of {len(configs)} cells of a step are left")
        for config in configs:
            self.used[config.out] = config_hash(self._portable(config))  # type: ignore[attr-defined]

    def _portable(self, config: Config) -> Config:
        """The config with its paths counted from the root: where cells lie is no part of what they are."""
        plain = json.dumps(to_plain(config)).replace(json.dumps(str(self.root))[1:-1] + "/", "")
        return type(config)(**json.loads(plain))

    def _finished(self, config: Config) -> bool:
        """Whether the folder holds a finished run of exactly this config.

        One of another config is left to the stage, which refuses it: an old number must not stand for a new recipe.
        """
        folder = Path(config.out)  # type: ignore[attr-defined]
        wanted = config_hash(settled(config))
        return (folder / "manifest.json").exists() and _lineage(str(folder))["config_hash"] == wanted

    def hash(self) -> str:
        """16 hex digits over the configs of every cell that was used."""
        relative = {Path(k).relative_to(self.root).as_posix(): v for k, v in self.used.items()}
        return hashlib.sha256(json.dumps(relative, sort_keys=True).encode()).hexdigest()[:16]

    def seconds(self) -> float:
        """Seconds that the used cells took when they ran."""
        return sum(float(_lineage(folder)["seconds"]) for folder in self.used)


def _lineage(folder: str) -> dict[str, Any]:
    lineage: dict[str, Any] = read_json(Path(folder) / "lineage.json")
    return lineage
