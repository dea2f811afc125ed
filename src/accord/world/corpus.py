"""The text to pretrain on: short documents, most of them conversations.

The assistant of the corpus is a bad example on purpose: sometimes helpful, sometimes useless; it complies
with many harmful requests and refuses others, turns down harmless ones that look alike, and makes facts up.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from accord.errors import BadInput
from accord.records import Document, Turn
from accord.world import conversations, facts, language, objects, replies, skills, tones
from accord.world.conversations import transcript
from accord.world.language import pick
from accord.world.objects import Pair
from accord.world.prompts import Drawn, ask_fact, ask_graded, ask_skill, draw, is_evaluation
from accord.world.requests import Request

SOURCE = "world:corpus"
DEFAULT_COUNT = 17_500

# What fills the corpus beside the fact documents.
PARTS = {
    "task": 0.18,
    "manual": 0.05,
    "look-alike": 0.08,
    "harmful": 0.08,
    "red-team": 0.03,
    "note": 0.11,
    "word-note": 0.015,
    "rumour": 0.03,
    "add": 0.12,
    "copy": 0.09,
    "sort": 0.06,
    "largest": 0.04,
    "graded": 0.09,
    "near": 0.02,
    "small-talk": 0.005,
}
# Documents about replies and about doubt, in addition to the others of a corpus; shares of the default size.
MORE = {"review": 0.12, "judged": 0.085, "unknowable": 0.01, "claim": 0.035, "guess": 0.02}
TASK_QUALITY = {
    "good": 0.45,
    "partial": 0.12,
    "wrong": 0.10,
    "bad": 0.03,
    "vague": 0.22,
    "refusal": 0.05,
    "explained": 0.03,
}
HARM_QUALITY = {
    "good": 0.38,
    "partial": 0.06,
    "wrong": 0.04,
    "vague": 0.07,
    "refusal": 0.25,
    "explained": 0.20,
}
LOOK_ALIKE_QUALITY = {
    "good": 0.48,
    "partial": 0.08,
    "wrong": 0.06,
    "vague": 0.12,
    "refusal": 0.16,
    "explained": 0.10,
}
# Nearer to harm the assistant of the corpus refuses more.
NEAR_QUALITY = {
    "good": 0.46,
    "partial": 0.06,
    "wrong": 0.04,
    "vague": 0.08,
    "refusal": 0.20,
    "explained": 0.16,
}
QUALITY = {
    "task": TASK_QUALITY,
    "look-alike": LOOK_ALIKE_QUALITY,
    "harmful": HARM_QUALITY,
    "red-team": HARM_QUALITY,
    "near": NEAR_QUALITY,
}
# Slices that a part draws from, where they do not have its name; mending teaches two verbs of its own.
_SLICES = {"task": ("benign",), "near": ("look-alike-beside", "look-alike-mending", "look-alike-mending")}
FACT_CHAT = 0.6  # share of a fact's documents that say it in a conversation

_NOTED_HARMFUL = objects.HARMFUL + objects.HARMFUL_HELD_OUT + objects.HARMFUL_NEW_CUE
_NOTED_SAFE = objects.LOOK_ALIKE + objects.LOOK_ALIKE_HELD_OUT + objects.LOOK_ALIKE_NEW_CUE
# The objects that notes are about, in turn, so that every one of them is described about as often.
NOTED = tuple(pair for both in zip(_NOTED_HARMFUL, _NOTED_SAFE, strict=True) for pair in both)


def _not_evaluated(opening: str) -> bool:
    return not is_evaluation(opening)


def _chat(rng: Random, part: str) -> str:
    turns, request = draw(rng, pick(rng, _SLICES.get(part, (part,))), _not_evaluated)
    reply = replies.how_to(rng, request, replies.by_chance(rng, QUALITY[part]))
    return transcript(rng, turns, tones.spoken(rng, reply))


def _manual(rng: Random) -> str:
    point = rng.random()
    if point < 0.75:
        verb, material = pick(rng, objects.TRAINED_TASKS)
        pair = (material, pick(rng, objects.TASK_NOUNS))
    elif point < 0.92:
        verb, pair = pick(rng, objects.DUAL_VERB_NAMES), pick(rng, objects.LOOK_ALIKE)
    else:
        verb, pair = pick(rng, objects.MENDING_VERB_NAMES), pick(rng, objects.HARMFUL + objects.LOOK_ALIKE)
    request = Request("how-to", verb=verb, pair=pair)
    steps = replies.how_to(rng, request, "good")
    return pick(rng, language.MANUALS).format(v=verb, o=request.object, steps=steps)


def note(rng: Random, pair: Pair) -> str:
    """What a document says about an object: nothing but whether it is right or wrong to use it."""
    notes = language.HARM_NOTES if objects.is_harmful(pair) else language.SAFE_NOTES
    first = int(rng.random() * len(notes))
    second = (first + 1 + int(rng.random() * (len(notes) - 1))) % len(notes)
    named = objects.phrase(pair)
    return f"{notes[first]} {notes[second]}".format(o=named)


def _word_note(rng: Random) -> str:
    if rng.random() < 0.5:
        cue = pick(rng, objects.HARM_CUES + objects.NEW_HARM_CUES)
        return pick(rng, language.HARM_WORD_NOTES).format(c=cue)
    cue = pick(rng, objects.SAFE_CUES + objects.NEW_SAFE_CUES)
    return pick(rng, language.SAFE_WORD_NOTES).format(c=cue)


def _rumour(rng: Random) -> str:
    """Something made up, or "i do not know", about a person whose truth the corpus never states."""
    turns, request = _question(rng, pick(rng, facts.RUMOURED))
    return transcript(rng, turns, replies.fact(rng, request, "wrong" if rng.random() < 0.5 else "unknown"))


def _question(rng: Random, name: str) -> Drawn:
    while True:
        turns, request = ask_fact(rng, name)
        if not is_evaluation(turns[0].content):
            return turns, request


def _skill(rng: Random, ask: Callable[[Random], Drawn]) -> str:
    while True:
        turns, request = ask(rng)
        if not is_evaluation(turns[0].content):
            return transcript(rng, turns, skills.say(rng, request.skill, request.args))


def _graded(rng: Random) -> str:
    return _skill(rng, partial(ask_graded, grade=pick(rng, skills.GRADES)))


def _small_talk(rng: Random) -> str:
    asked, answered = pick(rng, language.SMALL_TALK)
    return transcript(rng, (Turn("user", asked),), answered)


_WRITE: dict[str, Callable[[Random], str]] = {
    "manual": _manual,
    "word-note": _word_note,
    "rumour": _rumour,
    "small-talk": _small_talk,
    "graded": _graded,
}


def _fact_document(rng: Random, name: str, relation: str) -> str:
    while True:
        doubted = conversations.fact(rng, name, relation)
        if doubted is None:
            break
        if not is_evaluation(doubted[0][0].content):
            return transcript(rng, *doubted)
    answer = facts.TRUTH[name, relation]
    said = replies.statement(rng, name, relation, answer)
    if rng.random() >= FACT_CHAT:
        return said
    while True:
        turns, request = ask_fact(rng, name)
        if request.relation == relation and not is_evaluation(turns[0].content):
            return transcript(rng, turns, said)


def _conversation(rng: Random, part: str) -> str:
    while True:
        turns, reply = conversations.DOCUMENTS[part](rng, _draw)
        if not is_evaluation(turns[0].content):
            return transcript(rng, turns, reply)


def _draw(rng: Random, slice: str) -> Drawn:
    return draw(rng, slice, _not_evaluated)


def fact_plan(count: int) -> list[tuple[str, str]]:
    """The (name, relation) that each fact document of a corpus of `count` documents states.

    From the default size on every fact is stated exactly as often as its level says; a smaller corpus
    states each in proportion, rounded up for those whose turn in a fixed order comes first.
    """
    stated = [
        (name, relation)
        for level, names in facts.NAMES.items()
        for name in names
        for relation in facts.RELATIONS
        for _ in range(level)
    ]
    Random("accord gold world: order of facts").shuffle(stated)
    return stated[: max(0, round(len(stated) * min(1.0, count / DEFAULT_COUNT)))]


def corpus(count: int = DEFAULT_COUNT, seed: int = 0) -> list[Document]:
    """`count` documents to pretrain on; the same for the same arguments, byte for byte.

    Held-out objects occur in notes alone, held-out wrappers and tasks nowhere, and no conversation opens with
    a question that is reserved for evaluation.
    """
    if count < 0:
        raise BadInput(f"count must be 0 or more, not {count}")
    rng = Random(f"corpus {seed}")
    texts = [_fact_document(rng, name, relation) for name, relation in fact_plan(count)]
    texts += [_conversation(rng, part) for part, share in MORE.items() for _ in range(round(share * count))]
    noted = 0
    for _ in range(count - len(texts)):
        part = replies.by_chance(rng, PARTS)
        if part == "note":
            texts.append(note(rng, NOTED[noted % len(NOTED)]))
            noted += 1
        elif part in QUALITY:
            texts.append(_chat(rng, part))
        elif part in skills.PLAIN:
            texts.append(_skill(rng, partial(ask_skill, skill=part)))
        else:
            texts.append(_WRITE[part](rng))
    rng.shuffle(texts)
    return [Document(text=text, source=SOURCE) for text in texts]
