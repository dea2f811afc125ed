"""How alike texts are by their words, and a set that takes no text which is too like one of it.

Wang et al. 2023, "Self-Instruct" (arXiv:2212.10560), keep a written task whose ROUGE-L with every other is below 0.7;
here it is the Jaccard index of words and pairs of words, which needs no alignment and no model.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

Grams = frozenset[tuple[str, ...]]


def grams(text: str) -> Grams:
    """The words of a text and the pairs of words that stand together, case folded."""
    words = WORD.findall(text.lower())
    return frozenset([*((word,) for word in words), *pairwise(words)])


def likeness(one: Grams, other: Grams) -> float:
    """Jaccard index, |both| / |either|: 1 for the same words and pairs, 0 for none in common."""
    either = len(one | other)
    return len(one & other) / either if either else 1.0


class Distinct:
    """Texts of which no two are as like as `bound`, beginning with `known` ones, which are taken as they are."""

    def __init__(self, known: Iterable[str], bound: float) -> None:
        self._kept = [grams(text) for text in known]
        self._bound = bound

    def take(self, text: str) -> bool:
        """Whether the text is unlike all before, and then one of them."""
        own = grams(text)
        if any(likeness(own, other) >= self._bound for other in self._kept):
            return False
        self._kept.append(own)
        return True


def distinct_pairs(texts: Sequence[str]) -> float:
    """Different pairs of words over all pairs of words (distinct-2, Li et al. 2016, arXiv:1510.03055); 0 without."""
    found = [pair for text in texts for pair in _pairs(text)]
    return len(set(found)) / len(found) if found else 0.0


def _pairs(text: str) -> list[tuple[str, str]]:
    words = WORD.findall(text.lower())
    return list(pairwise(words))
