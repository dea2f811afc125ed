"""Bytes and operations of a decoder from its shape alone: what a plan reckons with before there is a model.

Decoders with RMSNorm, rotary positions and gated MLPs, in f32 with products in f32 or bf16, as they are computed here.
`training.memory` counts what a real model keeps and shares these formulas; a test compares the two.
"""

import math
from dataclasses import dataclass

SHARE = 0.8  # of the free memory that a plan may use
# the same where activations are kept: a CPU's memory is everybody's, and an estimate that is off ends the process
KEEPING = {"cpu": 0.25, "cuda": 0.8}
# bytes of activations that keep every core busy: a larger micro-batch makes a step on a CPU no faster
BUSY = {"cpu": 1.5 * 2**30}
MOST = {"cpu": 8192, "cuda": 65536}  # tokens of the largest micro-batch that is planned
PEAK = 1.5  # largest use over what is kept: gradients of activations, freed as backward goes on (1.3 to 1.5 measured)
F32, BF16 = 4, 2
FOUR_BITS = 0.5 + F32 / 64  # and a block's scale (`engine.forward.four_bits`)
SCALED = 256  # numbers of a moment of 8 bits that share a scale (`training.eight_bits`)
KEPT_LOGITS = 2**24  # of more, tiles are computed again (`engine.forward.linear_logprobs`)


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder; `tied` says that the head is the embedding."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool = False

    @property
    def queries(self) -> int:
        """Numbers of all heads' queries of a token."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Numbers of all heads' keys of a token; as many values."""
        return self.kv_heads * self.head_size

    @property
    def layer_numbers(self) -> int:
        return self.width * (2 * self.queries + 2 * self.keys + 3 * self.inner + 2)

    @property
    def numbers(self) -> int:
        """Parameters."""
        return self.layers * self.layer_numbers + self.width * (self.vocabulary * (1 if self.tied else 2) + 1)

    @property
    def trunk_numbers(self) -> int:
        """Parameters that every token is multiplied by; the head sees those alone that carry loss."""
        return self.layers * self.layer_numbers

    def adapter_numbers(self, rank: int) -> int:
        """Parameters of LoRA adapters of this rank on every linear layer."""
        pairs = 2 * (self.width + self.queries) + 2 * (self.width + self.keys) + 3 * (self.width + self.inner)
        return self.layers * rank * pairs

    def cache_bytes(self, each: int) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.keys * each


def state_bytes(numbers: float, *, ranks: int = 1, each: int = F32, bits: int = 32) -> float:
    """Bytes beside the weights for so many numbers that are trained: a gradient and AdamW's two moments.

    The moments take `each` bytes a number, or with `bits` 8 one and their scale's share. `ranks` divide it all where
    it is sharded.
    """
    return numbers * (each + 2 * (each if bits == 32 else 1 + F32 / SCALED)) / ranks


def useful_tokens(fits: float, per_token: float, *, longest: float, device: str) -> int:
    """Tokens of a micro-batch, of which so many fit at `per_token` bytes: a multiple of 256, or the longest text."""
    useful = min(fits, MOST.get(device, MOST["cpu"]), BUSY.get(device, math.inf) / per_token)
    return max(math.ceil(longest), int(useful) // 256 * 256)


def layer_kept(shape: DecoderShape, *, low: bool) -> int:
    """Bytes that backward keeps of a token in one layer.

    Of either norm what it made and what went out, queries, keys, values, what was attended to twice, and of the MLP
    gate, its activation, up and their product. In bf16 (`low`) all but what norms made are half as large.
    """
    norms = 2 * shape.width
    products = 2 * shape.width + 3 * shape.queries + 2 * shape.keys + 4 * shape.inner
    return F32 * norms + (BF16 if low else F32) * products


def kept_bytes(shape: DecoderShape, *, low: bool = False, recompute: bool = False) -> float:
    """Bytes that backward keeps of a token in all layers; where they run again, their inputs and one layer's."""
    of_layer = layer_kept(shape, low=low)
    return shape.layers * F32 * shape.width + of_layer if recompute else float(shape.layers * of_layer)


def head_bytes(shape: DecoderShape, rows: float, *, low: bool = False) -> float:
    """Bytes kept for log-probs of so many tokens: the exponentials of their logits, up to a bound."""
    return min(rows * shape.vocabulary, KEPT_LOGITS) * (BF16 if low else F32)


def forward_operations(shape: DecoderShape, tokens: float, rows: float, pairs: float) -> float:
    """Floating-point operations of a forward pass: trunk over all tokens, head over `rows`, attention over `pairs` of
    a query and a key that it sees (a product for the score and one for the sum)."""
    return 2 * shape.trunk_numbers * tokens + 2 * shape.width * shape.vocabulary * rows + attention(shape, pairs)


def attention(shape: DecoderShape, pairs: float) -> float:
    return 4 * shape.layers * shape.queries * pairs
