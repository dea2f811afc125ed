"""What stages read and leave behind in the same way: records with their drops, snapshots with their card."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from accord import __version__
from accord.data.sources import Loaded, read_many, refuse_overlap, select_split
from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Judgement, Prompt
from accord.run import RunFolder

R = TypeVar("R")
TRAINED_PROMPTS = "trained_prompts.txt"


def named(sources: str | Mapping[str, str]) -> dict[str, str]:
    """`--data SOURCE` is a single unnamed source; `--data.NAME SOURCE` names slices."""
    return {"": sources} if isinstance(sources, str) else dict(sources)


def load_all(
    reader: Any,
    sources: str | Mapping[str, str],
    config: Any,
    run: RunFolder,
    *args: str,
    split: str = "",
    what: str = "data",
) -> list[Any]:
    """Read every source, print and save what was dropped, keep one split; records in the order of the sources.

    Raises BadInput when nothing is left.
    """
    weights = getattr(config, "weights", {}) if what == "data" else {}
    parts: dict[str, Loaded[Any]] = read_many(
        reader,
        named(sources),
        *args,
        weights=weights or None,
        columns=config.columns,
        max_rows=config.max_rows,
    )
    records = []
    report = []
    for name, part in parts.items():
        kept = select_split(part.records, split) if split else part.records
        records += kept
        report.append(
            {
                "name": name,
                "source": part.source,
                "shape": part.shape,
                "rows": part.rows,
                "records": len(part.records),
                "used": len(kept),
                "drops": part.drops,
                "duplicates": part.duplicates,
            }
        )
        dropped = ", ".join(f"{count} {reason}" for reason, count in part.drops.items())
        print(
            f"{part.source}: {part.rows} rows, {len(kept)} used"
            + (f" of split {split}" if split else "")
            + (f"; dropped {dropped}" if dropped else "")
        )
    if not records:
        raise BadInput(
            f"nothing is left of {', '.join(named(sources).values())}"
            + (f" in split {split}; give more data, or leave --split out" if split else "; give more data")
        )
    run.write_json(f"data/{what}.json", report)
    return records


def drop_long(
    groups: list[Any], keys: list[R], max_length: int, run: RunFolder, what: str = "data"
) -> tuple[list[Any], list[R]]:
    """Drop what has a text longer than `max_length` tokens, with its record; both sides of a pair count."""
    kept = [
        (group, key)
        for group, key in zip(groups, keys, strict=True)
        if len(group.prefix) + max((len(reply) for reply in group.replies), default=0) <= max_length
    ]
    dropped = len(groups) - len(kept)
    if dropped:
        print(f"dropped {dropped} of {len(groups)} longer than --max_length {max_length} tokens")
        run.write_json(f"data/{what}-too-long.json", {"max_length": max_length, "dropped": dropped})
    if not kept:
        raise BadInput(f"every text is longer than --max_length {max_length} tokens; raise it")
    return [group for group, _ in kept], [key for _, key in kept]


def remember_prompts(folder: Path, records: Iterable[Prompt | Demonstration | Comparison | Judgement]) -> None:
    """Write the ids of the prompts a model was trained on into its snapshot."""
    ids = {record.id if isinstance(record, Prompt) else record.prompt.id for record in records}
    (folder / TRAINED_PROMPTS).write_text("".join(f"{i}\n" for i in sorted(ids)))


def refuse_trained_prompts(prompts: Iterable[Prompt], snapshots: Iterable[str], what: str) -> None:
    """Refuse prompts that a scorer was trained on: its scores on them say nothing."""
    ids = {prompt.id for prompt in prompts}
    for snapshot in snapshots:
        listed = Path(snapshot) / TRAINED_PROMPTS
        if listed.is_file():
            refuse_overlap(ids, listed.read_text().split(), what, f"the training data of {snapshot} (use --split)")


def card(stage: str, facts: Mapping[str, Any]) -> str:
    """The model card of a snapshot."""
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [accord, {stage}]",
        "---",
        "",
        f"# A snapshot of `accord {stage}`",
        "",
        f"Made by Accord {__version__}. The run folder beside this directory holds its config, lineage and metrics.",
        "",
        *(f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"


def save_snapshot(
    run: RunFolder,
    model: nn.Module,
    tokenizer: Any,
    description: Mapping[str, Any],
    facts: Mapping[str, Any],
    trained_on: Iterable[Any] = (),
) -> None:
    """Write `snapshot/` atomically, with the prompts it was trained on."""
    from accord.models.saving import save_model

    with run.new_snapshot() as folder:
        save_model(model, tokenizer, folder, dict(description), card(run.stage, facts))
        if trained_on:
            remember_prompts(folder, trained_on)
