"""Tokenizers of snapshots, and what of them a model has to know."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from accord.data.chat import Renderer
from accord.engine.forward.adapters import bare
from accord.errors import BadInput
from accord.models.places import asked_for, base_of, reading


@torch.no_grad()
def embed_roles(model: nn.Module, renderer: Renderer) -> None:
    """Start the role tokens of the chat template, which no text holds, from the words for them (`user:`).

    The mean of the words' embeddings, as for any new token with a description (Hewitt 2021, "Initializing new word
    embeddings for pretrained language models"). What was learned of conversations in text then holds in the template
    from the first step: fine-tuning need not find it again from noise.
    """
    table = bare(model).get_input_embeddings().weight
    for token, words in renderer.role_words().items():
        table[token] = table[list(words)].mean(0)


def load_tokenizer(where: str) -> Any:
    """The snapshot's tokenizer; PAD is another token than EOS, or BadInput says that none can be found."""
    base = base_of(where)
    name, options = asked_for(base if base and not (Path(where) / "tokenizer_config.json").is_file() else where)
    with reading(where, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{where}: the tokenizer has no EOS token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # masks come from lengths, so any other token can fill the slots
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise BadInput(
            f"{where}: PAD and EOS are the same token and no other can pad; add a pad_token to the tokenizer"
        )
    return tokenizer


def load_renderer(where: str) -> Renderer:
    """The snapshot's renderer."""
    return Renderer(load_tokenizer(where))
