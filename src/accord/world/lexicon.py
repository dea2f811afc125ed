"""Every word of the world, for the tokenizer's vocabulary."""

import re
from functools import lru_cache

from accord.world import attacks, critiques, doubt, facts, language, objects, principles, questions, skills, tones

_BLANK = re.compile(r"\{[a-z]+\}")
_PIECE = re.compile(r"[a-z]+|[.,?:]")


def _written() -> list[str]:
    """Every text that the tables hold, whole or in parts."""
    forms: list[str] = [*language.REQUESTS, *language.ODD_REQUESTS, *language.OPENERS, *language.CLOSERS]
    forms += [*attacks.forms(attacks.ALL), *language.BESIDE, *language.FOLLOW_UPS, *language.MANUALS]
    forms += [
        *language.HARM_NOTES,
        *language.SAFE_NOTES,
        *language.HARM_WORD_NOTES,
        *language.SAFE_WORD_NOTES,
    ]
    for table in (
        language.QUESTIONS,
        language.ODD_QUESTIONS,
        language.STATEMENTS,
        language.ABSTENTIONS,
        skills.FORMS,
        skills.NUMBER_FORMS,
    ):
        forms += [form for group in table.values() for form in group]
    forms += [
        *language.TOOL_FORMS,
        *language.FILLERS,
        *tones.GENTLE,
        *tones.DIRECT,
        *language.VAGUE,
        *language.REFUSALS,
        *language.REASONS,
        "because",
    ]
    forms += [*language.ADVICE, *skills.NUMBERS, *skills.LISTED_WORDS, "plus"]
    forms += [form for group in language.PREFIXES.values() for form in group]
    forms += [said for pair in language.SMALL_TALK for said in pair]
    for verb, (tool, actions) in language.VERBS.items():
        forms += [verb, tool, *actions]
    for quality, finishes in language.KINDS.values():
        forms += [quality, *finishes]
    forms += [*language.MATERIALS, *objects.TASK_NOUNS, *objects.DUAL_NOUNS, *objects.ALL_CUES]
    forms += [*critiques.REVIEWS, *critiques.CRITIQUES, *critiques.EMPTY, *questions.QUESTIONS]
    forms += [form for table in (*doubt.TABLES, principles.MANNERS) for group in table.values() for form in group]
    forms += [*doubt.CONFIDENCE, *doubt.HOW_SURE, *doubt.TRUE_FALSE, *doubt.NOBODY_KNOWS, *doubt.DENIALS]
    forms += ["asked: answered: reply a: b: yes. no. true. false.", doubt.OPTIONS]
    return [*forms, *facts.LEVEL_OF, *facts.TOWNS, *facts.JOBS, *language.ROLES_WRITTEN]


@lru_cache(maxsize=1)
def _lexicon() -> tuple[str, ...]:
    pieces = {piece for form in _written() for piece in _PIECE.findall(_BLANK.sub(" ", form))}
    spaced = {" " + piece if piece.isalpha() else piece for piece in pieces}
    return tuple(sorted(spaced | {"\n" + role for role in language.ROLES_WRITTEN}))


def lexicon() -> list[str]:
    """Every piece of text that should be one token, sorted: each word with the blank before it, each
    punctuation mark, and the two roles after a line break.

    It comes from the tables of the grammar, not from a sampled corpus. A byte-level tokenizer that puts a
    blank before a text, as the one trained here does, writes every word of the world as one token.
    """
    return list(_lexicon())
