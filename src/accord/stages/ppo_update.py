"""The policy step: clipped surrogate and clipped value loss over mini-batches of the experience."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from accord.config import Ppo
from accord.data.batches import build_plan
from accord.models.policy import hidden_states, logprobs_and_entropy
from accord.objectives.policy_gradient import ppo_loss, value_loss
from accord.stages.ppo_actors import Actors
from accord.stages.ppo_rollouts import Experience
from accord.training.distributed import World
from accord.training.fit import sum_over_ranks
from accord.training.optimizer import clip_gradients, rate_at, set_rate


def improve(
    config: Ppo,
    world: World,
    actors: Actors,
    optimizers: Mapping[str, torch.optim.Optimizer],
    experience: Experience,
    advantages: Tensor,
    returns: Mapping[str, Tensor],
    step: int,
) -> dict[str, float]:
    """`ppo_epochs` passes of mini-batches over the experience; metrics are means over the updates."""
    rates = {
        "policy": config.learning_rate,
        "critics": config.critic_learning_rate if config.critic == "separate" else config.learning_rate,
    }
    for name, peak in rates.items():
        rate = rate_at(step, config.steps, peak=peak, warmup=config.warmup, schedule=config.schedule, hold=0.5)
        set_rate(optimizers[name], rate)
    clipped: dict[str, list[nn.Module]] = {"policy": [actors.policy], "critics": actors.critics.parts()}
    trained = {
        name: [[p for p in module.parameters() if p.requires_grad] for module in modules]
        for name, modules in clipped.items()
    }
    everything = [p for lists in trained.values() for parameters in lists for p in parameters]
    weight = 1.0 if config.critic == "separate" else config.value_weight
    sums: dict[str, float] = {}
    updates = 0
    prompts_at_once = max(1, config.mini_batch_size // config.samples)
    actors.policy.train()
    for epoch in range(config.ppo_epochs):
        order = np.random.default_rng([config.seed, step, epoch]).permutation(len(experience.groups))
        for start in range(0, len(order), prompts_at_once):
            chosen = order[start : start + prompts_at_once].tolist()
            count = int(experience.mask[rows_of(chosen, config.samples)].sum())
            for optimizer in optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            metrics: dict[str, Tensor] = {}
            for micro in world.micro_batches(chosen, lambda i: experience.groups[i].tokens, config.micro_tokens):
                loss, parts = micro_loss(
                    config, actors, experience, advantages, returns, micro, count, weight, world.device
                )
                loss.backward()
                for name, part in parts.items():
                    metrics[name] = metrics.get(name, torch.zeros(())) + part.cpu()
            metrics = sum_over_ranks(world, everything, metrics)
            for name, optimizer in optimizers.items():
                norms = [clip_gradients(parameters, config.clip_norm) for parameters in trained[name]]
                metrics[f"grad_norm/{name}"] = torch.tensor(math.hypot(*norms))
                optimizer.step()
            updates += 1
            for name, part in metrics.items():
                sums[name] = sums.get(name, 0.0) + float(part)
    actors.policy.eval()
    averages = {name: total / updates for name, total in sums.items()}
    return {
        **averages,
        "policy/updates": updates,
        "learning_rate": optimizers["policy"].param_groups[0]["lr"],
    }


def micro_loss(
    config: Ppo,
    actors: Actors,
    experience: Experience,
    advantages: Tensor,
    returns: Mapping[str, Tensor],
    chosen: Sequence[int],
    count: int,
    value_weight: float,
    device: torch.device,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy and value losses of the replies to some prompts, divided by the whole mini-batch's tokens."""
    rows = rows_of(chosen, config.samples)
    plan = build_plan([experience.groups[i] for i in chosen]).to(device)
    mask = experience.mask[rows].to(device)
    width = mask.shape[1]

    def there(matrix: Tensor) -> Tensor:
        return matrix[rows].to(device)

    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        hidden = hidden_states(actors.policy, plan)
        logprobs, entropy = logprobs_and_entropy(actors.policy, plan, hidden, temperature=config.temperature)
        values = actors.critics.values(actors.policy, plan, hidden)
    loss, metrics = ppo_loss(
        plan.scatter(logprobs, width),
        there(experience.logprobs),
        there(advantages),
        mask,
        clip=config.clip,
        count=count,
    )
    metrics["objective/entropy"] = entropy.sum() / count
    for name, value in values.items():
        part, parts = value_loss(
            plan.scatter(value, width),
            there(experience.values[name]),
            there(returns[name]),
            mask,
            clip=config.value_clip,
            count=count,
        )
        loss = loss + value_weight * part
        metrics[f"loss/value/{name}"] = parts["loss/value"]
    return loss, metrics


def rows_of(prompts: Sequence[int], samples: int) -> list[int]:
    """Places of the replies to the prompts with these places."""
    return [i * samples + k for i in prompts for k in range(samples)]
