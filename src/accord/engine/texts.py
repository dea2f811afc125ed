"""Rendered records as groups of token ids."""

from collections.abc import Sequence

from accord.data.chat import Renderer
from accord.engine.packing import Group
from accord.records import Demonstration, Document


def document_groups(renderer: Renderer, documents: Sequence[Document], max_length: int) -> list[Group]:
    """Documents as token groups; one longer than `max_length` is cut into pieces, all of which are used."""
    groups = []
    for document in documents:
        ids = renderer.document(document.text)
        for start in range(0, len(ids), max_length):
            piece = ids[start : start + max_length]
            if len(piece) > 1:
                groups.append(Group((), (piece,), ((True,) * len(piece),)))
    return groups


def conversation_group(renderer: Renderer, demonstration: Demonstration, train_on: str) -> Group:
    """One conversation with its loss mask, as a group without a shared prefix."""
    rendered = renderer.conversation(demonstration.prompt.turns, demonstration.reply, train_on=train_on)
    return Group((), (rendered.ids,), (rendered.mask,))
