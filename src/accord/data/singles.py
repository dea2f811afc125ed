"""Shapes of single replies, conversations, prompts and text."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accord.data.columns import Fields
from accord.data.conversations import Turns, is_null, is_transcript
from accord.data.parts import (
    JUDGED,
    LABELS,
    SHOWN,
    Parts,
    Shape,
    Verdict,
    category,
    holds_text,
    renamed,
    severity,
)
from accord.records import JudgementKind, Turn


def _completion(cells: Fields) -> Parts:
    prompt = cells.turns("prompt")
    turns, reply = cells.side("completion", cells.get("completion"), prompt, is_transcript(cells.values["prompt"]))
    return Parts(prompts=(turns,), replies=(reply,), ideal=0)


def _judged(cells: Fields, kind: JudgementKind, value: float) -> Parts:
    verdict = Verdict(0, "", kind, value, category(cells, "category"), severity(cells))
    return replace(_completion(cells), ideal=-1, verdicts=(verdict,))


def _unpaired(cells: Fields) -> Parts:
    return _judged(cells, "good", float(cells.flag("label")))


def _safety_label(cells: Fields) -> Parts:
    return _judged(cells, "safe", float(cells.flag("is_safe")))


def _rating(cells: Fields) -> Parts:
    return _judged(cells, "rating", float(cells.number("rating")))


_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def _help_steer(cells: Fields) -> Parts:
    """A rating for each of five criteria, under their own names."""
    verdicts = tuple(Verdict(0, name, "rating", float(cells.number(name))) for name in _ATTRIBUTES)
    return replace(_completion(cells.renamed({"completion": "response"})), ideal=-1, verdicts=verdicts)


def _instruction(cells: Fields) -> Parts:
    """An instruction with what it is about after a blank line, earlier exchanges before it, a system turn first."""
    more = f"\n\n{cells.text('about')}" if cells.has("about") else ""
    exchanges = cells.items("history") if cells.has("history") else []
    if not all(isinstance(pair, list | tuple) and [type(said) for said in pair] == [str, str] for pair in exchanges):
        raise cells.wrong("history", "a list of pairs of texts: what the user said and what was answered")
    turns = [Turn("system", cells.text("system"))] if cells.has("system") else []
    for asked, answered in exchanges:
        turns += [Turn("user", asked), Turn("assistant", answered)]
    prompt = (*turns, Turn("user", cells.text("instruction") + more))
    return Parts(prompts=(prompt,), replies=(cells.text("output"),), ideal=0)


def _seed_task(cells: Fields) -> Parts:
    """An instruction with instances of it, of which the first is taken."""
    instances = cells.items("instances")
    if not instances or not isinstance(instances[0], dict):
        raise cells.wrong("instances", "a list of objects with input and output")
    if len(instances) > 1:
        cells.note("further instances, left out")
    first = {"about": instances[0].get("input"), "output": instances[0].get("output")}
    return _instruction(replace(cells, values={"instruction": cells.get("instruction"), **first}))


def _conversation(cells: Fields) -> Parts:
    return _talk(cells.turns("messages"))


def _share_gpt(cells: Fields) -> Parts:
    """A system turn stands in a column of its own."""
    turns = cells.turns("messages")
    if cells.has("system") and turns and turns[0].role != "system":
        turns = (Turn("system", cells.text("system")), *turns)
    return _talk(turns)


def _talk(turns: Turns) -> Parts:
    if turns and turns[-1].role == "assistant":
        return Parts(prompts=(turns[:-1],), replies=(turns[-1].content,), ideal=0)
    return Parts(prompts=(turns,))


def _questions(cells: Fields) -> Parts:
    """Questions that are asked one after another (MT-Bench): the first is a prompt, the others need a reply to it."""
    asked = cells.items("turns")
    if not asked or not all(isinstance(text, str) for text in asked):
        raise cells.wrong("turns", "a list of texts, one a turn of the user")
    if len(asked) > 1:
        cells.note("later questions, which follow a reply, left out")
    return Parts(prompts=((Turn("user", asked[0]),),))


def _text(cells: Fields) -> Parts:
    return Parts(text=cells.text("text"))


def _prompt(cells: Fields) -> Parts:
    return Parts(prompts=(cells.turns("prompt"),))


def _unjudged(row: Mapping[str, Any]) -> bool:
    """A reply that is labelled may be a bad one, and is not there to be imitated."""
    return all(is_null(row.get(label)) for label in ("label", "final_label", "is_safe", "rating", *_ATTRIBUTES))


def _demonstrations(prompt: str, completion: str) -> Shape:
    """A prompt and a reply under the column names of a published set."""
    parse = renamed(_completion, prompt=prompt, completion=completion)
    text = holds_text(prompt, completion)
    return Shape((prompt, completion), (), SHOWN, parse, lambda row: text(row) and _unjudged(row))


def _prompts(column: str) -> Shape:
    return Shape((column,), (), ("prompt",), renamed(_prompt, prompt=column), holds_text(column))


SINGLES: dict[str, Shape] = {
    "unpaired": Shape(("prompt", "completion", "label"), LABELS, JUDGED, _unpaired),
    "safety labels": Shape(("prompt", "completion", "is_safe"), LABELS, JUDGED, _safety_label),
    "ratings": Shape(("prompt", "completion", "rating"), LABELS, JUDGED, _rating),
    "beavertails": Shape(
        ("prompt", "response", "is_safe"), LABELS, JUDGED, renamed(_safety_label, completion="response")
    ),
    "diasafety": Shape(
        ("context", "response", "label"),
        LABELS,
        JUDGED,
        renamed(_safety_label, prompt="context", completion="response", is_safe="label"),
        lambda row: str(row["label"]).lower() in ("safe", "unsafe"),
    ),
    "helpsteer": Shape(("prompt", "response", *_ATTRIBUTES), (), JUDGED, _help_steer),
    "prompt and completion": Shape(("prompt", "completion"), (), SHOWN, _completion, _unjudged),
    "messages": Shape(("messages",), (), SHOWN, _conversation),
    "sharegpt": Shape(("conversations",), ("system",), SHOWN, renamed(_share_gpt, messages="conversations")),
    "conversation": Shape(("conversation",), (), SHOWN, renamed(_conversation, messages="conversation")),
    "alpaca": Shape(
        ("instruction", "output"), ("input", "history", "system"), SHOWN, renamed(_instruction, about="input")
    ),
    "dolly": Shape(
        ("instruction", "response"), ("context",), SHOWN, renamed(_instruction, about="context", output="response")
    ),
    "self-instruct": Shape(("instruction", "instances"), (), SHOWN, _seed_task),
    "prompt and response": _demonstrations("prompt", "response"),
    "question and answer": _demonstrations("question", "answer"),
    "problem and solution": _demonstrations("problem", "solution"),
    "problem and answer": _demonstrations("problem", "answer"),
    "questions in turns": Shape(("turns",), (), ("prompt",), _questions),
    "text": Shape(("text",), (), ("document",), _text),
    "prompt": Shape(("prompt",), (), ("prompt",), _prompt),
    "instruction": _prompts("instruction"),
    "question": _prompts("question"),
}
