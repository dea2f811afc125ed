"""Generation on our side, and how far its log-probs are from those of the training forward."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.models.loading import load_policy
from accord.training.precision import lowered
from benchmarks.clock import now
from benchmarks.ours.rates import cache_bytes, rates
from benchmarks.ours.setting import Result, items_of, options, world_of


def generation(folder: Path) -> Result:
    """Seconds per token drawn."""
    chosen = options(folder)
    world = world_of(chosen)
    prompts = [item["prompt"] for item in items_of(folder)]
    model = load_policy(str(folder / "model"), trainable=False).to(world.device)
    if chosen.get("bf16"):
        model = model.to(torch.bfloat16)
    stops = frozenset(chosen["stop_ids"])
    limit, greedy_limit = chosen["max_new_tokens"], chosen["greedy_tokens"]

    def draw(some: list[list[int]], *, temperature: float, limit: int, seed: int) -> list[list[int]]:
        rollouts = sample(model, some, SampleSettings(1, temperature, limit, stops, seed))
        return [list(rollout.ids) for rollout in rollouts]

    # so cold that the likeliest token is drawn
    greedy = draw(prompts[:8], temperature=1e-5, limit=greedy_limit, seed=0)
    seconds, tokens = [], []
    with replies_given(folder) if chosen.get("given") else nullcontext():
        for repeat in range(chosen["repeats"]):
            started = now(world.device.type)
            tokens.append(sum(map(len, draw(prompts, temperature=1.0, limit=limit, seed=repeat))))
            seconds.append((now(world.device.type) - started) / tokens[-1])
    found = {"seconds": seconds, "greedy": greedy, "tokens": fmean(tokens) / len(prompts)}
    if not chosen.get("rates"):
        return found
    context = sum(map(len, prompts)) / len(prompts) + limit / 2
    return {
        **found,
        **rates(world.device.type),
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows": len(prompts),
        "mean_context": context,
        "cache_bytes": cache_bytes(bare(model).config),
    }


def replies_given(folder: Path) -> AbstractContextManager[object]:
    """Tokens are drawn as ever, and the workload's own are taken in their place."""
    replies, own = [item["replies"][0] for item in items_of(folder)], SampleSettings.tokens

    def tokens(
        self: SampleSettings, logits: Tensor, streams: np.ndarray, step: int | np.ndarray
    ) -> tuple[Tensor, Tensor]:
        drawn, logprobs = own(self, logits, streams, step)
        places = zip(streams.tolist(), np.broadcast_to(step, streams.shape).tolist(), strict=True)
        return torch.tensor([replies[stream][count] for stream, count in places], device=drawn.device), logprobs

    return patch.object(SampleSettings, "tokens", tokens)


def agreement(folder: Path) -> Result:
    """Log-probs of sampling against those of the training forward, on the same weights in the same precision."""
    chosen = options(folder)
    prompts = [item["prompt"] for item in items_of(folder)]
    model = load_policy(str(folder / "model"), trainable=False)
    limit, stops = chosen["max_new_tokens"], frozenset({2})
    out: Result = {}
    for precision in ("f32", "bf16"):
        with torch.no_grad(), lowered(precision, torch.device("cpu")):
            rollouts = sample(model, prompts, SampleSettings(2, 1.0, limit, stops, seed=0))
            packing = pack([reply_group(r.prompt_ids, r.ids) for r in rollouts])
            gap = token_logprobs(model, packing) - torch.tensor([value for r in rollouts for value in r.logprobs])
        out[precision] = {"mean": float(gap.abs().mean()), "largest_ratio": float(gap.abs().max().exp())}
    return out
