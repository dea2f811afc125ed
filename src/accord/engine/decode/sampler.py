"""Prompts → rollouts. In-process engine on the trainer's own weights; engines share this one signature.

Each reply owns a counter-based stream of uniforms, so its random numbers do not depend on its batch; tokens are
drawn by inverting the cumulative distribution. Rows that end leave the batch and waiting prompts take their place.
"""

import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from accord.engine.decode.cuda_graphs import CudaGraphs, captures
from accord.engine.decode.decoder import Decoder, Shortcut, decodes
from accord.engine.decode.draw import Ended, Finished, SampleSettings
from accord.engine.decode.fallback import decode_padded
from accord.engine.decode.stems import Stems
from accord.engine.forward.adapters import bare
from accord.engine.forward.dtype import computed_in
from accord.records import Rollout

CACHED = 65536  # tokens of the cache at most: more rows at once make no step cheaper


def cache_bytes(model: nn.Module) -> int:
    """Bytes of keys and values of one token."""
    config = bare(model).config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dtype = computed_in(next(model.parameters()))
    return int(2 * config.num_hidden_layers * heads * size * dtype.itemsize)


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    settings: SampleSettings,
    finished: Finished | None = None,
    *,
    cache_tokens: int = CACHED,
    stems: Stems | None = None,
) -> list[Rollout]:
    """`settings.n` rollouts per prompt, prompt by prompt.

    `finished` is called in this thread as soon as a prompt has its last reply, while others are still being drawn.
    The cache holds about `cache_tokens` tokens, and one prompt's replies at least. `stems` are what prompts of a model
    that stays as it is began with in earlier calls.
    """
    n, numbers = settings.n, settings.numbered(len(prompts))
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    was_training = model.training
    model.eval()
    longest = max((len(prompt) for prompt in prompts), default=0) + settings.max_new_tokens
    slots = prompts and decodes(model, longest=longest)
    decode = functools.partial(decode_in_slots, stems=stems) if slots else decode_padded
    drawn: list[dict[int, Rollout]] = [{} for _ in prompts]
    longest_first = [prompts[i] for i in order]
    ordered = replace(settings, numbers=[numbers[i] for i in order])
    for number, (ids, logprobs) in decode(model, longest_first, ordered, cache_tokens=cache_tokens):
        i = order[number // n]
        finish, temperature, version = settings.finish(ids), settings.temperature, settings.version
        rollout = Rollout(tuple(prompts[i]), tuple(ids), tuple(logprobs), finish, temperature, version)
        drawn[i][number % n] = rollout
        if finished is not None and len(drawn[i]) == n:
            finished(i, [drawn[i][k] for k in range(n)])
    model.train(was_training)
    return [replies[k] for replies in drawn for k in range(n)]


class Lane:
    """Replies to prompts of similar length: those that wait, and those in the slots of one of the decoder's pools.

    Of every live slot, `reply` says which reply it is, `count` how many tokens it has; `ids` and `logprobs` hold them.
    """

    def __init__(self, prompts: range, capacity: int, n: int, slots: int, max_new_tokens: int) -> None:
        self.waiting = deque(prompts)
        self.n, self.slots, self.capacity = n, slots, capacity
        self.reply, self.count = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self.ids = np.zeros((slots, max_new_tokens), dtype=np.int64)
        self.logprobs = np.zeros((slots, max_new_tokens))

    def enter(self) -> list[int]:
        """Prompts that take free slots now: all that fit, once a quarter of the slots is free.

        A prompt that enters alone would cost a pass of its own.
        """
        free = (self.slots - len(self.reply)) // self.n
        if free < min(len(self.waiting), max(1, self.slots // (4 * self.n))):
            return []
        entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        replies = [prompt * self.n + k for prompt in entering for k in range(self.n)]
        self.reply = np.concatenate([self.reply, np.array(replies, dtype=np.int64)])
        self.count = np.concatenate([self.count, np.zeros(len(replies), dtype=np.int64)])
        return entering

    def append(self, ids: np.ndarray, logprobs: np.ndarray) -> None:
        """One more token in every live slot."""
        live = np.arange(len(self.reply))
        self.ids[live, self.count], self.logprobs[live, self.count] = ids, logprobs
        self.count += 1

    def ended(self, settings: SampleSettings) -> np.ndarray:
        """(live,) True for the replies that end for what they say."""
        said = [settings.stopped(ids[:count].tolist()) for ids, count in zip(self.ids, self.count, strict=False)]
        return np.array(said, dtype=bool)

    def leave(self, ended: np.ndarray) -> Ended:
        """The replies in the slots where `ended`, with their numbers."""
        for slot in np.flatnonzero(ended):
            count = self.count[slot]
            yield int(self.reply[slot]), (self.ids[slot, :count].tolist(), self.logprobs[slot, :count].tolist())

    def reorder(self, slots: np.ndarray) -> None:
        """Follow the decoder: what stood in `slots` now stands in the first ones."""
        self.reply, self.count = self.reply[slots], self.count[slots]
        self.ids[: len(slots)], self.logprobs[: len(slots)] = self.ids[slots], self.logprobs[slots]


def make_lanes(lengths: Sequence[int], n: int, max_new_tokens: int, cache_tokens: int) -> list[Lane]:
    """Lanes of prompts with these lengths (the longest first), a lane's longest at most twice its shortest.

    Every lane keeps the same share of its replies in slots, so that together they hold `cache_tokens`.
    """
    starts = [0]
    for i, length in enumerate(lengths):
        if lengths[starts[-1]] > 2 * length and n * (i - starts[-1]) >= 32:
            starts.append(i)
    ranges = [range(a, b) for a, b in zip(starts, [*starts[1:], len(lengths)], strict=True)]
    capacities = [lengths[prompts.start] + max_new_tokens for prompts in ranges]
    share = min(1.0, cache_tokens / sum(n * len(r) * c for r, c in zip(ranges, capacities, strict=True)))
    return [
        Lane(prompts, capacity, n, n * max(1, int(share * len(prompts))), max_new_tokens)
        for prompts, capacity in zip(ranges, capacities, strict=True)
    ]


def shortcut(model: nn.Module, decoder: Decoder) -> Shortcut | None:
    """What computes the steps of this model's decoder faster, here and in this precision, and gives the same."""
    return CudaGraphs(decoder) if captures(model) else None


def decode_in_slots(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    settings: SampleSettings,
    *,
    cache_tokens: int,
    stems: Stems | None = None,
) -> Ended:
    """Continuous batching: `settings.n` replies per prompt, as they end. Prompts come sorted, the longest first."""
    streams = settings.streams(len(prompts))
    lanes = make_lanes([len(prompt) for prompt in prompts], settings.n, settings.max_new_tokens, cache_tokens)
    decoder = Decoder(model, [(lane.slots, lane.capacity) for lane in lanes])
    decoder.shortcut = shortcut(model, decoder)
    stem = stems.of(decoder, prompts) if stems is not None else None
    device, stops = decoder.embedding.device, np.array(sorted(settings.stop_ids))
    logits = [torch.zeros(0, 0, device=device) for _ in lanes]
    while True:
        for number, lane in enumerate(lanes):
            if entering := lane.enter():
                first = decoder.admit(number, [prompts[i] for i in entering], settings.n, stem and stem.cache)
                logits[number] = torch.cat([logits[number], first]) if len(logits[number]) else first
        sizes = [len(lane.reply) for lane in lanes]
        if not any(sizes):
            return
        reply, count = (np.concatenate([getattr(lane, name) for lane in lanes]) for name in ("reply", "count"))
        joined = torch.cat([part for part in logits if len(part)])
        token, logprob = (t.cpu().numpy() for t in settings.tokens(joined, streams[reply], count))
        ended = np.isin(token, stops) | (count + 1 == settings.max_new_tokens)
        following = []
        start = 0
        for pool, lane, size in zip(decoder.pools, lanes, sizes, strict=True):
            own = slice(start, start + size)
            start += size
            lane.append(token[own], logprob[own])
            if settings.ends is not None:
                ended[own] |= lane.ended(settings)
            kept = np.arange(size)
            if ended[own].any():
                yield from lane.leave(ended[own])
                kept = pool.keep(~ended[own])
                lane.reorder(kept)
            following.append(token[own][kept])
        ids = torch.from_numpy(np.concatenate(following)).to(device)
        sizes = [len(part) for part in following]
        logits = list(decoder.step(ids).split(sizes)) if len(ids) else [joined[:0] for _ in lanes]
