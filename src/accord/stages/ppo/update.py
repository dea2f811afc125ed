"""The policy step: clipped surrogate, KL and clipped value losses over mini-batches of the experience."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from accord.engine.forward.causal import hidden_states, logprobs_and_entropy, token_logprobs
from accord.engine.packing import Group, pack
from accord.objectives.kl import EXACT, SAMPLED, kl_loss
from accord.objectives.likelihood import likelihood_loss
from accord.objectives.masked import clean
from accord.objectives.policy_gradient import ppo_loss, token_weights, value_loss
from accord.run import RunFolder
from accord.stages.ppo.actors import Actors, exact_kls
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.experience import Experience
from accord.training.distributed import World
from accord.training.finite import explain_not_finite
from accord.training.fit import Losses, backward, sum_over_ranks
from accord.training.optimizer import clip_gradients, rate_at, set_rate
from accord.training.order import batch_indices
from accord.training.precision import lowered, one_cast


@dataclass(frozen=True)
class Targets:
    """What an iteration's update moves towards: advantages (B, T), returns (B, T) by signal, β and where it stands.

    Before `step` reaches `--critic_warmup` only the critics learn.
    """

    advantages: Tensor
    returns: Mapping[str, Tensor]
    kl_coefficient: float
    step: int


@dataclass(frozen=True)
class MiniBatch:
    """Prompts of one optimizer step; weights (B, T) and tokens of the whole of it, however it is cut."""

    chosen: Sequence[int]
    weights: Tensor
    count: int


def improve(
    config: Ppo,
    world: World,
    actors: Actors,
    optimizers: Mapping[str, torch.optim.Optimizer],
    experience: Experience,
    targets: Targets,
    run: RunFolder | None = None,
) -> dict[str, float]:
    """`ppo_epochs` passes of mini-batches over the experience; metrics are means over the updates.

    `run` keeps a mini-batch whose gradient is not finite.
    """
    set_rates(config, optimizers, targets.step)
    parts: dict[str, list[nn.Module]] = {"policy": [actors.policy], "critics": actors.critics.parts()}
    trained = {
        name: [[p for p in module.parameters() if p.requires_grad] for module in parts[name]] for name in optimizers
    }
    everything = [p for lists in trained.values() for parameters in lists for p in parameters]
    stepped = [name for name in optimizers if name != "policy" or targets.step >= config.critic_warmup]
    sums: dict[str, float] = {}
    updates = 0
    actors.train()
    for number, batch in enumerate(mini_batches(config, experience, targets.step)):
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        size = functools.partial(tokens_of, experience.groups)

        def loss(some: Sequence[int], batch: MiniBatch = batch) -> Losses:
            return micro_loss(config, actors, experience, targets, batch, some, world.device)

        with one_cast(config.precision, world.device, sharded=world.sharded):
            micro_batches = world.micro_batches(batch.chosen, size, config.micro_tokens)
            metrics = backward(world, micro_batches, min(batch.chosen, key=size), loss)
            if actors.other_text and "policy" in stepped:
                metrics |= learn_other_text(config, world, actors, targets.step, number)
        metrics = sum_over_ranks(world, everything, metrics)
        if config.update_kl and updates and float(metrics["policy/kl_old_new"]) > config.update_kl:
            break
        norms = {
            name: [clip_gradients(parameters, config.clip_norm) for parameters in trained[name]] for name in stepped
        }
        if not all(math.isfinite(norm) for of in norms.values() for norm in of):
            groups = [experience.groups[i] for i in batch.chosen]
            learners = [actors.policy, actors.critics]
            raise explain_not_finite(run, targets.step + 1, batch.chosen, lambda i: loss(i)[0], learners, kept=groups)
        for name in stepped:
            metrics[f"grad_norm/{name}"] = torch.tensor(math.hypot(*norms[name]))
            optimizers[name].step()
        updates += 1
        for name, part in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(part)
    actors.train(False)
    averages = {name: total / updates for name, total in sums.items()}
    return {
        **averages,
        "policy/updates": updates,
        "learning_rate": optimizers["policy"].param_groups[0]["lr"],
    }


def set_rates(config: Ppo, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
    """The learning rates of an iteration."""
    peaks = {
        "policy": config.learning_rate,
        "critics": config.critic_learning_rate if config.critic == "separate" else config.learning_rate,
    }
    for name, optimizer in optimizers.items():
        rate = rate_at(step, config.steps, peak=peaks[name], warmup=config.warmup, schedule=config.schedule, hold=0.5)
        set_rate(optimizer, rate)


def mini_batches(config: Ppo, experience: Experience, step: int) -> list[MiniBatch]:
    """Every epoch's prompts in a fresh order, a pure function of seed, step and epoch."""
    prompts_at_once = max(1, config.mini_batch_size // config.samples)
    batches = []
    for epoch in range(config.ppo_epochs):
        order = np.random.default_rng([config.seed, step, epoch]).permutation(len(experience.groups))
        for start in range(0, len(order), prompts_at_once):
            chosen = order[start : start + prompts_at_once].tolist()
            batches.append(mini_batch(config, experience, chosen))
    return batches


def mini_batch(config: Ppo, experience: Experience, chosen: Sequence[int]) -> MiniBatch:
    """The prompts with these places as one optimizer step."""
    rows = rows_of(chosen, config.samples)
    mask = experience.mask[rows]
    weights = torch.zeros_like(experience.logprobs)
    weights[rows] = token_weights(mask, config.mean_over, longest=config.max_new_tokens)
    if experience.importance is not None:
        weights = weights * experience.importance
    return MiniBatch(chosen, weights, int(mask.sum()))


def micro_loss(
    config: Ppo,
    actors: Actors,
    experience: Experience,
    targets: Targets,
    batch: MiniBatch,
    chosen: Sequence[int],
    device: torch.device,
) -> Losses:
    """Policy, KL and value losses of the replies to some of the batch's prompts, over the whole batch's tokens."""
    rows = rows_of(chosen, config.samples)
    packing = pack([experience.groups[i] for i in chosen]).to(device)
    mask = experience.mask[rows].to(device)
    width = mask.shape[1]

    def there(matrix: Tensor) -> Tensor:
        return matrix[rows].to(device)

    with lowered(config.precision, device):
        hidden = hidden_states(actors.policy, packing)
        logprobs, entropy = logprobs_and_entropy(actors.policy, packing, hidden, temperature=config.temperature)
        values = actors.critics.values(actors.policy, packing, hidden)
        exact = (
            exact_kls(actors, packing, config.kl_estimator, temperature=config.temperature, hidden=hidden)
            if config.kl_estimator in EXACT
            else None
        )
    now = packing.scatter(logprobs, width)
    loss, metrics = ppo_loss(
        now,
        there(experience.logprobs),
        there(targets.advantages),
        mask,
        clip=config.clip,
        count=batch.count,
        weights=there(batch.weights),
    )
    metrics["objective/entropy"] = entropy.sum() / batch.count
    if config.kl_in == "loss":
        if exact is None:
            kl = SAMPLED[config.kl_estimator](now, *clean(mask, there(experience.reference)))
        else:
            kl = packing.scatter(exact, width)
        part, parts = kl_loss(
            kl, mask, coefficient=targets.kl_coefficient, count=batch.count, weights=there(batch.weights)
        )
        loss = loss + part
        metrics |= parts
    value_weight = 1.0 if config.critic == "separate" else config.value_weight
    for name, value in values.items():
        part, parts = value_loss(
            packing.scatter(value, width),
            there(experience.values[name]),
            there(targets.returns[name]),
            mask,
            clip=config.value_clip,
            count=batch.count,
        )
        loss = loss + value_weight * part
        metrics[f"loss/value/{name}"] = parts["loss/value"]
    return loss, metrics


def learn_other_text(config: Ppo, world: World, actors: Actors, step: int, number: int) -> dict[str, Tensor]:
    """The PTX term, `ptx_weight` times the likelihood loss of other text (Ouyang et al. 2022, arXiv:2203.02155, eq. 2).

    Which texts is a pure function of the iteration and the number of the update in it. Its gradient is added to that
    of the mini-batch.
    """
    texts = actors.other_text
    per_iteration = config.ppo_epochs * -(-config.batch_size // max(1, config.mini_batch_size // config.samples))
    places = batch_indices(step * per_iteration + number, len(texts), config.ptx_batch_size, config.seed)
    count = sum(texts[i].trained for i in places)
    size = functools.partial(tokens_of, texts)

    def part(some: Sequence[int]) -> Losses:
        packing = pack([texts[i] for i in some]).to(world.device)
        with lowered(config.precision, world.device):
            loss, _ = likelihood_loss(token_logprobs(actors.policy, packing), count=count)
        return config.ptx_weight * loss, {"loss/ptx": loss.detach()}

    micro_batches = world.micro_batches(places, size, config.micro_tokens)
    return backward(world, micro_batches, min(places, key=size), part)


def tokens_of(groups: Sequence[Group], place: int) -> int:
    """Tokens of the group at a place."""
    return groups[place].tokens


def rows_of(prompts: Sequence[int], samples: int) -> list[int]:
    """Places of the replies to the prompts with these places."""
    return [i * samples + k for i in prompts for k in range(samples)]
