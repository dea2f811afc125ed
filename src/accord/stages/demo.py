"""The demo: the whole flow on the gold world, then a report on what it showed.

    pretrain → sft → sample → simulated people → helpful model, cost model → PPO, PPO with a limit → evaluate → report

Stages that do not depend on each other run side by side, one thread each.
"""

import importlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from accord.config import Config, Demo
from accord.run import RunFolder
from accord.stages.recipes import SCALES, GoldFlow
from accord.stages.showing import findings

STAGES = ("pretrain", "sft", "ppo", "limited")


def run(config: Demo) -> RunFolder:
    """Run the flow and write `report.html`; prints what it showed."""
    began = time.monotonic()
    with RunFolder("demo", config) as run:
        flow = GoldFlow(run.path, SCALES[config.scale], config.seed, config.resume, config.threads)
        steps: list[tuple[str, list[tuple[str, Config]]]] = [
            ("pretrain on the corpus", [("pretrain", flow.pretrain())]),
            ("fine-tune on demonstrations", [("sft", flow.sft())]),
            ("sample two replies per prompt", [("sample", flow.sample())]),
            ("simulated people compare and judge", [("annotate", flow.annotate())]),
            (
                "learn a helpful preference model and a harmless cost model",
                [("preference", flow.helpful()), ("preference", flow.harmless())],
            ),
            ("PPO on helpfulness, and with a limit on harm", [("ppo", flow.ppo()), ("ppo", flow.limited())]),
            ("evaluate every snapshot", [("evaluate", flow.evaluate(name)) for name in STAGES]),
        ]
        for number, (title, jobs) in enumerate(steps, 1):
            started = time.monotonic()
            print(f"[{number}/{len(steps)}] {title}", flush=True)
            run_side_by_side(jobs)
            print(f"      {time.monotonic() - started:.0f} s", flush=True)
        lines = findings(run.path)
        from accord.reporting import build_report
        from accord.run import write_text

        folders = [
            run.path / name
            for name in ("pretrain", "sft", "sample", "annotate", "helpful", "harmless", "ppo", "limited")
        ]
        folders += [run.path / f"evaluate-{name}" for name in STAGES]
        write_text(run.path / "report.html", build_report(folders, title="Accord on the gold world", summary=lines))
        run.finish()
        print("\n".join(["", "What it showed:", *(f"  {line}" for line in lines)]))
        print(f"\nreport: {run.path / 'report.html'}   ({time.monotonic() - began:.0f} s in all)")
        return run


def run_side_by_side(jobs: Sequence[tuple[str, Config]], cores: int = 0) -> None:
    """Run stages in processes of their own, as many at a time as there are cores, one thread each; a single one here.

    Raises what the first failing stage raised.
    """
    if len(jobs) == 1:
        run_stage(*jobs[0])
        return
    cores = cores or len(os.sched_getaffinity(0))
    workers = max(1, min(cores, len(jobs)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        threads = max(1, cores // workers)
        futures = [
            pool.submit(run_stage, stage, config.model_copy(update={"threads": threads})) for stage, config in jobs
        ]
        for future in futures:
            future.result()


def run_stage(stage: str, config: Config) -> None:
    """Run one stage by name."""
    module = importlib.import_module(f"accord.stages.{stage}")
    module.run(config)
