"""Turns ⇄ tokens and loss mask, as the model's authors serve it.

A prompt is what the tokenizer's own `apply_chat_template` gives, the opening of the assistant's turn included; a reply
is what follows it there, up to and with the token that ends a turn. `data.template` finds both, `data.encoder` encodes
them, so that no user or model text becomes a control token. Prompt and reply are joined as ids: what is trained on,
scored and sampled is token-identical. Masks come from where a text stands, never from token ids.
"""

import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from accord.data.encoder import Encoded, Encoder
from accord.data.template import ANSWER, THOUGHT, ChatTemplate, Refused, Span, Written, WrittenReply
from accord.errors import BadInput
from accord.records import Turn

# Used for tokenizers trained here; <|end|> ends every turn and is the EOS.
CONTROL_TOKENS = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|end|>"}
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_LONG_WORD = re.compile(r"\S{256}")
PROBE = (Turn("user", "Hello."),)  # what a template does with a reply is seen in the shortest conversation


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a whole conversation; `mask` is True on assistant tokens (content and end of turn)."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt's ids and mask, and the stretch behind its last control token, which decides how a reply is encoded."""

    rendered: Rendered
    text: str
    tail: str
    tail_words: tuple[Span, ...]
    tail_ids: tuple[int, ...]


def local_time() -> str:
    """The time of this machine to the second, in ISO form."""
    return time.strftime("%Y-%m-%dT%H:%M:%S")


