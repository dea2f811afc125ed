"""Aids: what a model says of replies, for people to read beside them; from a file, a row for each."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from accord.data.columns import Fields
from accord.data.files import read_rows
from accord.errors import BadInput
from accord.feedback.store.questions import WHOLE, Aid, Item
from accord.records import Prompt

# the text, and the reply that it is about, by the columns of the row; the second is what a run of constitution leaves
COLUMNS = (("aid", "reply"), ("critique", "revised"))
Aids = Mapping[str, Sequence[tuple[str, str]]]  # by a prompt's id: texts with the reply that each is about, "" for all


def read_aids(source: str) -> tuple[Aids, Counter[str]]:
    """What a file says, and what of it is no aid, by the reason. Raises BadInput for one without any."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    drops: Counter[str] = Counter()
    for row in read_rows(source):
        said = [(text, reply) for text, reply in COLUMNS if isinstance(row.value.get(text), str) and row.value[text]]
        if not said or "prompt" not in row.value:
            drops["no aid"] += 1
            continue
        fields = Fields(row.value, row.where)
        text, reply = said[0]
        about = fields.text(reply) if row.value.get(reply) else ""
        found[Prompt(fields.turns("prompt"), "", "").id].append((fields.text(text), about))
    if not found:
        raise BadInput(f"{source}: no row has a prompt with an aid (columns aid and reply, or critique and revised)")
    return found, drops


def with_aids(item: Item, aids: Aids) -> Item:
    """The item with what is said of its prompt or of a reply that it shows, each once."""
    places = {reply: place for place, reply in enumerate(item.replies)} | {"": WHOLE}
    said = aids.get(item.prompt.id, ())
    return replace(item, aids=tuple(dict.fromkeys(Aid(places[about], text) for text, about in said if about in places)))
