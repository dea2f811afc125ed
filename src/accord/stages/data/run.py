"""Data: what a source holds, before anything is trained on it; what is kept of it, and what stands in other data."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from accord.data.chat import Renderer, train_tokenizer
from accord.data.overlap import Stain, find_overlap
from accord.data.parse import Reader
from accord.data.sieve import sift
from accord.data.sources import Summary, inspect_source, nothing_left, prompt_of
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt
from accord.stages.data.config import Data

if TYPE_CHECKING:
    from rich.console import Console


def run(config: Data) -> Summary:
    """Print shape, rows, drops, lengths, splits, and one example rendered with its loss mask; write what is kept.

    Raises BadInput where no record of any kind is left.
    """
    from rich.console import Console

    console = Console(soft_wrap=True)
    how = Reader(**config.how)
    summary = inspect_source(config.source, how, config.kind or None)
    show(summary, console)
    kind = config.kind or summary.kind
    if kind is None or not summary.counts.get(kind):
        drops = {reason: n for of_kind in summary.drops.values() for reason, n in of_kind.items()}
        raise nothing_left(config.source, kind or "record", summary.rows, drops)
    if summary.example is not None:
        console.print(rendered_example(summary.example, config.model), markup=True, highlight=False)
    stains = (
        find_overlap(config.source, config.against, how, config.kind or None, config.ngram) if config.against else {}
    )
    copies = {number: reason for number, stain in stains.items() if (reason := copied(stain, config))}
    if config.against:
        show_overlap(summary, stains, copies, config, console)
    if config.out:
        sifted = sift(config.source, Path(config.out), kind, how, config.kind or None, copies)
        lost = ", ".join(f"{count} {reason}" for reason, count in sifted.drops.items())
        beside = f"; dropped {lost} ({sifted.dropped_file})" if lost else "; none dropped"
        console.print(f"{sifted.records} {kind}s to {config.out}{beside}", markup=False)
    return summary


def show(summary: Summary, console: "Console") -> None:
    """The table of what a source holds."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, title=escape(summary.source))
    table.add_row("shape", summary.shape)
    table.add_row("columns", escape(", ".join(summary.columns)))
    table.add_row("rows", str(summary.rows))
    for kind in {**summary.counts, **summary.drops}:
        dropped = summary.drops.get(kind, {})
        drops = "; dropped " + ", ".join(f"{n} {reason}" for reason, n in dropped.items()) if dropped else ""
        table.add_row(f"as {kind}", f"{summary.counts.get(kind, 0)}{drops}")
    for name, quantiles in (
        ("prompt words", summary.prompt_words),
        ("reply words", summary.reply_words),
        ("text words", summary.text_words),
    ):
        if quantiles:
            table.add_row(name, "min {} · 25 % {} · median {} · 75 % {} · max {}".format(*quantiles))
    for name, count in summary.notes.items():
        table.add_row("seen", escape(f"{count} × {name}"))
    if summary.slices:
        table.add_row("slices", escape(", ".join(f"{s or '(none)'} {n}" for s, n in summary.slices.items())))
    if summary.splits:
        table.add_row("splits", ", ".join(f"{s} {n}" for s, n in summary.splits.items()))
        alike = "; all alike, so no share can be held out" if summary.openings == 1 < summary.rows else ""
        table.add_row("first turns", f"{summary.openings} different{alike}")
    console.print(table)


def copied(stain: Stain, config: Data) -> str:
    """Why a row is a copy of what stands in the other source; empty where it is none."""
    if stain.exact:
        return f"prompt stands in {config.against}"
    return f"{config.ngram}-grams stand in {config.against}" if stain.share >= config.overlap else ""


def show_overlap(
    summary: Summary, stains: Mapping[int, Stain], copies: Mapping[int, str], config: Data, console: "Console"
) -> None:
    """How many rows stand in the other source, exactly and in part, and where the first was found."""
    exact = [stain.exact for stain in stains.values() if stain.exact]
    said = [
        f"{len(copies)} of {summary.rows} rows stand in {config.against}: {len(exact)} by their prompt, "
        f"{len(copies) - len(exact)} with {config.overlap:.0%} of their words or more in common {config.ngram}-grams",
        f"{len(stains)} share anything: a prompt, or {config.ngram} words in a row",
    ]
    if exact:
        said.append(f"the first prompt stands at {exact[0]}")
    console.print("\n".join(said), markup=False, highlight=False)


def rendered_example(record: Document | Prompt | Demonstration | Comparison | Judgement, model: str) -> str:
    """The example's text as the model sees it; tokens that carry loss are in bold green."""
    from rich.markup import escape

    if isinstance(record, Document):
        return escape(record.text[:400])
    if model:
        from accord.models.tokenizer import load_renderer

        renderer = load_renderer(model)
    else:
        renderer = Renderer(train_tokenizer([turn.content for turn in prompt_of(record).turns], 400))
    mask: tuple[bool, ...] = ()
    if isinstance(record, Prompt):
        ids = renderer.prompt_ids(record.turns)
    else:
        reply = (
            record.replies[record.ranks.index(min(record.ranks))] if isinstance(record, Comparison) else record.reply
        )
        rendered = renderer.conversation(record.prompt.turns, reply)
        ids, mask = rendered.ids, rendered.mask
    pieces: list[tuple[bool, list[int]]] = []
    for position, token in enumerate(ids):
        trained = bool(mask and mask[position])
        if not pieces or pieces[-1][0] != trained:
            pieces.append((trained, []))
        pieces[-1][1].append(token)
    texts = [
        (trained, escape(renderer.tokenizer.decode(part, clean_up_tokenization_spaces=False)))
        for trained, part in pieces
    ]
    return "example, in green what carries loss:\n" + "".join(
        f"[bold green]{t}[/]" if trained else t for trained, t in texts
    )