class Renderer:
    """One tokenizer and its chat template.

    `end` is the token that ends a reply, found by rendering a conversation. `stops` are the tokens that end one when it
    is drawn: that, the tokenizer's EOS, and those given (of the generation config). `clock` is asked once, for the time
    that a template which writes it is told throughout. What parts from `apply_chat_template` is said, once.

    Raises BadInput for a tokenizer without EOS, and for a template that takes no question with an answer.
    """

    def __init__(
        self, tokenizer: Any, *, stops: Iterable[int] = (), clock: Callable[[], str] = local_time, aloud: bool = True
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise BadInput("the tokenizer has no EOS token; set eos_token in its tokenizer_config.json")
        self.tokenizer, self.ask_time = tokenizer, clock
        self._said: set[str] = set() if aloud else {""}
        self._encoder = Encoder(tokenizer)
        self._template = ChatTemplate(tokenizer, self._encoder.control, clock)
        self._prompt = functools.lru_cache(maxsize=65536)(self._encode_prompt)
        # every record's is asked for twice: whether the template takes it, and what it writes
        self._written = functools.lru_cache(maxsize=65536)(self._write_reply)
        if self.clock:
            self._say(f"the chat template writes the time; it is told {self.clock} throughout (--clock)")
        asked = self._template.render(PROBE, opens=True)
        answered = self._template.reply(PROBE, "Yes.", asked)
        self._opening = answered.opening
        self._thinks = THOUGHT in asked and ANSWER not in asked
        self.end = self._encoder.encode(answered.text).ids[-1]
        self.stops = frozenset({self.end, int(tokenizer.eos_token_id), *stops})
        self.vocabulary = frozenset(int(token) for token in tokenizer.get_vocab().values())

    @property
    def clock(self) -> str:
        """The time that the template is told, in ISO form; empty where it asks for none."""
        return self._template.clock

    @property
    def template(self) -> str:
        """The chat template's source."""
        return self._template.source

    def take(self, turns: Sequence[Turn], *replies: str) -> None:
        """Raises Refused where the template does not take the prompt, or a reply to it."""
        self._prompt(tuple(turns))
        for reply in replies:
            self._written(reply, tuple(turns))

    def prompt_ids(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Ids of a prompt up to and with the opening of the assistant's turn."""
        return self._prompt(tuple(turns)).rendered.ids

    def reply_ids(self, reply: str, turns: Sequence[Turn] = PROBE) -> tuple[int, ...]:
        """Ids of a finished reply to these turns: what opens it, its content and the end of the turn."""
        written = self._written(reply, tuple(turns))
        self._say(written.note)
        return tuple(self._encode_reply(self._prompt(tuple(turns)), written))

    def drawn_ids(self, reply: str, turns: Sequence[Turn]) -> tuple[int, ...]:
        """`reply_ids` of what another model said, whatever that is: what the template refuses is written plainly."""
        try:
            return self.reply_ids(reply, turns)
        except Refused:
            return tuple(self._encode_reply(self._prompt(tuple(turns)), self._template.plain_reply(turns, reply)))

    def conversation(self, turns: Sequence[Turn], reply: str, *, train_on: str = "assistant") -> Rendered:
        """Prompt and reply with the loss mask; `train_on="reply"` masks earlier assistant turns out."""
        before = self._prompt(tuple(turns)).rendered
        answer = self.reply_ids(reply, turns)
        earlier = before.mask if train_on == "assistant" else (False,) * len(before.ids)
        return Rendered(before.ids + answer, earlier + (True,) * len(answer))

    def document(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text: BOS where texts begin with one, the text, EOS."""
        ids = self._encoder.encode(text, [(0, len(text))]).ids
        return (*self._document_start, *ids, int(self.tokenizer.eos_token_id))

    def passage(self, text: str) -> tuple[int, ...]:
        """Ids of a text that something may follow: BOS where texts begin with one, the text."""
        return (*self._document_start, *self._encoder.encode(text, [(0, len(text))]).ids)

    def continued(self, context: str, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of a context, and those by which it and a text that goes on behind it are longer.

        Blanks at the context's end belong to the text, as tokenizers have them. Behind no context the text follows BOS,
        or EOS where there is no BOS: as lm-evaluation-harness has both.
        """
        bare = context.rstrip()
        if not bare:
            first = self.tokenizer.bos_token_id
            start = int(self.tokenizer.eos_token_id if first is None else first)
            return (start,), tuple(self._encoder.encode(context + text, [(0, len(context + text))]).ids)
        before, whole = self.passage(bare), self.passage(context + text)
        return before, whole[len(before) :]

    def role_words(self) -> dict[int, tuple[int, ...]]:
        """The role tokens of the template above that this tokenizer has, each with the ids of the words for it."""
        vocabulary = self.tokenizer.get_vocab()
        return {
            vocabulary[token]: tuple(self._encoder.encode(f"{token.strip('<|>')}:").ids)
            for token in ROLE_TOKENS
            if token in vocabulary
        }

    def text(self, ids: Sequence[int]) -> str:
        """The content of a sampled reply: without what opens it, its end of turn, and white space around."""
        kept = list(ids[:-1]) if ids and ids[-1] in self.stops else list(ids)
        said = str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if self._opening.strip() and said.startswith(self._opening):
            said = said.removeprefix(self._opening)
        elif self._thinks:
            said = f"{THOUGHT}\n{said}"  # the prompt has opened the thought
        return said.strip()

    def tells_apart(self, other: "Renderer") -> bool:
        """Whether the other renders some conversation otherwise, or ends it otherwise."""
        mine, theirs = ((r.tokenizer.get_vocab(), r.template, r.clock, r.end) for r in (self, other))
        return mine != theirs

    @functools.cached_property
    def identity(self) -> str:
        """A hash of all that decides how conversations are rendered and ended: equal where neither tells apart."""
        told = sorted(self.tokenizer.get_vocab().items()), self.template, self.clock, self.end
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def padding(self) -> str:
        """The token that fills slots: never one that a text has, and EOS only where no other is left.

        The tokenizer's own where it is no end of a reply; else UNK, or one that is reserved, or any special one. Masks
        come from lengths, so what fills a slot is never read; but decoders leave it out of texts, and transformers
        reads a score at the last token that is none.
        """
        tokenizer = self.tokenizer
        special = {i: token.content for i, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special}
        usable = {i: name for i, name in special.items() if i != self.end and not self._encoder.is_ordinary(i)}
        if tokenizer.pad_token_id in usable:
            return str(tokenizer.pad_token)
        free = [name for i, name in usable.items() if i not in self.stops]
        written = {*self._encoder.control.findall(self.template), tokenizer.bos_token}
        named = [name for name in free if "pad" in name.lower()]
        unknown = [name for name in free if name == tokenizer.unk_token]
        reserved = [name for name in free if any(word in name.lower() for word in ("reserved", "unused", "extra"))]
        unwritten = [name for name in free if name not in written]
        return str([*named, *unknown, *reserved, *unwritten, *free, tokenizer.eos_token][0])

    def _encode_prompt(self, turns: tuple[Turn, ...]) -> _Prompt:
        if not turns or turns[-1].role == "assistant":
            raise BadInput("a prompt must end where a reply is due, after a user, system or tool turn")
        written = self._template.prompt(turns, self._stops_at)
        self._say(written.note)
        encoded = self._encode(written.text, written.contents)
        last = self._encoder.last_control(encoded)
        start = encoded.spans[last][0] if last >= 0 else 0
        words = tuple((max(a - start, 0), b - start) for a, b in written.contents if b > start)
        rendered = Rendered(tuple(encoded.ids), tuple(_inside(encoded, written)))
        return _Prompt(rendered, written.text, written.text[start:], words, tuple(encoded.ids[max(last, 0) :]))

    def _write_reply(self, reply: str, turns: tuple[Turn, ...]) -> WrittenReply:
        return self._template.reply(turns, reply, self._prompt(turns).text)

    def _encode_reply(self, prompt: _Prompt, written: WrittenReply) -> list[int]:
        shifted = tuple((a + len(prompt.tail), b + len(prompt.tail)) for a, b in written.contents)
        whole = self._encode(prompt.tail + written.text, prompt.tail_words + shifted).ids
        if tuple(whole[: len(prompt.tail_ids)]) == prompt.tail_ids:
            return whole[len(prompt.tail_ids) :]
        self._say("a reply whose first blanks the tokenizer would join to its prompt's last ones is encoded apart")
        return self._encoder.encode_after(written.text, written.contents)

    def _encode(self, text: str, words: Sequence[Span]) -> Encoded:
        encoded = self._encoder.encode(text, words)
        if encoded.spells:
            self._say("a text spells a control token; it stays text, where the tokenizer alone would read the token")
        return encoded

    def _stops_at(self, closing: str) -> bool:
        return self._encoder.encode(closing).ids[-1] in self.stops

    @functools.cached_property
    def _document_start(self) -> tuple[int, ...]:
        """BOS, where the tokenizer puts it before a text or a conversation begins with it; it may be a turn's mark."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ()
        longer = (*PROBE, Turn("assistant", "Yes."), *PROBE)
        once = self._template.render(longer, opens=True).count(self.tokenizer.bos_token) == 1
        return (int(bos),) if once or bos in self.tokenizer.encode("a") else ()

    def _say(self, note: str) -> None:
        if note and "" not in self._said and note not in self._said:
            self._said.add(note)
            print(f"note: {note}")


def _inside(encoded: Encoded, written: Written) -> list[bool]:
    """Which tokens begin in a reply."""
    mask = [False] * len(encoded.ids)
    for start, stop in written.replies:
        for place, (begin, _) in enumerate(encoded.spans):
            if start <= begin < stop:
                mask[place] = True
    return mask


def _cut_words(text: str) -> str:
    """A text to learn merges from: a merge looks at a whole word, and one of 400,000 letters would take hours."""
    return _LONG_WORD.sub(r"\g<0> ", text)


def train_tokenizer(texts: Any, vocab_size: int) -> Any:
    """A byte-level BPE over `texts` (an iterable of strings) with the control tokens and chat template of above.

    Every text has a token sequence (no unknown token), numbers are cut into digits, and PAD is not EOS.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    # a word is the same token at the start of a turn as inside it
    backend.normalizer = normalizers.Prepend(" ")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[^\s\p{L}\p{N}]+| ?\p{L}+|\s+(?!\S)|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = [*CONTROL_TOKENS.values(), *ROLE_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(map(_cut_words, texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=CONTROL_TOKENS["pad"],
        bos_token=CONTROL_TOKENS["bos"],
        eos_token=CONTROL_TOKENS["eos"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
