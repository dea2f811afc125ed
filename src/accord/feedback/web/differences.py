"""Where two replies differ, word by word: pieces of text, marked or not. The template escapes them."""

import re
from difflib import SequenceMatcher

WORD = re.compile(r"\S+\s*|\s+")
Pieces = list[tuple[bool, str]]  # whether the other reply has it not, and the text


def differences(first: str, second: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces; white space at the end of a word makes no difference."""
    sides = WORD.findall(first), WORD.findall(second)
    one, other = ([word.rstrip() for word in side] for side in sides)
    found: tuple[Pieces, Pieces] = ([], [])
    for tag, a, b, c, d in SequenceMatcher(None, one, other).get_opcodes():
        for pieces, words in ((found[0], sides[0][a:b]), (found[1], sides[1][c:d])):
            if words:
                pieces.append((tag != "equal", "".join(words)))
    return found
