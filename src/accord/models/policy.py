"""Policies: new ones by size, and the log-probs that they give to data."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from accord.engine.forward.attention import IMPLEMENTATION

# name: (hidden size, layers, heads, feed-forward); with a vocabulary of 1k: 0.2M, 0.5M, 1M, 5M, 26M, 100M parameters
SIZES: dict[str, tuple[int, int, int, int]] = {
    "nano": (64, 3, 4, 176),
    "tiny": (96, 4, 4, 256),
    "small": (128, 4, 4, 344),
    "base": (256, 6, 8, 688),
    "medium": (512, 8, 8, 1376),
    "large": (768, 14, 12, 2048),
}


def new_policy(size: str, tokenizer: Any, *, max_length: int, seed: int) -> nn.Module:
    """A fresh decoder of the ladder (Llama architecture: RMSNorm, rotary positions, SwiGLU, tied embeddings)."""
    width, layers, heads, inner = SIZES[size]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max(2048, max_length),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=IMPLEMENTATION,
    )
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model
