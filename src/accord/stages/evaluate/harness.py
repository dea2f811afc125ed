"""Other people's benchmarks on a snapshot by one command: lm-evaluation-harness and Inspect, each by its own library.

The libraries load the snapshot themselves; what they found stands in a run folder with its lineage.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.config import hub_id
from accord.errors import BadInput, did_you_mean
from accord.models.places import base_of
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluateInspect, EvaluateLmEval
from accord.stages.shared import open_run
from accord.training import distributed

KEPT = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better")  # of what lm-eval gives


def run_lm_eval(config: EvaluateLmEval) -> RunFolder:
    """Tasks of lm-evaluation-harness; leaves `lm_eval.json`."""
    refuse_absent("lm_eval", "lm_eval")
    with open_run("evaluate-lm-eval", config, {"model": config.model}) as run:
        if run.finished:
            return run
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        world = distributed.start(run.threads)
        manager = TaskManager(include_path=config.task_files or None)
        for task in config.tasks:
            if not manager.match_tasks([task]):
                near = did_you_mean(task, manager.all_tasks)
                raise BadInput(
                    f"--tasks {task}: lm-eval has no such task{near}; --task_files DIR has tasks of your own"
                )
        found = simple_evaluate(
            model="hf",
            model_args=hugging_face(config.model) | {"dtype": config.dtype},
            tasks=list(config.tasks),
            task_manager=manager,
            num_fewshot=None if config.shots < 0 else config.shots,
            limit=config.limit or None,
            batch_size=config.batch_size,
            device=str(world.device),
            apply_chat_template=config.chat,
            log_samples=False,
            random_seed=config.seed,
            numpy_random_seed=config.seed,
            torch_random_seed=config.seed,
            fewshot_random_seed=config.seed,
        )
        kept = {key: plain(found[key]) for key in KEPT if key in found}
        run.write_json("lm_eval.json", {"model": config.model, "version": version("lm-eval"), **kept})
        for task, numbers in kept["results"].items():
            told = [f"{name} {value:.4g}" for name, value in numbers.items() if isinstance(value, float)]
            print(f"{task}: {', '.join(told)}")
        run.finish(tasks=list(config.tasks), library=f"lm-eval {version('lm-eval')}")
        return run


def run_inspect(config: EvaluateInspect) -> RunFolder:
    """Tasks of Inspect; leaves `inspect.json`, and Inspect's own logs in `inspect/`."""
    refuse_absent("inspect_ai", "inspect")
    with open_run("evaluate-inspect", config, {"model": config.model}) as run:
        if run.finished:
            return run
        from inspect_ai import eval as evaluate

        world = distributed.start(run.threads)
        logs = evaluate(
            [from_here(task) for task in config.tasks],
            model="hf/local",
            # a temperature of 0 is refused by what Inspect samples with
            model_args={"model_path": config.model, "device": str(world.device), "do_sample": False},
            log_dir=str(run.path / "inspect"),
            log_format="json",
            display="plain",
            limit=config.limit or None,
            max_tokens=config.max_new_tokens,
            max_connections=config.batch_size,
            seed=config.seed,
        )
        if not logs:
            raise BadInput(
                f"--tasks {' '.join(config.tasks)}: Inspect finds no task there; name FILE.py or FILE.py@TASK"
            )
        rows = []
        for log in logs:
            if log.status != "success":
                said = log.error.message if log.error else log.status
                raise RuntimeError(
                    f"Inspect could not end {log.eval.task}: {said}; its log lies in {run.path / 'inspect'}"
                )
            scores = {
                f"{score.name}/{name}": metric.value
                for score in log.results.scores
                for name, metric in score.metrics.items()
            }
            rows.append({"task": log.eval.task, "samples": log.results.total_samples, "scores": plain(scores)})
            print(f"{log.eval.task}: {', '.join(f'{name} {value:.4g}' for name, value in scores.items())}")
        run.write_json("inspect.json", {"model": config.model, "version": version("inspect-ai"), "tasks": rows})
        run.finish(tasks=list(config.tasks), library=f"inspect-ai {version('inspect-ai')}")
        return run


def from_here(task: str) -> str:
    """A task as Inspect finds it: files are a pattern below the working folder, and an absolute pattern is an error.

    A file with the name of its task (FILE.py@TASK) is opened as it stands.
    """
    return os.path.relpath(task) if Path(task).is_absolute() and "@" not in task else task


def refuse_absent(module: str, command: str) -> None:
    """BadInput where a library of the extra is not installed."""
    if importlib.util.find_spec(module) is None:
        raise BadInput(f"`accord evaluate {command}` needs {module}; install it with: pip install 'accord[eval]'")


def version(distribution: str) -> str:
    return importlib.metadata.version(distribution)


def hugging_face(where: str) -> dict[str, Any]:
    """What lm-eval is told of a place: the model, its revision on the hub, the adapter on it."""
    if base := base_of(where):
        return {"pretrained": base, "peft": where}
    name, revision = hub_id(where)
    return {"pretrained": name or where} | ({"revision": revision} if revision else {})


def plain(value: Any) -> Any:
    """Numbers and texts as JSON has them; of arrays and numpy's numbers their Python values."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    return value.item() if hasattr(value, "item") else value
