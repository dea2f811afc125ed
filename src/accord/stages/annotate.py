"""Annotation by the gold world's simulated people: sampled replies → comparisons and safety judgements.

Not a command: real labels come through files or `collect`; this stands in for them where the truth is known.
"""

from collections.abc import Iterator
from pathlib import Path

from accord.config import Annotate
from accord.data.stored import write_records
from accord.errors import BadInput
from accord.records import Prompt, Turn
from accord.run import RunFolder, read_lines


def run(config: Annotate) -> RunFolder:
    """Label a sample run; leaves `comparisons-CRITERION.jsonl` and `judgements-CRITERION.jsonl`."""
    from accord.world import Annotator

    with RunFolder("annotate", config, {"samples": config.samples}) as run:
        if run.finished:
            return run
        sampled = list(replies_by_prompt(Path(config.samples)))
        annotator = Annotator(
            temperature=config.temperature,
            flips=config.flips,
            length_bias=config.length_bias,
            position_bias=config.position_bias,
            group=config.group,
            seed=config.seed,
        )
        counts = {}
        for criterion in config.criteria:
            wanted = set(config.slices[criterion].split(",")) if criterion in config.slices else None
            comparisons = [
                annotator.compare(prompt, replies, criterion)
                for prompt, replies in sampled
                if len(set(replies)) > 1 and (wanted is None or prompt.slice in wanted)
            ]
            counts[f"comparisons-{criterion}"] = write_records(run.path / f"comparisons-{criterion}.jsonl", comparisons)
        for criterion in config.judged:
            wanted = set(config.slices[criterion].split(",")) if criterion in config.slices else None
            judgements = [
                annotator.judge(prompt, reply, criterion)
                for prompt, replies in sampled
                if wanted is None or prompt.slice in wanted
                for reply in dict.fromkeys(replies)
            ]
            counts[f"judgements-{criterion}"] = write_records(run.path / f"judgements-{criterion}.jsonl", judgements)
        run.finish(**counts)
        return run


def replies_by_prompt(folder: Path) -> Iterator[tuple[Prompt, tuple[str, ...]]]:
    """Sampled replies of a run folder, grouped by prompt; empty replies are left out."""
    grouped: dict[str, tuple[Prompt, list[str]]] = {}
    for row in read_lines(folder / "samples.jsonl"):
        turns = tuple(Turn(t["role"], t["content"]) for t in row["prompt"])
        _, replies = grouped.setdefault(row["prompt_id"], (Prompt(turns, row["slice"], "world:prompts"), []))
        if row["reply"]:
            replies.append(row["reply"])
    if not grouped:
        raise BadInput(f"{folder}: no samples there; give the folder of a finished `accord sample`")
    for prompt, replies in grouped.values():
        if len(replies) > 1:
            yield prompt, tuple(replies)
