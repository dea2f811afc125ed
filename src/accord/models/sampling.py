"""Prompts → rollouts. In-process engine on the trainer's own weights; engines share this one signature.

Each reply owns a counter-based stream of uniforms, so its random numbers do not depend on its batch; tokens are
drawn by inverting the cumulative distribution.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from accord.models.loading import bare
from accord.records import Rollout


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    temperature: float,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    seed: int,
    version: str = "",
    numbers: Sequence[int] | None = None,
    micro_tokens: int = 65536,
) -> list[Rollout]:
    """`n` rollouts per prompt, prompt by prompt.

    `numbers` are the prompts' numbers in the random stream (default: their places): where prompts are shared out over
    ranks, or come in chunks, their places in the whole.
    A reply ends with a token of `stop_ids` (finish "stop") or at `max_new_tokens` ("length").
    """
    places = range(len(prompts)) if numbers is None else numbers
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[Rollout]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    start = 0
    while start < len(order):
        stop = start + 1
        shortest = len(prompts[order[start]])
        while stop < len(order):
            longest, rows = len(prompts[order[stop]]), (stop + 1 - start) * n
            # every row pays for the longest prompt at each step; below 64 rows a step costs the same anyway
            if rows * (longest + max_new_tokens) > micro_tokens or (longest > 2 * shortest + 4 and rows > 64):
                break
            stop += 1
        chosen = order[start:stop]
        numbered = np.array([places[i] * n + k for i in chosen for k in range(n)], dtype=np.uint64)
        drawn = _decode(model, [prompts[i] for i in chosen], n, temperature, max_new_tokens, stop_ids, seed, numbered)
        for position, (ids, logprobs) in enumerate(drawn):
            i = chosen[position // n]
            finish: Literal["stop", "length"] = "stop" if ids and ids[-1] in stop_ids else "length"
            out[i].append(Rollout(tuple(prompts[i]), tuple(ids), tuple(logprobs), finish, temperature, version))
        start = stop
    model.train(was_training)
    return [rollout for per_prompt in out for rollout in per_prompt]


def uniforms(seed: int, rows: np.ndarray, step: int) -> np.ndarray:
    """One number in [0, 1) per row, a pure function of (seed, row, step): splitmix64 finaliser, three rounds."""
    with np.errstate(over="ignore"):
        state = rows * np.uint64(0x9E3779B97F4A7C15) + np.uint64(step) * np.uint64(0xD1B54A32D192ED03)
        # the constant keeps seed 0, row 0, step 0 off the finaliser's fixed point, 0
        state ^= np.uint64((seed * 0x2545F4914F6CDD1D + 0xA0761D6478BD642F) % 2**64)
        for _ in range(3):
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2**53


def draw_tokens(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Invert the cumulative distribution: logits (B, V), uniform (B,) to token ids (B,) and their log-probs (B,)."""
    logs = torch.log_softmax(logits.float() / temperature, dim=-1)
    cumulative = logs.exp().double().cumsum(-1)
    # the last column can fall short of 1 by rounding; scale the draw instead of falling off the end
    index = torch.searchsorted(cumulative, (uniform * cumulative[:, -1]).unsqueeze(1), right=True)
    index = index.clamp(max=logits.shape[-1] - 1)
    return index.squeeze(1), logs.gather(1, index).squeeze(1)


def _decode(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    n: int,
    temperature: float,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    seed: int,
    rows: np.ndarray,
) -> list[tuple[list[int], list[float]]]:
    """Prefill each prompt once, repeat its cache n times, decode; rows that stopped leave the batch."""
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
    if n > 1:
        cache.batch_repeat_interleave(n)
        logits, mask, position = (t.repeat_interleave(n, 0) for t in (logits, mask, position))
    alive = np.arange(len(prompts) * n)
    done = np.zeros(len(alive), dtype=bool)
    results: list[tuple[list[int], list[float]]] = [([], []) for _ in alive]
    for step in range(max_new_tokens):
        uniform = torch.from_numpy(uniforms(seed, rows[alive], step)).to(device)
        token, logprob = draw_tokens(logits, uniform, temperature)
        for place, (t, lp) in enumerate(zip(token.tolist(), logprob.tolist(), strict=True)):
            if not done[place]:
                results[alive[place]][0].append(t)
                results[alive[place]][1].append(lp)
                done[place] = t in stop_ids
        if step + 1 == max_new_tokens or done.all():
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
    return results
