"""Turns ⇄ tokens and loss mask; the only place that knows a chat template.

The template is rendered once per shape of conversation with placeholders for the contents, and the pieces around
them are tokenised with control tokens; the contents themselves are tokenised with control tokens switched off, so
that no user or model text can ever become one. The pieces are joined as ids: what is trained on, scored and
sampled is token-identical, and every mask is made from lengths.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accord.errors import BadInput
from accord.records import Turn

# Used for tokenizers trained here; <|end|> ends every turn and is the EOS.
CONTROL_TOKENS = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|end|>"}
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# For a base model that has no chat template: the transcript form of HH-RLHF, without new tokens.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{% if message['role'] == 'assistant' %}\n\nAssistant: "
    "{{ message['content'] }}{{ eos_token }}{% elif message['role'] == 'user' %}\n\nHuman: {{ message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}\n\nAssistant: {% endif %}"
)
_MARK = "accordslot{}z"


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a whole conversation; `mask` is True on assistant tokens (content and end of turn)."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]


class Renderer:
    """One tokenizer and its chat template.

    Raises BadInput if the tokenizer has no EOS, if PAD is EOS and no other token can pad, or if the template
    changes earlier turns when later ones arrive.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise BadInput("the tokenizer has no EOS token; set eos_token in its tokenizer_config.json")
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.eos = int(tokenizer.eos_token_id)
        self._templates: dict[tuple[str, ...], list[list[int]]] = {}
        self._contents = functools.lru_cache(maxsize=65536)(self._encode_content)

    def prompt_ids(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Ids of a prompt up to and with the opening of the assistant's turn."""
        return self._conversation(turns).ids

    def reply_ids(self, reply: str) -> tuple[int, ...]:
        """Ids of a finished reply: its content and the end of the turn."""
        return (*self._contents(reply), self.eos)

    def conversation(self, turns: Sequence[Turn], reply: str, *, train_on: str = "assistant") -> Rendered:
        """Prompt and reply with the loss mask; `train_on="reply"` masks earlier assistant turns out."""
        before = self._conversation(turns)
        answer = self.reply_ids(reply)
        earlier = before.mask if train_on == "assistant" else (False,) * len(before.ids)
        return Rendered(before.ids + answer, earlier + (True,) * len(answer))

    def document(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text: BOS where the tokenizer has one, the text, EOS."""
        bos = self.tokenizer.bos_token_id
        start = () if bos is None else (int(bos),)
        return (*start, *self._encode_content(text), self.eos)

    def role_words(self) -> dict[int, tuple[int, ...]]:
        """The role tokens of the template above that this tokenizer has, each with the ids of the words for it."""
        vocabulary = self.tokenizer.get_vocab()
        return {
            vocabulary[token]: self._encode_content(f"{token.strip('<|>')}:")
            for token in ROLE_TOKENS
            if token in vocabulary
        }

    def text(self, ids: Sequence[int]) -> str:
        """The text of a sampled reply, without its end-of-turn token and surrounding white space."""
        kept = list(ids[:-1]) if ids and ids[-1] == self.eos else list(ids)
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)).strip()

    def _conversation(self, turns: Sequence[Turn]) -> Rendered:
        if not turns or turns[-1].role == "assistant":
            raise BadInput("a prompt must end where a reply is due, after a user, system or tool turn")
        pieces = self._pieces(tuple(turn.role for turn in turns))
        ids: list[int] = []
        mask: list[bool] = []
        for index, (piece, turn) in enumerate(zip(pieces, turns, strict=False)):
            ends_reply = index > 0 and turns[index - 1].role == "assistant"
            ids.extend(piece)
            mask.extend((ends_reply and j == 0) for j in range(len(piece)))
            content = self._contents(turn.content)
            ids.extend(content)
            mask.extend([turn.role == "assistant"] * len(content))
        ids.extend(pieces[-1])
        mask.extend([False] * len(pieces[-1]))
        return Rendered(tuple(ids), tuple(mask))

    def _pieces(self, roles: tuple[str, ...]) -> list[list[int]]:
        """Ids of what the template writes before, between and after the contents of turns with these roles."""
        if roles not in self._templates:
            marks = [_MARK.format(i) for i in range(len(roles))]
            messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
            rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            pieces, rest = [], str(rendered)
            for mark in marks:
                head, found, rest = rest.partition(mark)
                if not found:
                    raise BadInput(
                        f"the chat template does not show every turn of a conversation {' '.join(roles)}; "
                        "use a template that keeps earlier turns as they are"
                    )
                pieces.append(self._encode_control(head))
            self._templates[roles] = [*pieces, self._encode_control(rest)]
            for index, role in enumerate(roles):
                after = self._templates[roles][index + 1]
                if role == "assistant" and (not after or after[0] != self.eos):
                    raise BadInput(
                        "the chat template does not end an assistant turn with the tokenizer's EOS; "
                        "set eos_token to the token that ends a turn"
                    )
        return self._templates[roles]

    def _encode_control(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _encode_content(self, text: str) -> tuple[int, ...]:
        backend = self.tokenizer.backend_tokenizer
        backend.encode_special_tokens = True
        try:
            return tuple(backend.encode(text, add_special_tokens=False).ids) if text else ()
        finally:
            backend.encode_special_tokens = False


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
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=CONTROL_TOKENS["pad"],
        bos_token=CONTROL_TOKENS["bos"],
        eos_token=CONTROL_TOKENS["eos"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
