"""Protocols of servers: how a question travels, and how probabilities are read off what comes back.

A way that a server does not really know is `Unsupported`, never half believed: the next one of its protocol is taken,
and every record says which it was.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accord.engine.remote.http import CallFailed
from accord.labelers.labeler import Draft, Writing
from accord.labelers.questions import Method, Question
from accord.records import Turn, as_messages

TOP = 20  # likeliest tokens that are asked for; no server gives more
CUT = "cut at the longest text that was asked for"
WORDS = 16  # tokens of an answer that was drawn
STATED = 128  # tokens of an answer in JSON
_AROUND = " \t\r\n()[]{}\"'`*.,:;!▁Ġ"

Read = Callable[[Any], Any]
# sends a body to the protocol's route, its answer in tokens at most, and gives what `read` makes of the answer
Post = Callable[[dict[str, Any], int, Read], Any]
Way = Callable[[Post, Question], tuple[float, ...]]


class Unsupported(Exception):
    """A server has not done what it was asked for, and did not say so."""


class Beside(Exception):
    """What came back is none of the answers; another way may find one."""


@dataclass(frozen=True)
class Wire:
    """A protocol: its route, how its key is sent, its ways to an answer (the best first), and how it writes a text."""

    route: str
    key_variable: str
    headers: Callable[[str], dict[str, str]]
    ways: Mapping[Method, Way]
    write: Callable[[Post, Sequence[Turn], Writing, int], list[Draft]] | None
    usage: tuple[str, str]


def field(answer: Any, *path: str | int) -> Any:
    """What stands at a place of an answer. Raises CallFailed, to be tried again, where nothing does."""
    for key in path:
        try:
            answer = answer[key]
        except (KeyError, IndexError, TypeError):
            raise CallFailed(f"answered without {'.'.join(map(str, path))}", 200, passing=True) from None
    return answer


def place_of(text: str, answers: Sequence[str]) -> int | None:
    """Which answer a token or a short text is, in any case and with any marks around; None for anything else."""
    plain = text.strip(_AROUND).casefold()
    found = [i for i, answer in enumerate(answers) if answer.strip(_AROUND).casefold() == plain]
    return found[0] if len(found) == 1 else None


def normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """Shares of their sum. Raises Unsupported where they are no distribution."""
    if not all(isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise Unsupported("gave no probabilities")
    return tuple(float(w) / sum(weights) for w in weights)


def read_top(choice: Any, answers: Sequence[str]) -> tuple[float, ...]:
    """Probabilities of the first token. An answer that is not among the likeliest has at most the least of theirs."""
    content = ((choice.get("logprobs") or {}) if isinstance(choice, dict) else {}).get("content") or [{}]
    top = content[0].get("top_logprobs") if isinstance(content[0], dict) else None
    if not top:
        raise Unsupported("gave no log-probs")
    weights: list[float] = [0.0] * len(answers)
    for entry in top:
        logprob = entry.get("logprob")
        if not isinstance(logprob, int | float) or not math.isfinite(logprob) or logprob > 1e-3:
            raise Unsupported(f"gave {logprob!r} as a log-prob")
        if (place := place_of(str(entry.get("token")), answers)) is not None:
            weights[place] += math.exp(logprob)
    if not any(weights):
        raise Beside("begins with none of the answers")
    least = min(math.exp(entry["logprob"]) for entry in top)
    return normalised([weight or least for weight in weights])


def shares(drawn: Sequence[str], answers: Sequence[str]) -> tuple[float, ...]:
    """Shares of the answers among drawn texts, half an answer added to each, so that none is impossible.

    Raises Beside where no text is an answer.
    """
    places = [place_of(text.strip().splitlines()[0] if text.strip() else "", answers) for text in drawn]
    if all(place is None for place in places):
        raise Beside(f"drew {len(drawn)} answers, and none is one of {', '.join(answers)}")
    return normalised([places.count(i) + 0.5 for i in range(len(answers))])


def by_logprobs(post: Post, question: Question) -> tuple[float, ...]:
    """The answer's first token, with the log-probs of the likeliest."""
    body = {"messages": as_messages(question.turns), "temperature": 1.0, "logprobs": True, "top_logprobs": TOP}
    choice = post(body, 1, lambda answer: field(answer, "choices", 0))
    return read_top(choice, question.answers)


