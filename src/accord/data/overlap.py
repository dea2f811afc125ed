"""Which rows of one source stand in another: whether what is measured on was there to be learned from.

A row is found exactly where its prompt is one of the other source's, letters and digits alone compared. It is found in
part by n-grams of words, as in Brown et al. 2020 (arXiv:2005.14165, appendix C), who take 13; the share of a row's
words that stand in such n-grams tells a copy from a phrase that both quote, as in Dodge et al. 2021
(arXiv:2104.08758) and Touvron et al. 2023 (arXiv:2307.09288, appendix A.6).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accord.data.parse import Reader
from accord.data.parts import Kind, Parts

_WORDS = re.compile(r"[^\W_]+")
Gram = int  # hash of n words


@dataclass(frozen=True)
class Stain:
    """What of a row stands in the other source: `exact` is where its prompt was found, empty for nowhere; `share` that
    of its words in common n-grams."""

    exact: str
    share: float


def find_overlap(a: str, b: str, how: Reader, kind: Kind | None, ngram: int) -> dict[int, Stain]:
    """Of the rows of `a`, by their number from 0, those of which something stands in `b`.

    `how` reads `a`, as a shape that gives `kind` (None: any); columns of `b` are named in that source. Memory is that
    of `a` alone, so `b` is the training data.
    """
    rows: dict[int, tuple[str, list[list[Gram]]]] = {}
    for number, (_, _, parts) in enumerate(how.rows(a, kind)):
        if isinstance(parts, Parts):
            rows[number] = (_prompt_key(parts), [list(_grams(words, ngram)) for words in _texts(parts)])
    wanted = {gram for _, texts in rows.values() for grams in texts for gram in grams}
    prompts = {key: "" for key, _ in rows.values() if key}
    found: set[Gram] = set()
    for row, _, parts in Reader().rows(b, None):
        if isinstance(parts, Parts):
            if prompts.get(key := _prompt_key(parts)) == "":
                prompts[key] = row.where
            for words in _texts(parts):
                found.update(wanted.intersection(_grams(words, ngram)))
    stains = {number: Stain(prompts.get(key, ""), _share(texts, found, ngram)) for number, (key, texts) in rows.items()}
    return {number: stain for number, stain in stains.items() if stain.exact or stain.share}


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _prompt_key(parts: Parts) -> str:
    """The words of a prompt, or of a document, in one line; system turns are often the same and say nothing."""
    return " ".join(_words(" ".join(_asked(parts) if parts.prompts else [parts.text])))


def _texts(parts: Parts) -> list[list[str]]:
    """The words of each text of a row: turns but those of the system, replies, the document."""
    return [_words(text) for text in (*_asked(parts), *parts.replies, parts.text)]


def _asked(parts: Parts) -> list[str]:
    """The turns of a prompt but those of the system; none of a document."""
    return [turn.content for turn in parts.prompts[0] if turn.role != "system"] if parts.prompts else []


def _grams(words: Sequence[str], n: int) -> Iterator[Gram]:
    return (hash(tuple(words[start : start + n])) for start in range(len(words) - n + 1))


def _share(texts: Sequence[Sequence[Gram]], found: set[Gram], n: int) -> float:
    """The share of words that lie in a found n-gram, of all words in texts of n words or more; 0 for none."""
    covered = total = 0
    for grams in texts:
        last = -1  # the last word that is covered
        for start, gram in enumerate(grams):
            if gram in found:
                covered += start + n - max(start, last + 1)
                last = start + n - 1
        total += len(grams) + n - 1 if grams else 0
    return covered / total if total else 0.0
