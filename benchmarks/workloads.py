"""What is computed: recorded lengths, synthetic tokens, and models with random weights; nothing is downloaded.

A workload is a folder: `model/` and `scorer/` (Hugging Face directories), `items.json`, and beside them the
`options.json` of whoever runs next.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# prompt, chosen and rejected in tokens: 192 rows drawn from the 1511 of the first 4000 of HH-RLHF helpful-base whose
# replies answer the same conversation and fit into 512 tokens; a token is 1/1.15 of a word or punctuation mark
HH_LENGTHS = """
    104,84,38 116,33,68 80,49,49 144,92,102 225,102,45 40,48,30 271,29,10 479,15,10 111,34,46 20,30,45 23,198,75
    33,92,16 12,100,13 63,68,34 13,16,11 54,19,55 277,99,55 106,91,58 106,54,132 87,6,4 15,96,30 103,80,35
    422,77,11 64,32,24 338,52,19 339,39,7 15,39,31 196,58,81 81,32,72 310,126,99 238,60,17 17,53,7 327,162,54
    263,60,78 134,25,68 59,27,85 141,160,29 124,54,45 47,26,8 187,11,18 25,86,32 118,16,18 15,29,16 155,33,10
    231,26,87 92,8,11 56,191,48 100,9,21 112,49,17 15,70,37 401,52,17 18,30,16 21,67,3 44,130,34 233,18,69
    301,15,61 242,34,42 211,35,38 17,33,56 20,85,27 52,18,48 235,53,32 21,38,62 65,54,46 17,21,55 17,48,65
    16,130,77 164,107,147 39,79,61 205,16,13 188,41,86 11,24,14 59,96,46 48,57,62 74,33,8 35,118,18 42,34,108
    25,44,9 118,116,40 175,64,44 58,77,26 57,29,86 209,121,87 104,16,22 13,180,41 92,73,88 71,27,10 12,32,114
    369,125,32 241,64,25 148,80,39 139,127,24 88,24,16 136,129,86 146,55,34 44,84,27 19,96,33 203,32,107 121,4,18
    284,175,50 132,3,27 128,11,62 12,10,25 215,17,73 72,69,32 98,27,10 50,55,29 139,34,34 337,96,17 184,71,94
    21,160,60 20,57,10 215,30,46 21,62,21 200,17,14 17,25,29 19,133,9 31,49,211 422,56,46 119,86,16 301,35,37
    17,29,18 12,32,7 249,209,127 158,46,38 108,34,44 98,11,19 94,102,10 163,29,90 36,75,217 16,107,71 256,17,16
    85,2,21 17,100,14 253,124,62 17,88,70 134,48,58 35,25,13 83,88,17 19,123,39 134,17,3 16,24,52 56,30,16
    227,54,15 24,30,26 217,224,109 98,23,26 17,81,38 85,121,8 88,140,17 12,68,17 64,19,48 267,73,184 19,90,57
    54,21,54 10,38,29 74,26,8 29,98,38 106,37,30 93,33,62 18,34,56 78,38,17 196,107,121 126,33,3 105,50,18
    148,55,116 23,139,13 126,19,53 322,4,52 12,17,11 301,21,76 188,13,7 17,18,129 63,15,18 295,84,6 202,8,42
    72,14,102 15,26,15 134,34,26 212,98,92 119,45,42 324,87,99 319,26,4 17,25,26 12,47,38 115,18,7 63,134,170
    220,33,86 18,22,55 25,23,139 67,56,32 95,7,8
"""
EOS = 2
FIRST = 3  # ids below are padding, start and end
SPECIAL = ("<pad>", "<bos>", "<eos>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)

Item = dict[str, Any]  # "prompt": ids, "replies": lists of ids


def hh_items(count: int, vocab: int, *, replies: int = 2, seed: int = 0) -> list[Item]:
    """`count` prompts with `replies` replies each, of recorded lengths; every reply ends with EOS."""
    rows = [tuple(map(int, row.split(","))) for row in HH_LENGTHS.split()]
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(rows))
    reply_lengths = [length for row in rows for length in row[1:]]
    items = []
    for i in range(count):
        prompt, *lengths = rows[order[i % len(rows)]]
        lengths = [*lengths, *generator.choice(reply_lengths, replies)][:replies]
        items.append(make_item(generator, vocab, prompt, lengths))
    return items


def equal_items(count: int, vocab: int, *, length: int, seed: int = 0) -> list[Item]:
    """The worst case for packing: two replies of one length to a prompt of one token."""
    generator = np.random.default_rng(seed)
    return [make_item(generator, vocab, 1, [length, length]) for _ in range(count)]


def equal_prompts(count: int, vocab: int, *, length: int) -> list[Item]:
    """Prompts of one length."""
    return [{**item, "prompt": item["replies"][0]} for item in equal_items(count, vocab, length=length)]


def fixed_replies(count: int, vocab: int, *, replies: int, length: int) -> list[Item]:
    """Prompts of recorded lengths, each with `replies` replies of `length` tokens that do not end."""
    generator = np.random.default_rng(1)
    drawn = generator.integers(FIRST, vocab, (count, replies, length)).tolist()
    return [{**item, "replies": given} for item, given in zip(hh_items(count, vocab), drawn, strict=True)]


def make_item(generator: np.random.Generator, vocab: int, prompt: int, replies: list[int]) -> Item:
    def draw(size: int) -> list[int]:
        return generator.integers(FIRST, vocab, size).tolist()

    return {"prompt": draw(prompt), "replies": [[*draw(length - 1), EOS] for length in replies]}


def words(ids: Sequence[int]) -> str:
    """The text of token ids: `w17` is the token 17."""
    return " ".join(SPECIAL[i] if i < FIRST else f"w{i}" for i in ids)


@dataclass(frozen=True)
class Workload:
    """Items, and the models that they are for: a causal model, and a scorer on the same trunk."""

    items: Sequence[Item]
    vocab: int
    size: str

    def write(self, folder: Path) -> None:
        """Make the folder; its models are the same on every machine."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = make_tokenizer(self.vocab)
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
        config = LlamaConfig(
            vocab_size=self.vocab, max_position_embeddings=2048, num_labels=1, **tokens, **SIZES[self.size]
        )
        torch.manual_seed(0)
        for name, kind in (("model", LlamaForCausalLM), ("scorer", LlamaForSequenceClassification)):
            kind(config).save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        described = {"role": "preference", "criterion": "helpful", "normalizer": {"kind": "none"}}
        (folder / "scorer" / "accord.json").write_text(json.dumps(described))
        (folder / "items.json").write_text(json.dumps(self.items))


def make_tokenizer(vocab: int) -> Any:
    """A token a word; a conversation is its turns, with nothing between them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *(f"w{i}" for i in range(FIRST, vocab))]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[0]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[EOS],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


SIZES = {
    "toy": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1M": {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4},
    "9M": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8},
    # for a GPU: the shapes of Qwen 2.5 0.5B and Llama 3.2 1B
    "0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
