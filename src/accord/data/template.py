"""A conversation as its chat template writes it: the text, and where in it every content stands.

The template is rendered as it is, with the contents in it, as a server does. It is rendered once more for each kind of
conversation with placeholders for the contents; what stands around them tells where each content lies in the text,
whatever the template does with it: trims it, moves the system turn, adds one, drops earlier thoughts.
"""

import datetime
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from accord.errors import BadInput
from accord.records import Turn, as_messages

# For a base model that has no chat template: the transcripts of HH-RLHF, without new tokens. The blank belongs to the
# reply, whose first word is then one token, as it is inside a text. Line ends stand in expressions, because the one
# that follows a block is left out.
PLAIN_TEMPLATE = (
    "{% if bos_token and bos_token != eos_token %}{{ bos_token }}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '\n\nAssistant: ' + message['content'] | trim }}"
    "{% if loop.last %}{{ eos_token }}{% endif %}{% elif message['role'] == 'user' %}"
    "{{ '\n\nHuman: ' + message['content'] | trim }}{% else %}{{ message['content'] | trim }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
THOUGHT, ANSWER = "<think>", "</think>"  # what reasoning models write before a thought, and behind it
NO_THOUGHT = f"\n{ANSWER}\n\n"  # closes a thought that was opened and left empty, as these models' templates do
_MARK = re.compile(r"accordslot(\d+)z")
_THOUGHT = re.compile(rf"(\s*{THOUGHT}\s*)(.*?)(\s*{ANSWER}\s*)(.*)", re.DOTALL)
_OPENED = re.compile(rf"(\s*)(.*?)(\s*{ANSWER}\s*)(.*)", re.DOTALL)  # the prompt has opened it, or the template will

Span = tuple[int, int]


class Refused(BadInput):
    """A conversation that the chat template does not take; the message is the reason it is counted under."""


class Written(NamedTuple):
    """A prompt's text; `contents` are the spans that are somebody's words, `replies` what the assistant had to write.

    `note` says why an earlier reply is none of these, empty where all are.
    """

    text: str
    contents: tuple[Span, ...]
    replies: tuple[Span, ...]
    note: str


class WrittenReply(NamedTuple):
    """A reply as it follows its prompt: `text` up to and with the end of the turn, and where its words stand in it.

    `opening` is what the template writes first in the assistant's place, `note` where the prompt parts from the
    history, empty where it does not.
    """

    text: str
    contents: tuple[Span, ...]
    opening: str
    note: str


class _Content(NamedTuple):
    """A turn's content: words, and between them what is fixed; a thought and its answer are two."""

    role: str
    fixed: tuple[str, ...]
    words: tuple[str, ...]

    def with_words(self, words: Sequence[str]) -> str:
        return self.fixed[0] + "".join(w + f for w, f in zip(words, self.fixed[1:], strict=True))


class _Layout(NamedTuple):
    """What a template writes around contents: `literals[i]` before the one that has number `order[i]`, the last behind.

    Contents are numbered through all turns; one may be missing, moved or shown twice.
    """

    literals: tuple[str, ...]
    order: tuple[int, ...]

    def before(self, number: int) -> str:
        return self.literals[self.order.index(number)]

    def behind(self, number: int) -> str:
        return self.literals[len(self.order) - self.order[::-1].index(number)]


class ChatTemplate:
    """The chat template of a tokenizer, or the plain one for a tokenizer that has none.

    `clock` says in ISO form what time a template that asks for it is told throughout. Raises BadInput for a template
    that cannot be read.
    """

    def __init__(self, tokenizer: Any, control: re.Pattern[str], clock: Callable[[], str]) -> None:
        # transformers' own environment: what its `apply_chat_template` renders is what is rendered here
        from jinja2 import TemplateSyntaxError
        from transformers.utils.chat_template_utils import _compile_jinja_template

        self._tokenizer, self._control = tokenizer, control
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.source = str(tokenizer.get_chat_template())
        self.clock = clock() if "strftime_now" in self.source else ""
        try:
            self._compiled = _compile_jinja_template(self.source)
        except TemplateSyntaxError as error:
            raise BadInput(f"the chat template cannot be read ({error}); mend it, or take it out") from None
        self._layout = functools.lru_cache(maxsize=4096)(self._find_layout)

    def render(self, turns: Sequence[Turn], *, opens: bool) -> str:
        """The text of a conversation, with the opening of the assistant's turn if it `opens` one. Raises Refused."""
        from jinja2 import TemplateError

        try:
            rendered = self._compiled.render(
                messages=as_messages(turns),
                tools=None,
                documents=None,
                add_generation_prompt=opens,
                strftime_now=self._time,
                **self._tokenizer.special_tokens_map,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise Refused(f"the chat template: {error}") from None
        return str(rendered)

    def _time(self, form: str) -> str:
        return datetime.datetime.fromisoformat(self.clock).strftime(form)

    def prompt(self, turns: Sequence[Turn], stops: Callable[[str], bool]) -> Written:
        """The text of a prompt with the opening of the assistant's turn.

        `stops` says of what closes a turn whether a reply ends there; what does not is not the assistant's to write.
        """
        contents = self._taken_apart(turns)
        layout = self._layout(_kind(contents), True)
        text = self.render(turns, opens=True)
        places = _places(text, layout, contents)
        replies, note = [], ""
        first = 0
        for index, content in enumerate(contents):
            own = [at for number, at in places if first <= number < first + len(content.words)]
            if content.words[-1].strip() and not own:
                raise Refused(f"the chat template does not show every turn of a conversation ({content.role})")
            if content.role == "assistant" and own:
                numbers = [n for n in layout.order if first <= n < first + len(content.words)]
                opening, parts = self._opening(contents[:index], layout.before(numbers[0]))
                closing = self._closing(layout.behind(numbers[-1]))
                ends = bool(closing) and stops(closing)
                if parts:
                    note = f"{parts}; earlier replies, which stand elsewhere, are not trained on"
                elif any(word.strip() for word in content.words):
                    # an empty answer would teach to say nothing, with its end
                    replies.append((own[0][0] - len(opening), own[-1][1] + len(closing) * ends))
            first += len(content.words)
        return Written(text, tuple(at for _, at in places), tuple(replies), note)

    def reply(self, turns: Sequence[Turn], reply: str, prompt: str) -> WrittenReply:
        """A reply as it follows the text of `prompt(turns)`: what a server's model writes there, its end included."""
        contents = self._taken_apart((*turns, Turn("assistant", reply)))
        layout = self._layout(_kind(contents), False)
        text = self.render((*turns, Turn("assistant", reply)), opens=False)
        first = sum(len(content.words) for content in contents[:-1])
        numbers = [number for number in layout.order if number >= first]
        if not numbers:
            raise Refused("the chat template does not show every turn of a conversation (assistant)")
        own = [at for number, at in _places(text, layout, contents) if number >= first]
        closing = self._closing(behind := layout.behind(numbers[-1]))
        end = closing or behind.rstrip() + self._tokenizer.eos_token
        opening, note = self._opening(contents[:-1], layout.before(numbers[0]))
        if not closing:
            note = note or "the chat template ends a reply with no token; EOS is put there"
        thoughtful = contents[-1].words[:-1]
        if opening == NO_THOUGHT and note and thoughtful:
            # the template asks for a thought, and a reply has its own, which the history may leave out
            thought, answer = contents[-1].words[0].strip(), text[slice(*own[-1])]
            close = contents[-1].fixed[1]
            start = len(thought) + len(close)
            spans = ((0, len(thought)), (start, start + len(answer)))
            return WrittenReply(thought + close + answer + end, spans, "", note)
        begin, stop = own[0][0], own[-1][1]
        if not note and text[: begin - len(opening)] != prompt:
            note = "the chat template writes a prompt otherwise once it is answered; it is trained on as it is asked"
        moved = tuple((a - begin + len(opening), b - begin + len(opening)) for a, b in own)
        return WrittenReply(opening + text[begin:stop] + end, moved, opening, note)

    def plain_reply(self, turns: Sequence[Turn], reply: str) -> WrittenReply:
        """A reply as `reply` has one without any markup, whatever it says: nothing of it is read, and none refused."""
        kind = _kind([*self._taken_apart(turns), _Content("assistant", ("", ""), (reply,))])
        layout = self._layout(kind, False)
        said, behind = reply.strip(), layout.literals[-1]
        opening, note = self._opening(self._taken_apart(turns), layout.literals[-2])
        end = self._closing(behind) or behind.rstrip() + self._tokenizer.eos_token
        return WrittenReply(opening + said + end, ((len(opening), len(opening) + len(said)),), opening, note)

    def _taken_apart(self, turns: Sequence[Turn]) -> list[_Content]:
        """The contents of turns; a thought that begins an assistant's is apart from its answer."""
        contents = []
        for role, content in turns:
            found = _THOUGHT.fullmatch(content) if role == "assistant" else None
            if role == "assistant" and found is None and ANSWER in self.source:
                found = _OPENED.fullmatch(content)
            if found is None:
                contents.append(_Content(role, ("", ""), (content,)))
            else:
                opened, thought, closed, answer = found.groups()
                contents.append(_Content(role, (opened, closed, ""), (thought, answer)))
        return contents

    def _opening(self, before: Sequence[_Content], written: str) -> tuple[str, str]:
        """What comes between the prompt `before` and a reply that stands behind the literal `written`; and a note."""
        asked = self._layout(_kind(before), True).literals[-1]
        if written.startswith(asked):
            return written[len(asked) :], ""
        written = written.rstrip()  # of a thought that is left out the blanks behind it may stay
        shared = next((i for i, (a, b) in enumerate(zip(asked, written, strict=False)) if a != b), len(written))
        thinks = THOUGHT in asked[shared:] and ANSWER not in asked[shared:]
        if shared == len(written):
            note = f"the chat template asks for a reply behind {asked[shared:]!r}, which its history does not have"
            return (NO_THOUGHT if thinks else ""), f"{note}; replies are written where they are asked for"
        return "", (
            f"the chat template asks for a reply behind {asked[-20:]!r}, and its history has it behind "
            f"{written[-20:]!r}; replies are written where they are asked for"
        )

    def _closing(self, behind: str) -> str:
        """The start of what stands behind a reply, up to and with its first control token; empty where it has none."""
        found = self._control.search(behind)
        return behind[: found.end()] if found else ""

    def _find_layout(self, kind: tuple[tuple[str, tuple[str, ...]], ...], opens: bool) -> _Layout:
        turns = []
        number = 0
        for role, fixed in kind:
            marks = [f"accordslot{number + i}z" for i in range(len(fixed) - 1)]
            turns.append(Turn(role, _Content(role, fixed, ()).with_words(marks)))
            number += len(marks)
        pieces = _MARK.split(self.render(turns, opens=opens))
        return _Layout(tuple(pieces[::2]), tuple(int(piece) for piece in pieces[1::2]))


def _kind(contents: Sequence[_Content]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((content.role, content.fixed) for content in contents)


def _places(text: str, layout: _Layout, contents: Sequence[_Content]) -> list[tuple[int, Span]]:
    """Where in the text each content of the layout stands, by its number. Raises Refused where one cannot be found."""
    words = [word for content in contents for word in content.words]
    found = []
    at = len(layout.literals[0])
    known = text.startswith(layout.literals[0])
    for number, literal in zip(layout.order, layout.literals[1:], strict=True):
        fits = (form for form in _forms(words[number]) if text.startswith(form + literal, at))
        form = next(fits, None) if known else None
        if form is None:
            raise Refused("the chat template writes a content otherwise than it was given")
        found.append((number, (at, at + len(form))))
        at += len(form) + len(literal)
    if at != len(text):
        raise Refused("the chat template writes a content otherwise than it was given")
    return found


def _forms(word: str) -> Iterator[str]:
    """A content as it is, then as templates trim it; the longest first."""
    yield word
    trimmed = {word.strip(), word.lstrip(), word.rstrip(), word.strip("\n"), word.lstrip("\n"), word.rstrip("\n")}
    yield from sorted(trimmed - {word}, key=len, reverse=True)
