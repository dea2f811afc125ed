"""Sizes of the model that is planned for, and lengths of the data."""

from typing import Any

from accord.data.parse import Reader
from accord.data.sources import Summary, inspect_source
from accord.errors import BadInput
from accord.models.places import read_config
from accord.stages.plan.config import Forecast
from accord.stages.plan.work import Lengths
from accord.training.footprint import DecoderShape

# public configs: Qwen3-0.6B, Llama-3.2-1B, Qwen3-4B, Llama-3.1-8B, Qwen3-32B, Llama-3.1-70B
SHAPES = {
    "0.6b": DecoderShape(1024, 3072, 28, 16, 8, 128, 151_936, tied=True),
    "1.2b": DecoderShape(2048, 8192, 16, 32, 8, 64, 128_256, tied=True),
    "4b": DecoderShape(2560, 9728, 36, 32, 8, 128, 151_936, tied=True),
    "8b": DecoderShape(4096, 14_336, 32, 32, 8, 128, 128_256),
    "32b": DecoderShape(5120, 25_600, 64, 64, 8, 128, 151_936),
    "70b": DecoderShape(8192, 28_672, 80, 64, 8, 128, 128_256),
}
TOKENS_PER_WORD = 1.3  # of English prose, by vocabularies of 32k and more


def find_shape(model: str) -> DecoderShape:
    """A shape by name, or that of a model's config; BadInput where it is no decoder with gated MLPs."""
    if model.lower() in SHAPES:
        return SHAPES[model.lower()]
    config: Any = read_config(model).get_text_config()
    inner = getattr(config, "intermediate_size", None)
    if not inner:
        raise BadInput(f"{model}: {config.model_type} names no intermediate_size; plan with a shape of its size")
    heads = config.num_attention_heads
    return DecoderShape(
        config.hidden_size,
        inner,
        config.num_hidden_layers,
        heads,
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        config.vocab_size,
        bool(config.tie_word_embeddings),
    )


def find_lengths(config: Forecast) -> Lengths:
    """Tokens of a typical and of the longest text, from the knobs or from the words of the data."""
    if not config.data:
        prompt, reply = float(config.prompt_tokens), float(config.reply_tokens)
        return Lengths(prompt, reply, 2 * (prompt + reply), config.rows)
    found = inspect_source(config.data, Reader(**config.how))
    if found.kind is None:
        raise BadInput(f"{config.data}: no row is of a known kind; `accord data` says why")
    return lengths_of(found, float(config.reply_tokens))


def lengths_of(found: Summary, reply_tokens: float) -> Lengths:
    """Medians of words, as tokens; of prompts alone, replies of so many tokens are drawn."""
    typical, longest = 2, 4  # places of the median and the largest among the quantiles
    prompts, replies = found.prompt_words or found.text_words, found.reply_words
    prompt = TOKENS_PER_WORD * prompts[typical] if prompts else 1.0
    reply = TOKENS_PER_WORD * replies[typical] if replies else reply_tokens
    most = TOKENS_PER_WORD * (prompts[longest] if prompts else 0)
    most += TOKENS_PER_WORD * replies[longest] if replies else reply
    return Lengths(prompt, reply, most, found.rows)
