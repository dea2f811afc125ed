"""Data: what a source holds, before anything is trained on it."""

from accord.data.chat import Renderer, train_tokenizer
from accord.data.sources import Summary, inspect_source, prompt_of
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt
from accord.stages.data.config import Data


def run(config: Data) -> Summary:
    """Print shape, rows, drops, lengths, splits, and one example rendered with its loss mask."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    summary = inspect_source(config.source, config.columns, max_rows=config.max_rows)
    console = Console(soft_wrap=True)
    table = Table(show_header=False, title=escape(config.source))
    table.add_row("shape", summary.shape)
    table.add_row("columns", escape(", ".join(summary.columns)))
    table.add_row("rows", str(summary.rows))
    for kind, count in summary.counts.items():
        dropped = summary.drops.get(kind, {})
        drops = "; dropped " + ", ".join(f"{n} {reason}" for reason, n in dropped.items()) if dropped else ""
        table.add_row(f"as {kind}", f"{count}{drops}")
    for name, quantiles in (
        ("prompt words", summary.prompt_words),
        ("reply words", summary.reply_words),
        ("text words", summary.text_words),
    ):
        if quantiles:
            table.add_row(name, "min {} · 25 % {} · median {} · 75 % {} · max {}".format(*quantiles))
    if summary.slices:
        table.add_row("slices", escape(", ".join(f"{s or '(none)'} {n}" for s, n in summary.slices.items())))
    if summary.splits:
        table.add_row("splits", ", ".join(f"{s} {n}" for s, n in summary.splits.items()))
    console.print(table)
    if summary.example is not None:
        console.print(rendered_example(summary.example, config.model), markup=True, highlight=False)
    return summary


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
