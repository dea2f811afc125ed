"""What is computed: recorded lengths, synthetic tokens, and models with random weights; nothing is downloaded.

A workload is a folder: `model/` and `scorer/` (Hugging Face directories), `items.json`, and beside them the
`options.json` of whoever runs next.
"""

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# prompt, chosen and rejected in tokens: every eighth of the 1,570 rows of HH-RLHF helpful-base (test) whose replies
# answer the same conversation, in the order of their longer text; a token is 1/1.15 of a word or punctuation mark
HH_LENGTHS = """
    59,56,104 112,57,18 140,9,4 174,86,76 275,27,54 131,46,9 179,31,63 40,11,65 145,50,48 60,221,262 98,58,11
    199,32,35 123,18,155 7,6,16 324,62,53 91,90,121 16,116,30 90,33,31 14,31,113 175,52,34 13,11,21
    583,199,122 241,41,52 201,21,79 262,46,10 178,71,122 218,18,69 15,64,69 471,4,15 46,127,47 87,38,52
    5,38,29 193,63,23 10,30,38 14,19,64 128,62,29 105,87,52 218,4,4 79,27,115 61,30,110 10,44,10 100,18,7
    251,9,15 245,29,18 384,3,50 199,257,30 41,45,10 125,83,18 83,42,34 70,17,9 282,21,76 193,25,10 207,31,47
    8,114,24 14,90,57 28,127,124 9,70,8 135,44,22 262,35,15 215,111,88 269,39,127 55,104,37 335,40,109
    221,116,18 75,110,14 49,19,15 397,68,14 110,50,33 153,32,64 230,16,10 98,34,44 6,21,46 622,11,14 86,114,69
    366,10,3 63,40,142 16,101,38 317,96,17 53,15,18 154,85,30 118,90,114 95,50,18 363,209,22 41,13,49 7,18,11
    126,138,38 10,13,18 22,311,50 260,55,17 10,32,35 155,7,9 64,33,8 41,25,39 67,35,14 263,41,34 18,32,26
    128,23,13 144,228,34 15,22,47 199,7,7 76,107,25 44,29,38 124,32,50 30,70,23 44,62,31 7,52,27 12,10,29
    10,49,67 62,69,32 12,33,56 189,15,47 14,95,13 84,27,10 8,10,57 10,79,8 195,54,34 9,17,31 37,48,47
    232,50,17 293,70,33 71,24,13 15,129,68 22,39,30 20,37,24 267,76,45 9,27,22 329,7,18 12,44,11 175,13,7
    220,32,13 10,21,22 238,54,85 102,11,38 13,125,45 60,87,50 8,22,7 210,32,93 93,14,26 204,54,15 155,31,32
    336,84,65 207,37,15 87,24,33 174,73,96 18,23,45 342,182,151 12,47,48 9,277,52 117,113,80 107,7,7 34,58,27
    7,141,19 10,106,25 183,8,42 13,53,50 6,96,35 114,11,62 23,25,76 463,122,142 100,67,10 338,69,64 103,6,9
    12,11,35 8,67,37 9,18,99 13,80,31 9,101,25 16,29,33 68,61,27 302,4,52 137,45,287 185,185,369 55,147,16
    61,11,6 108,73,32 74,53,60 47,29,86 14,19,24 865,14,13 6,117,68 168,29,24 139,90,73 17,198,75 105,30,25
    77,136,11 62,42,48 342,129,87 41,14,29 170,65,196 270,231,41 8,3,68 60,29,106
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
    """Items, and the models that they are for: a causal model, and a scorer on the same trunk.

    Where `source` is a model's directory, they have its weights, and a random head.
    """

    items: Sequence[Item]
    vocab: int
    size: str
    source: str = ""

    def write(self, folder: Path) -> None:
        """Make the folder; its models are the same on every machine."""
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(models_of(self.size, self.vocab, self.source).name)
        for name in ("model", "scorer"):
            (folder / name).symlink_to(made / name, target_is_directory=True)
        (folder / "items.json").write_text(json.dumps(self.items))


@functools.cache  # cases of one size share them: half a billion random numbers take their time
def models_of(size: str, vocab: int, source: str = "") -> "tempfile.TemporaryDirectory[str]":
    """A folder with `model/` and `scorer/`, for as long as this process lives.

    A real model too has a tokenizer of a word a token: both sides are to see the very same ids.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        GenerationConfig,
        LlamaConfig,
    )
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # of the scorer's head, which is new
    made = tempfile.TemporaryDirectory(prefix="accord-models-")
    folder = Path(made.name)
    tokenizer = make_tokenizer(vocab)
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
    if source:
        config = AutoConfig.from_pretrained(source, num_labels=1, **tokens)
    else:
        config = LlamaConfig(vocab_size=vocab, max_position_embeddings=2048, num_labels=1, **tokens, **SIZES[size])
    torch.manual_seed(0)
    for name, kind in (("model", AutoModelForCausalLM), ("scorer", AutoModelForSequenceClassification)):
        if source:
            model = kind.from_pretrained(source, config=config, dtype=torch.float32)
            model.generation_config = GenerationConfig(**tokens)
        else:
            model = kind.from_config(config)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    described = {"role": "preference", "criterion": "helpful", "normalizer": {"kind": "none"}}
    (folder / "scorer" / "accord.json").write_text(json.dumps(described))
    return made


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
