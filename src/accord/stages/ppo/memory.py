"""Before the first iteration: precision and micro-batch, and a rehearsal of the longest rollouts that can come."""

import functools
import heapq
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from accord.engine.packing import Group, reply_group
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.ppo.actors import Actors
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.update import Targets, micro_loss, mini_batch
from accord.training.distributed import World
from accord.training.machine import settle
from accord.training.memory import longest_first


def settle_actors(config: Ppo, run: RunFolder, world: World, prompts: Sequence[Prompt], actors: Actors) -> Ppo:
    """The config with what the machine decides; BadInput where the longest rollouts will not fit into memory."""
    trained: list[nn.Module] = [actors.policy, actors.critics]
    groups = longest_rollouts(config, actors, prompts)

    def compute(some: Sequence[Group], precision: str) -> Tensor:
        return imagined_loss(config.model_copy(update={"precision": precision}), actors, some, world.device)

    return settle(config, run, world, trained, groups, compute)


def imagined_pass(
    config: Ppo, actors: Actors, prompts: Sequence[Prompt], step: int, device: torch.device
) -> tuple[Callable[[], None], float]:
    """A micro-batch of rollouts that nobody sampled, forward and backward, and about how many like it are left."""

    @functools.cache  # every prompt is rendered to find the longest
    def groups() -> list[Group]:
        return longest_first(longest_rollouts(config, actors, prompts), lambda g: g.tokens, config.micro_tokens)

    def once() -> None:
        actors.train()
        imagined_loss(config, actors, groups(), device).backward()
        actors.train(False)

    mini_batches = config.batch_size * config.samples / config.mini_batch_size
    return once, (config.steps - step) * config.ppo_epochs * mini_batches


def longest_rollouts(config: Ppo, actors: Actors, prompts: Sequence[Prompt]) -> list[Group]:
    """A mini-batch of the longest prompts, whose replies are as long as they may get."""
    rendered = (actors.renderer.prompt_ids(prompt.turns) for prompt in prompts)
    longest = heapq.nlargest(max(1, config.mini_batch_size // config.samples), rendered, key=len)
    replies = [(actors.renderer.end,) * config.max_new_tokens] * config.samples
    return [reply_group(prompt, *replies) for prompt in longest]


def imagined_loss(config: Ppo, actors: Actors, groups: Sequence[Group], device: torch.device) -> Tensor:
    """The loss of rollouts that nobody sampled: its value says nothing, its graph is that of a step."""
    zeros = torch.zeros(len(groups) * config.samples, config.max_new_tokens)
    by_signal = dict.fromkeys(actors.critics.names, zeros)
    mask = torch.ones_like(zeros, dtype=torch.bool)
    experience = Experience([], [], list(groups), mask, zeros, zeros, zeros, {}, by_signal)
    everything = range(len(groups))
    targets = Targets(zeros, by_signal, config.kl_coefficient, 0)
    batch = mini_batch(config, experience, everything)
    return micro_loss(config, actors, experience, targets, batch, everything, device)[0]
