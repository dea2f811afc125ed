"""Text to token ids by a tokenizer as it is, except that somebody's words never become a control token.

A whole text is encoded at once, so its ids are the tokenizer's own: no blank is split from its word where a content
begins. Only where words spell a control token is the stretch between the real ones encoded without any.
"""

import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from accord.data.template import Refused, Span
from accord.errors import BadInput

ANCHOR = "\n"  # stands before a text that is encoded as one that goes on


class Encoded(NamedTuple):
    """Token ids and the span of the text that each stands for; and whether words in it spell a control token."""

    ids: list[int]
    spans: list[Span]
    spells: bool = False


class Encoder:
    """A tokenizer's backend. `control` finds the tokens that only a template may write.

    These are all that were added to the vocabulary, special or not. Runs of blanks, which some vocabularies add, are
    text. Raises BadInput for a tokenizer without a backend of the `tokenizers` library.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise BadInput(
                f"{type(tokenizer).__name__} has no tokenizer.json; load it where it works and save it as a fast one"
            )
        added = {int(i): token.content for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        self.added = added
        longest_first = sorted(added.values(), key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def encode(self, text: str, words: Sequence[Span] = ()) -> Encoded:
        """Ids of a text in which the spans `words` (in order) are somebody's. Raises Refused where it cannot be."""
        if not text:
            return Encoded([], [])
        encoding = self._backend.encode(text, add_special_tokens=False)
        whole = Encoded(encoding.ids, encoding.offsets)
        real, forged = [], False
        for place, (token, span) in enumerate(zip(whole.ids, whole.spans, strict=True)):
            if token in self.added:
                start = text.find(self.added[token], *span)
                stop = start + len(self.added[token])
                if start >= 0 and any(a < stop and start < b for a, b in words):
                    forged = True
                else:
                    real.append(place)
        return self._between(text, whole, real) if forged else whole

    def encode_after(self, text: str, words: Sequence[Span] = ()) -> list[int]:
        """Ids of a text that goes on behind another one, of which no token is shared."""
        before = self.encode(ANCHOR).ids
        moved = [(a + len(ANCHOR), b + len(ANCHOR)) for a, b in words]
        whole = self.encode(ANCHOR + text, moved).ids
        return whole[len(before) :] if whole[: len(before)] == before else self.encode(text, words).ids

    def last_control(self, encoded: Encoded) -> int:
        """The place of the last control token, behind which ids depend on no earlier text; -1 where there is none."""
        return next((i for i in range(len(encoded.ids) - 1, -1, -1) if encoded.ids[i] in self.added), -1)

    def is_ordinary(self, token: int) -> bool:
        """Whether plain text has this token: it is a word of the vocabulary, whatever was made of it since."""
        content = self.added.get(token)
        return content is None or self._bare.encode(content, add_special_tokens=False).ids == [token]

    def _between(self, text: str, whole: Encoded, real: Sequence[int]) -> Encoded:
        """The text with these control tokens and no other."""
        ids: list[int] = []
        spans: list[Span] = []
        at = 0
        for start, stop, token in [*self._cuts(whole, real), (len(text), len(text), None)]:
            if at < start:
                part = self._bare_encode(text[at:start], goes_on=at > 0)
                if any(i in self.added and not self.is_ordinary(i) for i in part.ids):
                    raise Refused("a text spells a control token that the tokenizer cannot write as text")
                ids += part.ids
                spans += [(at + a, at + b) for a, b in part.spans]
            if token is not None:
                ids.append(token)
                spans.append((start, stop))
            at = stop
        return Encoded(ids, spans, spells=True)

    def _cuts(self, whole: Encoded, real: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        for place in real:
            yield *whole.spans[place], whole.ids[place]

    @functools.cached_property
    def _bare(self) -> Any:
        """The backend without added tokens."""
        from tokenizers import Tokenizer

        plain = json.loads(self._backend.to_str())
        plain |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        return Tokenizer.from_str(json.dumps(plain))

    def _bare_encode(self, text: str, *, goes_on: bool) -> Encoded:
        if goes_on and not self._stretches_begin:
            before = self._bare.encode(ANCHOR, add_special_tokens=False)
            found = self._bare.encode(ANCHOR + text, add_special_tokens=False)
            if found.ids[: len(before.ids)] == before.ids:
                shifted = [(a - len(ANCHOR), b - len(ANCHOR)) for a, b in found.offsets[len(before.ids) :]]
                return Encoded(found.ids[len(before.ids) :], shifted)
        found = self._bare.encode(text, add_special_tokens=False)
        return Encoded(found.ids, found.offsets)

    @functools.cached_property
    def _stretches_begin(self) -> bool:
        """Whether a stretch behind a control token is encoded like the start of a text, as some tokenizers do."""
        token = next(iter(self.added.values()))
        behind = self._backend.encode(f"{token}hi", add_special_tokens=False).ids[1:]
        return bool(behind == self._bare.encode("hi", add_special_tokens=False).ids)
