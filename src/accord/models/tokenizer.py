"""Tokenizers of snapshots, and what of them a model has to know."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig

from accord.data.chat import Renderer, local_time
from accord.engine.forward.adapters import bare
from accord.errors import BadInput
from accord.models.places import asked_for, base_of, is_gguf, read_config, read_tokenizer
from accord.models.saving import listed


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


def load_renderer(where: str, *, clock: Callable[[], str] = local_time) -> Renderer:
    """The snapshot's renderer, which stops where its authors' server does; PAD is no token that a text has.

    `clock` says what time a template that writes it is told.
    """
    tokenizer = read_tokenizer(where)
    try:
        renderer = Renderer(tokenizer, stops=served_stops(where), clock=clock)
    except BadInput as problem:
        raise BadInput(f"{where}: {problem}") from None
    tokenizer.pad_token = renderer.padding()
    return renderer


def served_stops(where: str) -> list[int]:
    """The ids that end a reply wherever this model is served: those of its generation config, else of its config."""
    base = base_of(where)
    name, options = asked_for(base if base and not (Path(where) / "generation_config.json").is_file() else where)
    if not is_gguf(where):
        try:
            return listed(GenerationConfig.from_pretrained(name, **options).eos_token_id)
        except OSError:
            pass  # it has none, and is served by its config
    return listed(read_config(where).get_text_config().eos_token_id)
