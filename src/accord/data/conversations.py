"""Conversations as cells hold them: lists of messages in their published forms, JSON text of them, HH transcripts.

What is no conversation raises BadInput; a row that is well formed but of no use raises `Dropped` with a reason that
is counted.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from accord.errors import BadInput
from accord.records import ROLES, Turn

Turns = tuple[Turn, ...]
Wrong = Callable[[str], BadInput]  # what a cell must hold → the refusal, with the place of the cell

# Names that other formats use for our roles, in lower case.
ROLE_NAMES = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("function", "observation", "ipython", "tool_response", "function_response"), "tool"),
    "developer": "system",
}
CALLS = frozenset({"function_call", "tool_call"})  # roles of a turn that calls a tool and says nothing
KNOWN = CALLS | set(ROLE_NAMES)
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
TOOL_PARTS = frozenset({"tool_use", "tool_call", "tool_result", "function_call"})
MEDIA_PARTS = frozenset({"image", "image_url", "input_image", "audio", "input_audio", "video", "video_url", "file"})
THOUGHTS = frozenset({"thinking", "reasoning", "reasoning_content"})  # as types of parts and as keys of messages


class Dropped(Exception):
    """A row that gives no record; the argument is the reason it is counted under."""


def is_null(value: object) -> bool:
    """None, or the NaN that tables put in its place."""
    return value is None or (isinstance(value, float) and value != value)


# Lists of messages


def read_messages(value: Any, wrong: Wrong, note: Callable[[str], None]) -> Turns:
    """The turns of a list of messages, or of one: role and content, or from and value; content is text or parts of it.

    `note` takes what was seen and left out without harm. Raises `Dropped` for images, tool calls and null contents.
    """
    if isinstance(value, dict) and len(value) > 1 and all(isinstance(cells, list) for cells in value.values()):
        # Arrow's Sequence of structs: an object of lists for a list of objects
        names, columns = value.keys(), value.values()
        value = [dict(zip(names, cells, strict=False)) for cells in zip(*columns, strict=False)]
    messages = [value] if isinstance(value, dict) else value
    if not isinstance(messages, list | tuple):
        raise wrong("text or a list of messages")
    return tuple(_read_message(message, wrong, note) for message in messages)


def _read_message(message: Any, wrong: Wrong, note: Callable[[str], None]) -> Turn:
    if not isinstance(message, dict):
        raise wrong("messages that are objects with role and content")
    role = message.get("from") if is_null(message.get("role")) else message["role"]
    if not isinstance(role, str) or role.lower() not in KNOWN:
        raise wrong(f"messages whose role is one of {', '.join(ROLE_NAMES)}")
    if role.lower() in CALLS or message.get("tool_calls") or message.get("function_call"):
        raise Dropped("tool call")
    if any(message.get(key) for key in THOUGHTS):
        note("thoughts beside the content, left out")
    content = message.get("value") if is_null(message.get("content")) else message["content"]
    if is_null(content):
        raise Dropped("no content")
    return Turn(ROLE_NAMES[role.lower()], _read_content(content, wrong, note))


def _read_content(content: Any, wrong: Wrong, note: Callable[[str], None]) -> str:
    """Text, or the text parts of a list of parts, each on a line of its own as servers join them."""
    if isinstance(content, str):
        return content
    said = []
    for part in content if isinstance(content, list | tuple) else [content]:
        kind = part.get("type") or "text" if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind in THOUGHTS:
            note("thoughts beside the content, left out")
        elif kind in TOOL_PARTS:
            raise Dropped("tool call")
        elif kind not in TEXT_PARTS:
            raise Dropped(f"{kind} part" if kind in MEDIA_PARTS else "part of another type than text")
        elif not isinstance(text, str):
            raise wrong("messages whose content is text or parts of text")
        else:
            said.append(text)
    return "\n".join(said)


_LOOKS_LIKE_MESSAGES = re.compile(r"""\s*\[?\s*\{\s*["'](role|content|from|value)["']\s*:""")
_NO_COMMA = re.compile(r"\}\s*\n\s*\{")  # how numpy prints an array of objects; no string in a repr holds a line end


def unpack(value: Any) -> Any:
    """The messages that a cell holds as JSON text, or as Python or numpy printed them; anything else as it is.

    Arrow wants one type for a column, and a CSV table knows text alone, so conversations are published in this way.
    """
    if not (isinstance(value, str) and _LOOKS_LIKE_MESSAGES.match(value)):
        return value
    found = parse_text(value)
    if found is None:
        found = parse_text(_NO_COMMA.sub("}, {", value))
    if found is None:
        raise Dropped("messages as text that is neither JSON nor Python")
    return found if holds_messages(found) else value


def parse_text(text: str) -> Any:
    """A list or an object written as JSON or as a Python literal; None if it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def holds_messages(value: Any) -> bool:
    """Whether a value is a message, or a list of them."""
    messages = [value] if isinstance(value, dict) else value
    return (
        isinstance(messages, list | tuple)
        and len(messages) > 0
        and all(isinstance(m, dict) and ("role" in m or "from" in m) for m in messages)
    )


# A prompt beside sides that hold it too


def join_prompt(prompt: Turns, head: Turns) -> Turns:
    """The prompt of a side whose messages before its reply are `head`, where a column holds the `prompt` as well.

    White space around turns is no difference. Where the head repeats the prompt (after a system turn, or as its last
    question) it is the whole; where it goes on from the prompt the two are joined. Raises `Dropped` where they say
    different things.
    """
    if not head or not prompt:
        return head or prompt
    said, whole = _bare(prompt), _bare(head)
    if any(whole[start : start + len(said)] == said for start in range(len(whole) - len(said) + 1)):
        return head
    system = len([turn for turn in prompt if turn.role == "system"])
    if whole[: len(said) - system] == said[system:]:  # the system turn stands in the column alone
        return prompt[:system] + head
    if prompt[-1].role != "user" or head[0].role == "assistant":
        return prompt + head
    raise Dropped("prompt is not that of the replies")


def _bare(turns: Turns) -> list[tuple[str, str]]:
    return [(turn.role, turn.content.strip()) for turn in turns]


# HH transcripts

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_REPLY = "\n\nAssistant:"


def is_transcript(value: object) -> bool:
    """Whether text begins with the human's mark: with the line ends before it, or with the assistant's after it."""
    if not isinstance(value, str):
        return False
    return value.startswith("\n\nHuman:") or (value.lstrip().startswith("Human:") and _REPLY in value)


def parse_transcript(text: str) -> Turns:
    """The turns of a prompt in HH form, without white space around; a last empty "Assistant:" is no turn."""
    bare = text.rstrip()
    if bare.endswith(_REPLY):
        text = bare.removesuffix(_REPLY)
    before, *rest = _SPEAKER.split(text)
    if before.strip() or not rest or rest[0] != "Human":
        raise Dropped("malformed transcript")
    return tuple(Turn(SPEAKERS[who], said.strip()) for who, said in zip(rest[::2], rest[1::2], strict=True))


def split_transcript(text: str) -> tuple[Turns, str]:
    """An HH transcript as its prompt and the last assistant turn.

    Whatever follows the last "Assistant:" is the reply, also where the model went on in the human's place.
    """
    head, mark, reply = text.rpartition(_REPLY)
    if not mark:
        raise Dropped("malformed transcript")
    return parse_transcript(head), reply.strip()


def list_columns(row: Mapping[str, Any]) -> str:
    names = [str(name) for name in row]
    return ", ".join(f"'{name}'" for name in names[:20]) + (" …" if len(names) > 20 else "") if names else "(none)"
