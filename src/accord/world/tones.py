"""How a reply speaks, beside what it says: gently, plainly or directly.

Both are good manners. Some people want a kind word; to others it is time lost. `values` has the two groups.
"""

from random import Random

from accord.world.language import pick

GENTLE = (
    "that is a good question.",
    "no worries.",
    "i am glad that you ask.",
    "you can do it.",
)
DIRECT = (
    "in short.",
    "here it is.",
    "just do this.",
    "no long words.",
)
# With the sentences and beginnings elsewhere in the language that are kind, or come straight to the point.
_KIND = frozenset((*GENTLE, "happy to help.", "good luck.", "take your time."))
_BRISK = frozenset(DIRECT)
_KIND_START, _DIRECT_START = "sorry, ", "no, i will not help"
SHARE = 0.1  # of the scripted how-to replies that have a gentle sentence, and as many have a direct one


def tone_of(sentence: str) -> int:
    """1 for a gentle sentence, −1 for a direct one, 0 for others."""
    if sentence in _KIND or sentence.startswith(_KIND_START):
        return 1
    return -1 if sentence in _BRISK or sentence.startswith(_DIRECT_START) else 0


def spoken(rng: Random, reply: str) -> str:
    """A scripted reply, now and then with a gentle or a direct sentence before or after it."""
    point = rng.random()
    if point >= 2 * SHARE:
        return reply
    said = pick(rng, GENTLE if point < SHARE else DIRECT)
    return f"{said} {reply}" if rng.random() < 0.7 else f"{reply} {said}"
