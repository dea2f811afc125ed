"""Decoding by a model's own forward and cache, for architectures that `engine.decode.decoder` does not know.

Prompts are padded on the left, the rows of a batch step together, and those that ended leave it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from accord.engine.decode.draw import Ended, SampleSettings
from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import packs


def decode_padded(
    model: nn.Module, prompts: Sequence[Sequence[int]], settings: SampleSettings, *, cache_tokens: int
) -> Ended:
    """Replies to the prompts, as `sampler.decode_in_slots` gives them."""
    packs(model)  # the first look at a model settles how it attends
    n, numbers = settings.n, settings.numbered(len(prompts))
    lengths = [len(prompt) for prompt in prompts]
    for start, stop in batches(lengths, n, settings.max_new_tokens, cache_tokens):
        for number, drawn in _decode_batch(model, prompts[start:stop], replace(settings, numbers=numbers[start:stop])):
            yield start * n + number, drawn


def batches(lengths: Sequence[int], n: int, max_new_tokens: int, cache_tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of prompts of similar lengths (the longest first) whose replies need at most `cache_tokens` in the cache.

    Every row pays for the longest prompt at each step; below 64 rows a step costs the same anyway.
    """
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop < len(lengths):
            rows, longest, shortest = (stop + 1 - start) * n, lengths[start], lengths[stop]
            if rows * (longest + max_new_tokens) <= cache_tokens and (longest <= 2 * shortest + 4 or rows <= 64):
                continue
        yield start, stop
        start = stop


def _decode_batch(model: nn.Module, prompts: Sequence[Sequence[int]], settings: SampleSettings) -> Ended:
    """Prefill each prompt once, repeat its cache n times, decode."""
    streams = settings.streams(len(prompts))
    causal = bare(model)
    device = next(causal.parameters()).device
    longest = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[i, longest - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = causal(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache, logits = out.past_key_values, out.logits[:, -1]
    position = positions[:, -1]
    if settings.n > 1:
        cache.batch_repeat_interleave(settings.n)
        logits, mask, position = (t.repeat_interleave(settings.n, 0) for t in (logits, mask, position))
    alive = np.arange(len(prompts) * settings.n)
    done = np.zeros(len(alive), dtype=bool)
    replies: list[tuple[list[int], list[float]]] = [([], []) for _ in alive]
    for step in range(settings.max_new_tokens):
        token, logprob = settings.tokens(logits, streams[alive], step)
        for place, (t, lp) in enumerate(zip(token.tolist(), logprob.tolist(), strict=True)):
            if done[place]:
                continue
            ids_drawn, logprobs = replies[alive[place]]
            ids_drawn.append(t)
            logprobs.append(lp)
            if t in settings.stop_ids or step + 1 == settings.max_new_tokens or settings.stopped(ids_drawn):
                done[place] = True
                yield int(alive[place]), (ids_drawn, logprobs)
        if done.all():
            break
        # dropping rows copies the cache, so wait until an eighth of them is done
        if done.sum() >= 0.125 * len(alive):
            keep = torch.from_numpy(np.flatnonzero(~done)).to(device)
            cache.batch_select_indices(keep)
            token, mask, position = token[keep], mask[keep], position[keep]
            alive, done = alive[~done], done[~done]
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        out = causal(
            input_ids=token.unsqueeze(1),
            attention_mask=mask,
            position_ids=position.unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
        )
        logits = out.logits[:, -1]
