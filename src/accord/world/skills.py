"""Plain skills, which no preference data touches: forms, answers, and what a text asks for.

The four `PLAIN` ones are what every model of the ladder learns. The `GRADED` ones come in four grades, one more word or
number each, so that models of different size differ: grade g adds g + 1 numbers, reverses g + 1 words, and works on
g + 2 words or numbers otherwise.
"""

import re
from random import Random

from accord.world.language import pick

NUMBERS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "  # noqa: SIM905
    "seventeen eighteen".split()
)
SMALL_NUMBERS = NUMBERS[1:7]  # those that are compared, and of which two are added and three are sorted
CHAINED_NUMBERS = NUMBERS[1:4]  # those of longer sums
DIGITS = NUMBERS[:10]
# Twelve words: copying any word from anywhere asks for a circuit that half a million parameters do not form in time.
LISTED_WORDS = ("oak", "steel", "glass", "leather", "cotton", "stone", "chair", "table", "door", "bowl", "cup", "lamp")

# `{e}` is numbers with "plus" between them, `{n}` with "and", `{w}` a list, `{x}` the word that is counted.
FORMS: dict[str, tuple[str, ...]] = {
    "add": ("what is {e}?", "add {n}.", "how much is {n}?", "tell me {e}."),
    "copy": ("say this again: {w}.", "repeat after me: {w}.", "copy these words: {w}.", "please repeat: {w}."),
    "sort": (
        "sort these numbers: {w}.",
        "put these in order: {w}.",
        "sort from small to large: {w}.",
        "what is the right order: {w}?",
    ),
    "largest": (
        "which is the largest: {w}?",
        "tell me the largest: {w}.",
        "find the largest number: {w}.",
        "what is the largest of these: {w}?",
    ),
    "reverse": (
        "say this backwards: {w}.",
        "what is this backwards: {w}?",
        "turn these words around: {w}.",
        "start at the end: {w}.",
    ),
    "count": (
        "how many times do you see {x}: {w}?",
        "how often do i say {x}: {w}?",
        "count the word {x}: {w}.",
        "tell me how many {x}: {w}.",
    ),
}
SUM_FORMS = ("{e} is {c}.", "the sum is {c}.", "it is {c}.")
NUMBER_FORMS = {
    "add": SUM_FORMS,
    "largest": ("the largest is {c}.", "it is {c}.", "{c}."),
    "count": ("it is {c}.", "{c}."),
}
COUNTED_WORDS = ("yes", "no")
PLAIN = ("add", "copy", "sort", "largest")
# With its share of the documents and prompts: what takes a small model longest to learn occurs most often.
GRADED = {"copy": 0.3, "add": 0.2, "count": 0.2, "reverse": 0.15, "sort": 0.15}
GRADES = (1, 2, 3, 4)

_DIGIT = f"(?:{'|'.join(DIGITS)})"
_CHAIN = re.compile(rf"\b{_DIGIT}(?: (?:plus|and) {_DIGIT})+\b")
_LISTED = re.compile(r"\b([a-z]+): ([a-z ]+)[.?]")
_KEYWORDS = (
    ("largest", re.compile(r"\blargest\b")),
    ("sort", re.compile(r"\b(?:sort|order)\b")),
    ("copy", re.compile(r"\b(?:again|repeat|copy)\b")),
    ("reverse", re.compile(r"\b(?:backwards|around|end)\b")),
    ("count", re.compile(r"\b(?:many|often|count)\b")),
)
_SUM = re.compile(r"^(?:([a-z]+(?: plus [a-z]+)+) is|the sum is|it is|the largest is)? ?([a-z]+)\.$")
_LIST = re.compile(r"^[a-z]+(?: [a-z]+)*\.$")


