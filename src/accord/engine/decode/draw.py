"""From logits to tokens: counter-based uniforms, and the cumulative distribution turned round."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from accord.engine.forward.dtype import has_doubles
from accord.records import Finish, Rollout

Ended = Iterator[tuple[int, tuple[list[int], list[float]]]]  # replies as they end: number, ids and log-probs
Finished = Callable[[int, list[Rollout]], None]  # is given a prompt's place and all its rollouts

BLOCK = 32  # tokens whose probabilities are added up before one of them is looked for


@dataclass(frozen=True)
class SampleSettings:
    """How `n` replies to each prompt are drawn, and where each ends; every engine takes these.

    A reply ends with a token of `stop_ids` (finish "stop") or after `max_new_tokens` ("length"). `version` names the
    weights. `numbers` are the prompts' numbers in the random stream, their places by default: where prompts are shared
    out over ranks, or come in chunks, their places in the whole. `vocabulary` are the ids that have a token; a head may
    have more rows, and none of these is drawn (empty: every id may be). Log-probs are those of the whole head, as
    training computes them.

    At a temperature of 0 the likeliest token is taken, with the model's log-prob at temperature 1. `top_k`, `top_p` and
    `min_p` leave tokens out, in this order, as `transformers` does; log-probs are those of what is then drawn from.
    `ends` is asked of a reply's ids after each token whether it ends there (texts that stop it).
    """

    n: int
    temperature: float
    max_new_tokens: int
    stop_ids: frozenset[int]
    seed: int
    version: str = ""
    numbers: Sequence[int] | None = None
    vocabulary: frozenset[int] = frozenset()
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    ends: Callable[[Sequence[int]], bool] | None = None

    def numbered(self, count: int) -> Sequence[int]:
        """The numbers of so many prompts."""
        return range(count) if self.numbers is None else self.numbers

    def streams(self, count: int) -> np.ndarray:
        """The random streams (prompts · n,) of the replies to so many prompts, prompt by prompt."""
        return np.array(
            [number * self.n + k for number in self.numbered(count) for k in range(self.n)], dtype=np.uint64
        )

    def tokens(self, logits: Tensor, streams: np.ndarray, step: int | np.ndarray) -> tuple[Tensor, Tensor]:
        """Next token ids (B,) and their log-probs from logits (B, V), of replies with these streams (B,) at `step`."""
        uniform = torch.from_numpy(uniforms(self.seed, streams, step))
        here = logits if has_doubles(logits.device) else logits.cpu()
        token, logprobs = self._draw(here, uniform.to(here.device))
        return token.to(logits.device), logprobs.to(logits.device)

    def _draw(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        nameless = tokenless(self.vocabulary, logits.shape[1])
        named = logits
        if nameless:
            named = logits.float().index_fill(1, torch.tensor(nameless, device=logits.device), float("-inf"))
        if self.temperature and (self.top_k or self.top_p < 1 or self.min_p):
            kept = truncated(named.float() / self.temperature, self.top_k, self.top_p, self.min_p)
            return draw_tokens(kept, uniform, 1.0)
        if self.temperature and not nameless:
            return draw_tokens(logits, uniform, self.temperature)
        token = draw_tokens(named, uniform, self.temperature)[0] if self.temperature else named.argmax(1)
        logprobs = torch.log_softmax(logits.float() / (self.temperature or 1.0), dim=1)
        return token, logprobs.gather(1, token.unsqueeze(1)).squeeze(1)

    def finish(self, ids: Sequence[int]) -> Finish:
        """How a reply with these token ids ended."""
        return "stop" if ids and (ids[-1] in self.stop_ids or self.stopped(ids)) else "length"

    def stopped(self, ids: Sequence[int]) -> bool:
        """Whether a reply with these ids so far ends for what it says."""
        return self.ends is not None and self.ends(ids)


def truncated(logits: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Logits (B, V) with −∞ for tokens that are not drawn from.

    Kept are the `top_k` likeliest (0: all); of these the fewest that have the probability `top_p` (Holtzman et al.
    2020, arXiv:1904.09751); of these what has `min_p` of the likeliest one's (Nguyen et al. 2024, arXiv:2407.01082).
    """
    out = float("-inf")
    if top_k and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], out)
    if top_p < 1:
        ordered, places = logits.sort(descending=True)
        chances = ordered.softmax(-1)
        beyond = chances.cumsum(-1) - chances >= top_p  # what stands before a token has enough already
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), out)
    if min_p:
        chances = logits.softmax(-1)
        logits = logits.masked_fill(chances < min_p * chances.amax(-1, keepdim=True), out)
    return logits


@functools.lru_cache(maxsize=8)
def tokenless(vocabulary: frozenset[int], rows: int) -> tuple[int, ...]:
    """The rows of a head for which the vocabulary has no token; none where every id may be drawn."""
    return tuple(i for i in range(rows) if i not in vocabulary) if vocabulary else ()


def uniforms(seed: int, rows: np.ndarray, step: int | np.ndarray) -> np.ndarray:
    """One number in [0, 1) per row, a pure function of (seed, row, step): splitmix64 finaliser, three rounds."""
    with np.errstate(over="ignore"):
        state = rows * np.uint64(0x9E3779B97F4A7C15) + np.asarray(step, np.uint64) * np.uint64(0xD1B54A32D192ED03)
        # the constant keeps seed 0, row 0, step 0 off the finaliser's fixed point, 0
        state ^= np.uint64((seed * 0x2545F4914F6CDD1D + 0xA0761D6478BD642F) % 2**64)
        for _ in range(3):
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2**53


def draw_tokens(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Invert the cumulative distribution: logits (B, V), uniform (B,) f64 to token ids (B,) and their log-probs (B,).

    The cumulative sum runs over blocks of tokens, then inside the one block that the uniform falls into: two short
    sums in f64 instead of one over the vocabulary.
    """
    logits = logits.float() if temperature == 1.0 else logits.float() / temperature
    highest = logits.amax(-1, keepdim=True)
    weights = (logits - highest).exp_()
    weights = F.pad(weights, (0, -weights.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    by_block = weights.sum(-1).double().cumsum(-1)
    wanted = uniform.unsqueeze(1) * by_block[:, -1:]
    block = torch.searchsorted(by_block, wanted, right=True).clamp_(max=by_block.shape[1] - 1)
    before = torch.where(block > 0, by_block.gather(1, (block - 1).clamp(min=0)), 0.0)
    share = ((wanted - before) / (by_block.gather(1, block) - before)).clamp_(0.0, 1.0 - 2.0**-53)
    inside = weights[torch.arange(len(weights), device=weights.device), block.squeeze(1)].double().cumsum(-1)
    # a block's f32 sum differs from the f64 sum of its tokens by rounding: scale the draw, never fall off the end
    within = torch.searchsorted(inside, share * inside[:, -1:], right=True).clamp_(max=BLOCK - 1)
    token = block * BLOCK + within
    logprobs = (logits.gather(1, token) - highest).double() - by_block[:, -1:].log()
    return token.squeeze(1), logprobs.float().squeeze(1)
