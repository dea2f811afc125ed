"""Rendered records as groups of token ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accord.data.chat import Renderer
from accord.engine.packing import Group, reply_group
from accord.objectives.ranking import ranked_pairs, tied_pairs
from accord.records import Demonstration, Document, Prompt, Rollout


@dataclass(frozen=True)
class RankedReplies:
    """Replies to one prompt, rendered, with how someone ranked them.

    `ranks[k]` of reply k, 1 for what should come out on top; empty where nothing is ranked. `probability`, from ½ to 1,
    that two of them are ordered so.
    """

    prompt: Prompt
    texts: tuple[str, ...]
    group: Group
    ranks: tuple[int, ...] = ()
    probability: float = 1.0

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(better, worse), as places in `texts`."""
        return ranked_pairs(self.ranks)

    @property
    def ties(self) -> tuple[tuple[int, int], ...]:
        """Places with equal ranks, each two once."""
        return tied_pairs(self.ranks)

    @property
    def alike(self) -> bool:
        """Whether two replies have the same tokens, as texts that differ may: no model can tell them apart."""
        return len(set(self.group.replies)) < len(self.group.replies)


def text_group(renderer: Renderer, prompt: Prompt, texts: Iterable[str]) -> Group:
    """A prompt with replies that are texts; they share its tokens."""
    return reply_group(renderer.prompt_ids(prompt.turns), *(renderer.reply_ids(text, prompt.turns) for text in texts))


def rollout_groups(rollouts: Sequence[Rollout]) -> list[Group]:
    """Each rollout as a group of its own, in the very tokens that were drawn."""
    return [reply_group(rollout.prompt_ids, rollout.ids) for rollout in rollouts]


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


def says(renderer: Renderer, stops: Sequence[str], ids: Sequence[int]) -> bool:
    """Whether one of the texts stands at the end of a reply's, where its last token has just put it."""
    longest = max(len(stop.encode()) for stop in stops)
    end = renderer.text(ids[-2 * longest - 8 :])  # a token may be a byte, and the last one several
    return any(stop in end for stop in stops)


def said(renderer: Renderer, stops: Sequence[str], ids: Sequence[int]) -> str:
    """A reply's text, cut off where one of the texts that stop it begins."""
    text = renderer.text(ids)
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


class TextStream:
    """A reply's text while it is drawn, in pieces none of which has to be taken back.

    Held back is what may be the beginning of one of the texts that stop it, and a character that wants more tokens.
    """

    def __init__(self, renderer: Renderer, stops: Sequence[str]) -> None:
        self._renderer, self._stops = renderer, stops
        self._held = max((len(stop) for stop in stops), default=1) - 1
        self._told = ""

    def more(self, ids: Sequence[int]) -> str:
        """What the ids so far add to what was told."""
        text = said(self._renderer, self._stops, ids)
        return "" if text.endswith("\ufffd") else self._tell(text[: max(0, len(text) - self._held)])

    def rest(self, ids: Sequence[int]) -> str:
        """What the whole reply adds."""
        return self._tell(said(self._renderer, self._stops, ids))

    def _tell(self, text: str) -> str:
        if not text.startswith(self._told):
            return ""
        new, self._told = text[len(self._told) :], text
        return new
