"""Processes that run stages: several side by side, or one spread over all of them as ranks.

They live as long as the object, so that each imports torch once.
"""

import importlib
import math
import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from accord import processes
from accord.config import Config
from accord.lineage import available_cores

Job = tuple[str, Config]
# steps without a command of one word
ELSEWHERE = {
    "annotate": "accord.stages.online.annotate",
    "soup": "accord.claims.lab.soup",
    "oversee": "accord.claims.lab.oversee",
    "probeknowledge": "accord.stages.probe.run",
    "evaluatehonesty": "accord.stages.evaluate.honesty",
    "evaluatetasks": "accord.stages.evaluate.tasks",
}
MOST = 4  # more processes than this would be idle in most steps of a flow


class Workers:
    """Up to `MOST` processes on the cores of this machine (or on `cores` of them). Use as a context manager."""

    def __init__(self, cores: int = 0) -> None:
        self.cores = cores or available_cores()
        self.count = min(self.cores, MOST)
        self._others = set(multiprocessing.active_children())
        self._pool = processes.pool(self.count)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def run(self, jobs: Sequence[Job], until: float = math.inf) -> int:
        """Run independent stages, which share the cores unless they name their threads.

        None begins later than `until` (seconds since the epoch). Returns how many were left out for that; raises what
        the first failing one raised, when all before it have ended.
        """
        threads = max(1, self.cores // min(self.count, len(jobs)))
        futures = [self._pool.submit(_run_until, until, stage, with_threads(config, threads)) for stage, config in jobs]
        return sum(not future.result() for future in futures)

    def run_spread(self, job: Job) -> None:
        """Run one stage as ranks of one world, each with its share of the cores. Raises what a rank raised."""
        if self.count == 1:
            self.run([job])
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = with_threads(job[1], self.cores // self.count)
        futures = [self._pool.submit(_run_rank, job[0], config, rank, self.count, port) for rank in range(self.count)]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        if waiting:
            self._let_go(waiting)
        for future in done:
            future.result()

    def _let_go(self, waiting: set[Future[None]]) -> None:
        """Ranks whose peer failed would wait for it for ever, unless they fail by themselves soon."""
        if wait(waiting, timeout=10).not_done:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()


def run_stage(stage: str, config: Config) -> None:
    """Run one stage by name, in this process."""
    importlib.import_module(ELSEWHERE.get(stage, f"accord.stages.{stage}.run")).run(config)


def _run_until(until: float, stage: str, config: Config) -> bool:
    """Run one stage if there is still time to begin; whether there was."""
    if time.time() > until:
        return False
    try:
        run_stage(stage, config)
    finally:
        _leave_if_alone()
    return True


def _run_rank(stage: str, config: Config, rank: int, size: int, port: int) -> None:
    """Run a stage as one rank, by the environment that torchrun would set."""
    from accord.training import distributed

    ours = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    environment = {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in ours.items()}
    os.environ.update(environment)
    try:
        run_stage(stage, config)
    finally:
        distributed.stop()
        for name in environment:
            del os.environ[name]
        _leave_if_alone()


def _leave_if_alone() -> None:
    """Nobody waits for the answer any more, and no other job comes: a pool's worker would wait for one for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def with_threads(config: Any, threads: int) -> Any:
    """The config of a run with its share of the cores, where it asks for no number and none was decided before.

    What a stage computes depends on its threads: a cell that names them is the same wherever it runs, and a folder that
    was begun on another machine goes on with those of that one.
    """
    begun = (Path(config.out) / "config.yaml").exists()
    return config if config.threads or begun else config.model_copy(update={"threads": threads})
