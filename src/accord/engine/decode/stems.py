"""What many prompts begin with (worked examples), computed once and kept from call to call, for a model that stays."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from accord.engine.decode.decoder import LONG_BEGINNING, Decoder
from accord.engine.packing import common_beginning

KEPT = 4  # beginnings at most: those used last


class Stem(NamedTuple):
    """Ids, and their keys and values (layers, 2, kv heads, tokens, size) as a pool of the decoder has them."""

    ids: tuple[int, ...]
    cache: Tensor


class Stems:
    """Beginnings of the prompts of earlier calls. One instance belongs to one model, whose weights do not change.

    Keys and values of a token hang on nothing behind it, so the first part of a stem is the stem of that part.
    """

    def __init__(self) -> None:
        self._kept: list[Stem] = []

    def of(self, decoder: Decoder, prompts: Sequence[Sequence[int]]) -> Stem | None:
        """The stem of these prompts, each of which goes on behind it; computed if none that is kept will do.

        None where the prompts have too little in common.
        """
        least = min(map(len, prompts)) - 1
        common = tuple(prompts[0][: min(common_beginning(prompts), least)])
        shared = [common_beginning([stem.ids, common]) for stem in self._kept]
        best = max(range(len(shared)), key=shared.__getitem__, default=None)
        if best is None or len(common) - shared[best] >= LONG_BEGINNING:
            if len(common) < LONG_BEGINNING:
                return None
            self._kept = [*self._kept, Stem(common, decoder.beginning(common))][-KEPT:]
            return self._kept[-1]
        self._kept.append(self._kept.pop(best))
        used = self._kept[-1]
        length = shared[best]
        return Stem(used.ids[:length], used.cache[:, :, :, :length]) if length >= LONG_BEGINNING else None
