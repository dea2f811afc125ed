"""Tokenizers of snapshots, and what of them a model has to know."""

from collections.abc import Callable

import torch
from torch import nn

from accord.data.chat import Renderer, local_time
from accord.engine.forward.adapters import bare
from accord.errors import BadInput
from accord.models.places import read_config, read_generation, read_tokenizer
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
    generation = read_generation(where)
    config = read_config(where).get_text_config() if generation is None else generation
    return listed(config.eos_token_id)
