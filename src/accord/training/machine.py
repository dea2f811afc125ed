"""What is decided where a knob leaves it open: precision, micro-batch, recomputation, rates; into config.yaml."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from accord.config import Training
from accord.engine.forward.recompute import recompute_layers
from accord.engine.packing import Group
from accord.run import RunFolder, decided
from accord.training import heap
from accord.training.distributed import World
from accord.training.memory import (
    MEASURED,
    Need,
    Plan,
    free_bytes,
    longest_first,
    measure,
    plan_memory,
    recomputed,
    rehearse,
    undisturbed,
)
from accord.training.precision import choose_precision
from accord.training.rates import usual_rate

C = TypeVar("C", bound=Training)


def settle(
    config: C,
    run: RunFolder,
    world: World,
    modules: Sequence[nn.Module],
    largest: Sequence[Group],
    compute: Callable[[Sequence[Group], str], Tensor],
) -> C:
    """The config with what it leaves to the machine decided, the same on every rank.

    `largest` is the largest batch that can come. `compute(groups, precision)` is what a step keeps for backward: every
    one of `modules` that is trained on the same tokens. Where memory may run short, the longest micro-batch is computed
    once. Raises BadInput where it does not fit.
    """
    precision = run.decide("precision", lambda: choose_precision(world))
    longest = max(largest, key=lambda group: group.tokens)

    def loss(groups: Sequence[Group]) -> Tensor:
        return compute(groups, precision)

    for module in modules:
        module.train()  # transformers recomputes the layers of a model in training alone
    known, asked = (decided(run.config, knob) for knob in ("recompute", "micro_tokens"))
    plain, again = needs(loss, shortened(longest, MEASURED), modules, world, config.optimizer_bits)
    plan = plan_memory(
        None if known == "on" and again is not None else plain,
        None if known == "off" else again,
        min(world.gather(free_bytes(world.device))),
        longest=longest.tokens,
        device=world.device.type,
        micro_tokens=asked,
    )
    decisions: dict[str, Any] = {
        "micro_tokens": run.decide("micro_tokens", lambda: min(world.gather(plan.micro_tokens))),
        "recompute": run.decide("recompute", lambda: "on" if any(world.gather(plan.recompute)) else "off"),
    }
    decisions |= decide_rates(config, run, modules[0])
    recompute_layers(modules, decisions["recompute"] == "on")
    parts = longest_first(largest, lambda group: group.tokens, decisions["micro_tokens"])
    plan = Plan(decisions["micro_tokens"], decisions["recompute"] == "on", plan.need)
    if not world.sharded:  # nothing is divided yet: the rehearsal of a whole model would take what no step takes
        rehearse(loss, parts, sum(group.tokens for group in parts), plan, modules, world)
    for module in modules:
        module.eval()
    heap.trim()
    return config.model_copy(update={**decisions, "precision": precision, "threads": run.threads})


def decide_rates(config: Training, run: RunFolder, module: nn.Module) -> dict[str, float]:
    """The learning rates that no flag gave, by what is trained."""
    size = sum(parameter.numel() for parameter in module.parameters())
    adapted = bool(getattr(config, "lora_rank", 0))
    tables = {"learning_rate": run.stage, "critic_learning_rate": "critic"}
    return {
        knob: run.decide(knob, functools.partial(usual_rate, table, size, adapted=adapted))
        for knob, table in tables.items()
        if knob in type(config).model_fields
    }


def needs(
    loss: Callable[[Sequence[Group]], Tensor], group: Group, modules: Sequence[nn.Module], world: World, bits: int = 32
) -> tuple[Callable[[], Need], Callable[[], Need] | None]:
    """What finds the need of a step with activations kept, and that with activations computed again, None where a model
    cannot. Each takes a forward pass of one item and of two, and is done once."""
    measured = functools.partial(measure, ranks=world.size if world.sharded else 1, bits=bits)

    def found(recompute: bool) -> Need:
        with undisturbed(modules, world.device):
            recompute_layers(modules, recompute)
            need = measured(loss, group, group.tokens, modules)
            recompute_layers(modules, False)
        return need

    plain = functools.cache(lambda: found(False))
    layers = recompute_layers(modules, True)
    recompute_layers(modules, False)
    again = functools.cache(lambda: recomputed(plain(), found(True), layers))
    return plain, again if layers else None


def shortened(group: Group, tokens: int) -> Group:
    """A group of at most about so many tokens with the same shares of prompt and replies: the ends of each."""
    if group.tokens <= tokens:
        return group

    def ends(ids: tuple[int, ...]) -> slice:
        return slice(len(ids) - max(1, len(ids) * tokens // group.tokens) if ids else 0, None)

    return replace(
        group,
        prefix=group.prefix[ends(group.prefix)],
        replies=tuple(reply[ends(reply)] for reply in group.replies),
        masks=tuple(mask[ends(reply)] for reply, mask in zip(group.replies, group.masks, strict=True)),
    )
