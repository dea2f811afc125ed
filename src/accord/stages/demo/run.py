"""The demo: the whole flow on the gold world, then a report on what it showed.

    pretrain → sft → sample → simulated people → helpful model, cost model → PPO, PPO with a limit → evaluate → report

Stages that do not depend on each other run side by side: the free policy is there before the one with a limit, and what
both start from is evaluated meanwhile. Those that stand alone are spread over the cores as ranks.
"""

import time

from accord.claims.lab.findings import findings
from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.claims.lab.workers import Job, Workers
from accord.lineage import available_cores
from accord.run import RunFolder
from accord.stages.demo.config import Demo

STAGES = ("pretrain", "sft", "ppo", "limited")
SPREAD = ("pretrain", "sft")
SAMPLED = ("sample", "sample-harm", "sample-look-alike")
LABELLED = ("annotate", "annotate-harm", "annotate-look-alike")
FOLDERS = ("pretrain", "sft", *SAMPLED, *LABELLED, "helpful", "harmless", "ppo", "limited")


def run(config: Demo) -> RunFolder:
    """Run the flow and write `report.html`; prints what it showed."""
    began = time.monotonic()
    # a stage's `open_run` would import torch, which only the workers need
    with RunFolder("demo", config) as run, Workers(run.threads) as workers:
        flow = GoldFlow(run.path, SCALES[config.scale], config.seed, config.resume)
        evaluations: dict[str, Job] = {name: ("evaluate", flow.evaluate(name)) for name in STAGES}
        steps: list[tuple[str, list[Job]]] = [
            ("pretrain on the corpus", [("pretrain", flow.pretrain())]),
            ("fine-tune on demonstrations", [("sft", flow.sft())]),
            ("sample two replies per prompt", [("sample", sample) for sample in flow.samples()]),
            ("simulated people compare and judge", [("annotate", labels) for labels in flow.annotations()]),
            (
                "learn a helpful preference model and a harmless cost model",
                [("preference", flow.helpful()), ("preference", flow.harmless())],
            ),
            (
                "PPO on helpfulness, and with a limit on harm; evaluate what they start from",
                [("ppo", flow.ppo()), ("ppo", flow.limited()), evaluations["pretrain"], evaluations["sft"]],
            ),
            ("evaluate the policies", [evaluations["ppo"], evaluations["limited"]]),
        ]
        for number, (title, jobs) in enumerate(steps, 1):
            started = time.monotonic()
            print(f"[{number}/{len(steps)}] {title}", flush=True)
            if len(jobs) == 1 and jobs[0][0] in SPREAD:
                workers.run_spread(jobs[0])
            else:
                workers.run(jobs)
            print(f"      {time.monotonic() - started:.0f} s", flush=True)
        lines = findings(run.path)
        from accord.disk import write_text
        from accord.reporting import build_report

        folders = [run.path / name for name in FOLDERS]
        folders += [run.path / f"evaluate-{name}" for name in STAGES]
        page = build_report(folders, title="Accord on the gold world", summary=lines, processes=available_cores())
        write_text(run.path / "report.html", page)
        run.finish()
        print("\n".join(["", "What it showed:", *(f"  {line}" for line in lines)]))
        print(f"\nreport: {run.path / 'report.html'}   ({time.monotonic() - began:.0f} s in all)")
        return run
