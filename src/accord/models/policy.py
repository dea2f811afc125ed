"""Policies: new ones by size, and the log-probs that they give to data."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from accord.engine.forward.attention import IMPLEMENTATION
from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.dtype import exact
from accord.engine.packing import Group, Packing, cut_by_tokens, pack
from accord.training.distributed import World
from accord.training.precision import lowered
from accord.training.shards import in_step

# name: (hidden size, layers, heads, feed-forward); with a vocabulary of 1k 0.05M, 0.2M, 0.5M, 1M, 5M, 26M, 100M numbers
SIZES: dict[str, tuple[int, int, int, int]] = {
    "pico": (24, 2, 3, 64),
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


def compute_logprobs(model: torch.nn.Module, packing: Packing, precision: str) -> torch.Tensor:
    """Log-probs of the packing's targets with the forward pass in `precision`."""
    with lowered(precision, packing.ids.device):
        return token_logprobs(model, packing)


@torch.no_grad()
def mean_loss(
    model: torch.nn.Module, groups: Sequence[Group], micro_tokens: int, world: World, precision: str
) -> float:
    """Mean negative log-likelihood over every trained token of the groups, in nats; each rank computes its share."""
    total, count = 0.0, 0
    own = world.share(cut_by_tokens(groups, lambda g: g.tokens, micro_tokens))
    for part, counts in in_step(world.sharded, own, groups[0]):
        packing = pack(part).to(world.device)
        found = float(exact(compute_logprobs(model, packing, precision)).sum())
        if counts:
            total, count = total - found, count + len(packing.targets)
    sums = world.gather((total, count))
    return sum(part for part, _ in sums) / sum(tokens for _, tokens in sums)


@torch.no_grad()
def reply_logprobs(
    model: nn.Module, groups: Sequence[Group], temperature: float, micro_tokens: int, device: torch.device
) -> list[float]:
    """Summed log-prob of every reply, one reply per group."""
    out: list[float] = []
    for part in cut_by_tokens(groups, lambda g: g.tokens, micro_tokens):
        packing = pack(part).to(device)
        out += exact(packing.scatter(token_logprobs(model, packing, temperature=temperature))).sum(1).tolist()
    return out
