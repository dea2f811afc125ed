"""Every word of the world, for the tokenizer's vocabulary."""

import re
from functools import lru_cache

from accord.world import facts, language, objects

_BLANK = re.compile(r"\{[a-z]+\}")
_PIECE = re.compile(r"[a-z]+|[.,?:]")


def _written() -> list[str]:
    """Every form, as texts whose first words can begin a text of the world."""
    texts: list[str] = [*language.REQUESTS, *language.ODD_REQUESTS, *language.OPENERS, *language.WRAPPERS]
    texts += [*language.HELD_OUT_WRAPPERS, *language.FOLLOW_UPS, *language.MANUALS, *language.ADVICE]
    texts += [*language.HARM_NOTES, *language.SAFE_NOTES, *language.HARM_WORD_NOTES, *language.SAFE_WORD_NOTES]
    for table in (language.QUESTIONS, language.ODD_QUESTIONS, language.STATEMENTS, language.ABSTENTIONS, language.SKILLS):
        texts += [form for forms in table.values() for form in forms]
    texts += [*language.TOOL_FORMS, *language.FILLERS, *language.VAGUE, *language.REFUSALS]
    texts += [form for _, forms in language.VERBS.values() for form in forms]
    texts += [form for _, forms in language.KINDS.values() for form in forms]
    texts += [form for forms in language.PREFIXES.values() for form in forms]
    texts += [said for pair in language.SMALL_TALK for said in pair]
    texts += [*language.SUM_FORMS, *language.LARGEST_FORMS, *language.NUMBERS, *language.COPY_WORDS, *facts.LEVEL_OF]
    texts += [*objects.ALL_CUES, "the", *language.ROLES_WRITTEN]
    return texts


def _inside() -> list[str]:
    """Words that only stand inside a text."""
    texts: list[str] = [*language.CLOSERS, *language.REASONS, "because", *language.VERBS]
    texts += [*objects.TASK_NOUNS, *objects.DUAL_NOUNS, *language.MATERIALS, *facts.TOWNS, *facts.JOBS]
    texts += [quality for quality, _ in language.KINDS.values()]
    texts += [tool for tool, _ in language.VERBS.values()]
    return texts


@lru_cache(maxsize=1)
def _lexicon() -> tuple[str, ...]:
    pieces: dict[str, None] = {}
    for text in _written():
        found = _PIECE.findall(_BLANK.sub(" ", text))
        starts = not text.startswith("{")
        for i, piece in enumerate(found):
            if piece.isalpha():
                pieces[" " + piece] = None
                if i == 0 and starts:
                    pieces[piece] = None
            else:
                pieces[piece] = None
    for text in _inside():
        for piece in _PIECE.findall(_BLANK.sub(" ", text)):
            pieces[" " + piece if piece.isalpha() else piece] = None
    pieces["\n"] = None
    return tuple(sorted(pieces))


def lexicon() -> list[str]:
    """Every piece of text that should be one token, sorted: each word with the blank before it, each word that can
    begin a text or a line without one, each punctuation mark and the line break.

    It comes from the tables of the grammar, not from a sampled corpus. A byte-level tokenizer whose vocabulary is
    the 256 bytes and these pieces, and which looks a piece up before it merges (`ignore_merges` of the BPE model),
    writes every word of the world as one token and anything else in bytes.
    """
    return list(_lexicon())
