"""What of the data a run would use: rows by kind, what the template refuses, lengths in this model's tokens."""

import statistics
from collections.abc import Callable
from typing import Any

from accord.data.chat import Renderer
from accord.data.sources import prompt_of, read_comparisons, read_demonstrations, read_judgements, read_prompts
from accord.engine.texts import text_group
from accord.errors import BadInput
from accord.models.preflight import Diagnosis
from accord.records import Prompt
from accord.stages.check.config import Check
from accord.stages.shared import named, replies_of, taken

READERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "comparisons": (read_comparisons, ("helpful",)),
    "judgements": (read_judgements, ("helpful",)),
    "demonstrations": (read_demonstrations, ()),
    "prompts": (read_prompts, ()),
}


def read_data(config: Check, renderer: Renderer) -> tuple[list[Diagnosis], list[Prompt]]:
    """Findings about every source, and the prompts of what is kept."""
    found: list[Diagnosis] = []
    prompts: list[Prompt] = []
    for source in named(config.data).values():
        findings, kept = read_source(config, renderer, source)
        found += findings
        prompts += kept
    return found, list(dict.fromkeys(prompts))


def read_source(config: Check, renderer: Renderer, source: str) -> tuple[list[Diagnosis], list[Prompt]]:
    """The same of one source, as the first kind of record that it holds."""
    problems = []
    for kind, (reader, args) in READERS.items():
        try:
            loaded = reader(source, *args, columns=config.columns, max_rows=config.max_rows)
        except BadInput as problem:
            problems.append(str(problem))
            continue
        if not loaded.records:
            problems.append(f"{source}: no {kind} in it")
            continue
        kept, refused = taken(loaded.records, [renderer])
        drops = {**loaded.drops, **refused}
        said = f"{source}: {len(kept)} {kind} of {loaded.rows} rows"
        dropped = ", ".join(f"{count} {reason}" for reason, count in drops.items())
        found = [Diagnosis("data", said, f"dropped: {dropped}" if drops else "", "note" if drops else "fine")]
        return [*found, *lengths(config, renderer, kept)], [prompt_of(record) for record in kept]
    return [Diagnosis("data", problems[-1], "`accord data SOURCE` shows what it holds", "wrong")], []


def lengths(config: Check, renderer: Renderer, records: list[Any]) -> list[Diagnosis]:
    """How long the texts are in tokens, beside the longest that a run will be given."""
    groups = [text_group(renderer, prompt_of(record), replies_of(record)) for record in records]
    tokens = [len(g.prefix) + max((len(reply) for reply in g.replies), default=0) for g in groups]
    if not tokens:
        return []
    over = sum(count > config.max_length for count in tokens)
    said = f"median {statistics.median(tokens):g}, longest {max(tokens)} tokens"
    if not over:
        return [Diagnosis("lengths", said)]
    said += f"; {over} of {len(tokens)} are longer than --max_length {config.max_length}"
    return [Diagnosis("lengths", said, "they are dropped and counted; raise --max_length to keep them", "note")]
