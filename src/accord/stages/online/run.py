"""Online rounds: a policy learns from comparisons of its own fresh replies, again and again.

    policy ─► sample ─► annotate ─► dpo ─► policy of the next round          (the first snapshot stays the reference)

On-policy direct alignment (Guo et al. 2024, "Direct Language Model Alignment from Online AI Feedback",
arXiv:2402.04792), in rounds instead of steps. Every round is run folders of those stages below this one's.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accord.data.rows import write_records
from accord.data.sources import read_prompts
from accord.errors import BadInput
from accord.records import Prompt
from accord.run import RunFolder, read_json, read_lines
from accord.stages.dpo import run as dpo
from accord.stages.online import annotate
from accord.stages.online.config import Annotate, Online
from accord.stages.sample import run as sample
from accord.stages.sample.config import Sample
from accord.stages.shared import load_all, open_run
from accord.training.order import epoch_order


def run(config: Online) -> RunFolder:
    """Run the rounds; leaves `round-N/{sample,annotate,dpo}` and the last policy as `snapshot/`."""
    parents = {"model": config.model, **({"scorer": config.scorer} if config.scorer else {})}
    with open_run("online", config, parents) as run:
        if run.finished:
            return run
        config = config.model_copy(update={"threads": run.threads})
        found: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
        prompts = list({prompt.id: prompt for prompt in found}.values())
        needed = config.rounds * config.prompts
        if len(prompts) < needed:
            raise BadInput(
                f"{config.rounds} rounds of {config.prompts} prompts need {needed} different ones and --data has "
                f"{len(prompts)}; give more data, or lower --rounds or --prompts"
            )
        order = epoch_order(len(prompts), config.seed, 0)
        run.truncate_logs(0)
        policy, tokens = config.model, 0
        for number in range(1, config.rounds + 1):
            print(f"round {number} of {config.rounds}", flush=True)
            first = (number - 1) * config.prompts
            drawn = [prompts[i] for i in order[first : first + config.prompts]]
            folder = run.path / f"round-{number}"
            for stage in run_round(config, folder, policy, drawn):
                # a stage that was at its last step when Ctrl-C came ends well, and the rounds still stop
                if stage.stop_requested or run.stop_requested:
                    raise run.interrupted(number - 1, "round")
            policy = str(folder / "dpo" / "snapshot")
            row = measured(folder)
            tokens += row["num_tokens"]
            run.log({"step": number, **row, "num_tokens": tokens})
        with run.new_snapshot() as snapshot:
            shutil.copytree(policy, snapshot, dirs_exist_ok=True)
        run.finish(rounds=config.rounds)
        return run


def run_round(config: Online, folder: Path, policy: str, prompts: list[Prompt]) -> Iterator[RunFolder]:
    """Sample replies of `policy`, have them compared, train on the comparisons. What is done already stays."""
    folder.mkdir(exist_ok=True)
    write_records(folder / "prompts.jsonl", prompts)

    def common(name: str) -> dict[str, Any]:
        out = folder / name
        return {"out": str(out), "seed": config.seed, "threads": config.threads, "resume": out.exists()}

    yield sample.run(
        Sample(
            **common("sample"),
            model=policy,
            data=str(folder / "prompts.jsonl"),
            samples=config.samples,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            cache_tokens=config.cache_tokens,
        )
    )
    yield annotate.run(
        Annotate(
            **common("annotate"),
            samples=str(folder / "sample"),
            labeler=config.labeler,
            scorer=config.scorer,
            criteria=[config.criterion],
            judged=[],
            **config.asking,
        )
    )
    data, out = folder / "annotate" / f"comparisons-{config.criterion}.jsonl", folder / "dpo"
    yield dpo.run(config.training(policy, str(data), out=str(out), resume=out.exists()))


def measured(folder: Path) -> dict[str, Any]:
    """What a round left: comparisons, held-out accuracy of the implicit reward, KL to the first snapshot in nats."""
    result = read_json(folder / "dpo" / "evaluation.json")
    last = read_lines(folder / "dpo" / "metrics.jsonl")[-1]
    row = {"comparisons": read_json(folder / "dpo" / "lineage.json")["comparisons"]}
    row |= {name: value for name, value in last.items() if name in ("loss", "num_tokens") or "eval/rewards" in name}
    return row | ({"objective/kl": result["kl"]["mean"], "sqrt_kl": result["sqrt_kl"]} if "kl" in result else {})