def by_schema(post: Post, question: Question) -> tuple[float, ...]:
    """Probabilities that the model states, in JSON that the server holds it to."""
    schema = {"name": "answer", "strict": True, "schema": answer_schema(question)}
    body = {
        "messages": as_messages(stating(question)),
        "temperature": 0.0,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    text = post(body, STATED, lambda answer: field(answer, "choices", 0, "message", "content"))
    try:
        stated = json.loads(text)
        return normalised([stated[answer] for answer in question.answers])
    except (ValueError, KeyError, TypeError):
        raise Unsupported("wrote no JSON of the schema") from None


def by_tool(post: Post, question: Question) -> tuple[float, ...]:
    """Probabilities that the model states, as the arguments of a tool that it must use."""
    body = {
        **anthropic_turns(stating(question)),
        "temperature": 0.0,
        "tools": [{"name": "answer", "input_schema": answer_schema(question)}],
        "tool_choice": {"type": "tool", "name": "answer"},
    }
    parts = post(body, STATED, lambda answer: field(answer, "content"))
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "tool_use" and isinstance(part.get("input"), dict):
            return normalised([part["input"].get(answer, -1) for answer in question.answers])
    raise Unsupported("used no tool")


def by_decision(post: Post, question: Question) -> tuple[float, ...]:
    """A typed decision: the probability of every option from one forward pass, no text."""
    asked: dict[str, Any] = {"instructions": question.asked}
    if question.kind == "yes-no":
        asked |= {"type": "noul"}
    elif question.kind == "score":
        asked |= {"type": "score", "criteria": list(question.answers)}
    else:
        asked |= {"type": "choice", "criteria": dict.fromkeys(question.answers)}
    body = {"state": question.state, "questions": {"asked": asked}}
    said = post(body, 0, lambda answer: field(answer, "answers", "asked"))
    if question.kind == "yes-no":
        return normalised([field(said, "noul"), 1 - field(said, "noul")])
    names = question.answers if question.kind == "choice" else [str(i) for i in range(len(question.answers))]
    return normalised([field(said, "probabilities", name) for name in names])


def drawn_from(draw: Callable[[Post, Sequence[Turn], Writing, int], list[Draft]], count: int) -> Way:
    """The way of drawing `count` answers, however many calls that takes."""

    def way(post: Post, question: Question) -> tuple[float, ...]:
        texts: list[str] = []
        while len(texts) < count:
            drafts = draw(post, question.turns, Writing(WORDS, 1.0, len(texts)), count - len(texts))
            texts += [draft.text for draft in drafts]
        return shares(texts[:count], question.answers)

    return way


def draw_openai(post: Post, turns: Sequence[Turn], how: Writing, count: int) -> list[Draft]:
    """Up to `count` texts of one call: a server that takes no notice of `n` gives one."""
    body = {"messages": as_messages(turns), "temperature": how.temperature, "seed": how.seed % 2**31, "n": count}
    choices = post(body, how.max_new_tokens * count, lambda answer: _texts(field(answer, "choices")))
    return [Draft(text, CUT if finish == "length" else "") for text, finish in choices]


def draw_anthropic(post: Post, turns: Sequence[Turn], how: Writing, count: int) -> list[Draft]:
    """One text: the protocol has no `n`, and no seed."""
    body = {**anthropic_turns(turns), "temperature": min(how.temperature, 1.0)}
    parts, finish = post(body, how.max_new_tokens, lambda a: (field(a, "content"), field(a, "stop_reason")))
    text = "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
    return [Draft(text, CUT if finish == "max_tokens" else "")]


def _texts(choices: Any) -> list[tuple[str, Any]]:
    texts = [(field(choice, "message", "content"), field(choice, "finish_reason")) for choice in choices]
    if not texts or not all(isinstance(text, str) for text, _ in texts):
        raise CallFailed("answered without a text", 200, passing=True)
    return texts


def answer_schema(question: Question) -> dict[str, Any]:
    """An object with a probability for every answer."""
    numbers = {answer: {"type": "number"} for answer in question.answers}
    return {"type": "object", "properties": numbers, "required": list(numbers), "additionalProperties": False}


def stating(question: Question) -> tuple[Turn, ...]:
    """The question, with the wish for probabilities in JSON at its end."""
    (*before, last) = question.turns
    names = ", ".join(json.dumps(answer) for answer in question.answers)
    asked = f"{last.content}\n\nGive the probability from 0 to 1 that each answer ({names}) is right, as JSON."
    return (*before, Turn(last.role, asked))


def anthropic_turns(turns: Sequence[Turn]) -> dict[str, Any]:
    """Turns as that protocol has them: what the system says apart."""
    said = [turn for turn in turns if turn.role != "system"]
    system = "\n\n".join(turn.content for turn in turns if turn.role == "system")
    return {"messages": as_messages(said), **({"system": system} if system else {})}


def wires(samples: int) -> dict[str, Wire]:
    """The protocols by name; `samples` answers are drawn where nothing else is known."""
    bearer = ("prompt_tokens", "completion_tokens")
    return {
        "openai": Wire(
            "/chat/completions",
            "OPENAI_API_KEY",
            lambda key: {"Authorization": f"Bearer {key}"} if key else {},
            {"logprobs": by_logprobs, "json": by_schema, "samples": drawn_from(draw_openai, samples)},
            draw_openai,
            bearer,
        ),
        "anthropic": Wire(
            "/messages",
            "ANTHROPIC_API_KEY",
            lambda key: {"anthropic-version": "2023-06-01", **({"x-api-key": key} if key else {})},
            {"json": by_tool, "samples": drawn_from(draw_anthropic, samples)},
            draw_anthropic,
            ("input_tokens", "output_tokens"),
        ),
        "systemone": Wire(
            "/systemone",
            "TYPESAFE_API_KEY",
            lambda key: {"Authorization": f"Bearer {key}"} if key else {},
            {"decision": by_decision},
            None,
            ("input_tokens", "output_tokens"),
        ),
    }