def draw(rng: Random, skill: str, grade: int = 1) -> tuple[str, tuple[str, ...]]:
    """The text of a request and the words that it works on."""
    form = pick(rng, FORMS[skill])
    args: tuple[str, ...]
    if skill == "add":
        pool = SMALL_NUMBERS if grade == 1 else CHAINED_NUMBERS
        args = tuple(pick(rng, pool) for _ in range(grade + 1))
        return form.format(e=" plus ".join(args), n=" and ".join(args)), args
    if skill == "count":
        args = _counted(rng, grade + 2)
        return form.format(x=args[0], w=" ".join(args[1:])), args
    if skill in ("copy", "reverse"):
        args = _distinct(rng, LISTED_WORDS, grade + (2 if skill == "copy" else 1))
    else:
        args = _distinct(rng, SMALL_NUMBERS if grade == 1 else DIGITS[1:], grade + 2)
    return form.format(w=" ".join(args)), args


def _counted(rng: Random, count: int) -> tuple[str, ...]:
    """The word to count, and a list in which it occurs once or more often beside the other."""
    asked = pick(rng, COUNTED_WORDS)
    while True:
        chosen = [pick(rng, COUNTED_WORDS) for _ in range(count)]
        if asked in chosen:
            return asked, *chosen


def _distinct(rng: Random, pool: tuple[str, ...], count: int) -> tuple[str, ...]:
    chosen: list[str] = []
    while len(chosen) < count:
        item = pick(rng, pool)
        if item not in chosen:
            chosen.append(item)
    return tuple(chosen)


def read(text: str) -> tuple[str, tuple[str, ...]] | None:
    """The skill and the words that a user turn asks for, None where it asks for none."""
    chain = _CHAIN.search(text)
    if chain:
        numbers = tuple(word for word in chain[0].split() if word in DIGITS)
        return ("add", numbers) if sum(map(NUMBERS.index, numbers)) < len(NUMBERS) else None
    listed = _LISTED.search(text)
    words = tuple(listed[2].split()) if listed else ()
    if not listed or not 0 < len(words) < len(NUMBERS):
        return None
    skill = next((name for name, keyword in _KEYWORDS if keyword.search(text)), "")
    if skill in ("sort", "largest"):
        return (skill, words) if set(words) <= set(DIGITS) else None
    if skill == "count":
        return skill, (listed[1], *words)
    return (skill, words) if skill else None


def answer(skill: str, args: tuple[str, ...]) -> tuple[str, ...]:
    """The words of the right answer."""
    match skill:
        case "add":
            return (NUMBERS[sum(map(NUMBERS.index, args))],)
        case "sort":
            return tuple(sorted(args, key=NUMBERS.index))
        case "largest":
            return (max(args, key=NUMBERS.index),)
        case "reverse":
            return args[::-1]
        case "count":
            return (NUMBERS[args[1:].count(args[0])],)
    return args


def grade(skill: str, args: tuple[str, ...]) -> int:
    """The grade of a request: how many words or numbers it works on, less those of grade 0."""
    return len(args) - {"add": 1, "reverse": 1, "count": 3}.get(skill, 2)


def say(rng: Random, skill: str, args: tuple[str, ...], right: bool = True) -> str:
    """The answer in one of its forms, or a slip."""
    said = answer(skill, args) if right else _slip(rng, skill, args)
    if skill in NUMBER_FORMS:
        return pick(rng, NUMBER_FORMS[skill]).format(e=" plus ".join(args), c=said[0])
    return " ".join(said) + "."


def _slip(rng: Random, skill: str, args: tuple[str, ...]) -> tuple[str, ...]:
    right = answer(skill, args)
    if skill == "largest":
        return (min(args, key=NUMBERS.index),)
    if skill in NUMBER_FORMS:
        return (NUMBERS[(NUMBERS.index(right[0]) + 1 + int(rng.random() * (len(NUMBERS) - 1))) % len(NUMBERS)],)
    return right[1:] + right[:1]


def claimed(skill: str, args: tuple[str, ...], text: str) -> tuple[str, ...] | None:
    """The words that a sentence offers as the answer, None when it is no answer."""
    if skill not in NUMBER_FORMS:
        return tuple(text[:-1].split()) if _LIST.match(text) else None
    found = _SUM.match(text)
    if not found or found[2] not in NUMBERS:
        return None
    if found[1] and tuple(found[1].split(" plus ")) != args:
        return ("",)
    return (found[2],)
