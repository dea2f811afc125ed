"""The one supervised loop: batch, micro-batches, backward, step, log, checkpoint.

It knows nothing of what it trains. A stage gives it pure functions: the items of a step, their sizes and totals,
and the loss of some of them. The loss is a sum divided by the totals of the *whole* batch over all ranks, so how
a batch is cut into micro-batches or spread over ranks changes nothing.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from accord.config import Supervised
from accord.engine.forward.recompute import recompute_layers
from accord.run import RunFolder
from accord.training import checkpoint
from accord.training.compilation import Compilation
from accord.training.distributed import World
from accord.training.finite import explain_not_finite
from accord.training.optimizer import build_optimizers, clip_gradients, rate_at, set_rate
from accord.training.precision import one_cast
from accord.training.progress import Progress
from accord.training.shards import gathered, shard

Item = TypeVar("Item")
Totals = TypeVar("Totals")
Losses = tuple[Tensor, dict[str, Tensor]]


def fit(
    run: RunFolder,
    world: World,
    config: Supervised,
    *,
    module: nn.Module,
    steps: int,
    batch_at: Callable[[int], Sequence[Item]],
    size: Callable[[Item], int],
    totals: Callable[[Sequence[Item]], Totals],
    loss: Callable[[Sequence[Item], Totals], Losses],
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    kept: Mapping[str, nn.Module] | None = None,
) -> nn.Module:
    """Train `module` for `steps` optimizer steps, from the run folder's last checkpoint if there is one.

    Returns what was trained: the module, or one in its place where it was divided over the ranks meanwhile.

    `batch_at(step)` gives the items of a step (the same on every rank), `size(item)` its tokens, `totals(items)`
    what the loss divides by, `loss(items, totals)` the loss of a micro-batch and metrics that add up over
    micro-batches. `evaluate` is called every `eval_every` steps and at the end. `kept` are modules that change
    without a gradient: checkpoints hold them too.
    """
    shard(module, world)
    modules = {"model": module, **(kept or {})}
    parameters = [p for p in module.parameters() if p.requires_grad]
    peaks = {"adamw": config.learning_rate, "muon": config.matrix_learning_rate}
    optimizers = build_optimizers(
        module,
        weight_decay=config.weight_decay,
        with_muon=config.matrix_learning_rate > 0,
        bits=config.optimizer_bits,
    )
    first, tokens, last_row = 0, 0, None
    if (saved := checkpoint.latest(run.path / "checkpoints")) is not None:
        state = checkpoint.load(saved, modules, optimizers)
        first, tokens = state["step"], state["tokens"]
        last_row = state.get("last_row")
    run.truncate_logs(first - (last_row is not None))
    recompute_layers([module], config.recompute == "on")
    compilation = Compilation(run, world, [module], sharded=world.sharded)
    progress = Progress(run.stage, steps, first=first, quiet=not world.is_main)
    due = checkpoint.Due(config.checkpoint_every, config.checkpoint_minutes)

    def save(done: int, **more: Any) -> None:
        if world.is_main or world.sharded:
            checkpoint.save(run.path / "checkpoints", done, modules, optimizers, {"tokens": tokens, **more})

    def report(done: int, row: dict[str, Any]) -> None:
        if evaluate is not None and (done == steps or (config.eval_every and done % config.eval_every == 0)):
            module.eval()
            row = row | dict(evaluate())
        run.log(row)
        progress.update(done, {"loss": row["loss"], "tokens/s": row["tokens_per_second"]})

    if last_row is not None:
        report(first, last_row)
    for step in range(first, steps):
        started = time.perf_counter()
        world.at(f"step {step + 1}")
        for name, optimizer in optimizers.items():
            rate = rate_at(step, steps, peak=peaks[name], warmup=config.warmup, schedule=config.schedule)
            set_rate(optimizer, rate)
            optimizer.zero_grad(set_to_none=True)
        items = batch_at(step)
        divisor = totals(items)
        module.train()
        micro_batches = world.micro_batches(items, size, config.micro_tokens)
        with one_cast(config.precision, world.device, sharded=world.sharded):
            metrics = backward(world, micro_batches, min(items, key=size), lambda some: loss(some, divisor))  # noqa: B023
        metrics = sum_over_ranks(world, parameters, metrics)
        norm = clip_gradients(parameters, config.clip_norm)
        if not math.isfinite(norm):
            raise explain_not_finite(run, step + 1, items, lambda some: loss(some, divisor)[0], [module])  # noqa: B023
        for optimizer in optimizers.values():
            optimizer.step()
        done = step + 1
        seen = sum(size(item) for item in items)
        tokens += seen
        spent = time.perf_counter() - started
        row = {
            "step": done,
            **{name: float(part) for name, part in metrics.items()},
            "learning_rate": optimizers["adamw"].param_groups[0]["lr"],
            "grad_norm": norm,
            "num_tokens": tokens,
            "tokens_per_second": round(seen / spent, 1),
        }
        if done == steps:
            save(done, last_row=row)  # everything from here on can fail and be done again
        report(done, row)
        work = functools.partial(_pass, loss, micro_batches[0], divisor) if micro_batches[0] else None
        compilation.consider(spent * (steps - done), work, (steps - done) * len(micro_batches))
        saves, stop = (any(asked) for asked in zip(*world.gather((due.after(done), run.stop_requested)), strict=True))
        if (saves or stop) and done < steps:
            save(done)
        if stop and done < steps:
            raise run.interrupted(done)
    module.eval()
    optimizers.clear()  # states and gradients go before whole weights come
    module.zero_grad(set_to_none=True)
    return gathered(module)


def backward(
    world: World,
    micro_batches: Sequence[Sequence[Item]],
    smallest: Item,
    loss: Callable[[Sequence[Item]], Losses],
) -> dict[str, Tensor]:
    """Add the gradients of this rank's micro-batches up; the sums of their metrics.

    An empty one is of a rank without work. Where weights are sharded the others wait for it: it passes `smallest`
    through the model and adds nothing.
    """
    metrics: dict[str, Tensor] = {}
    for micro in micro_batches:
        if not micro:
            if world.sharded:
                (0.0 * loss([smallest])[0]).backward()
            continue
        value, parts = loss(micro)
        value.backward()
        del value  # nodes of a spent graph, between what glibc has freed, made the next one's layers take new memory
        for name, part in parts.items():
            metrics[name] = metrics.get(name, torch.zeros(())) + part
    return metrics


def _pass(loss: Callable[[Sequence[Item], Totals], Losses], micro: Sequence[Item], divisor: Totals) -> None:
    loss(micro, divisor)[0].backward()


def sum_over_ranks(world: World, parameters: Sequence[nn.Parameter], metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add gradients and metrics up over the ranks; a rank that had no micro-batch gives zeros.

    The gradient of what is sharded is added up in the backward pass.
    """
    if world.size == 1:
        return metrics
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    world.sum_(p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor))
    names = sorted({name for names in world.gather(sorted(metrics)) for name in names})
    values = torch.stack([metrics.get(name, torch.zeros(())).float().to(world.device) for name in names])
    world.sum_([values])
    return dict(zip(names, values, strict=True))
