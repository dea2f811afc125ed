"""A loss or gradient that is not finite: which rows of the batch it comes from, and the batch, kept for a replay."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from accord.errors import NotFinite
from accord.run import RunFolder
from accord.training.optimizer import gradient_norm

Item = TypeVar("Item")
KEPT = "not-finite.json"


def explain_not_finite(
    run: RunFolder | None,
    step: int,
    items: Sequence[Item],
    loss: Callable[[Sequence[Item]], Tensor],
    modules: Sequence[nn.Module],
    *,
    kept: Sequence[Any] | None = None,
) -> NotFinite:
    """The error of a step whose gradient is not finite; nothing was learned from it.

    Every row of the batch passes by itself, on every rank alike. Leaves `not-finite.json`: the step, the places of the
    rows whose loss or gradient is not finite, their losses, and every row of the batch with its token ids (`kept`,
    where the items only name it).
    """
    rows, losses = [], {}
    for place, item in enumerate(items):
        for module in modules:
            module.zero_grad(set_to_none=True)
        value = loss([item])
        value.backward()
        grads = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
        if not (value.detach().isfinite().all() and gradient_norm(grads).isfinite()):
            rows.append(place)
            losses[str(place)] = repr(float(value.detach()))
    if run is not None:
        batch = [_plain(row) for row in kept or items]
        run.write_json(KEPT, {"step": step, "rows": rows, "losses": losses, "batch": batch})
    which = f"row {', '.join(map(str, rows))} of its {len(items)}" if rows else "no row of its own, but their sum"
    where = KEPT if run is None else run.path / KEPT
    return NotFinite(
        f"step {step}: loss or gradient is non-finite, from {which}; nothing was learned from it. The batch is kept in "
        f"{where}; look at that row, lower --learning_rate, or give --precision f32: --resume goes on from the last "
        "checkpoint"
    )


def _plain(item: Any) -> Any:
    """An item as JSON holds it."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: _plain(getattr(item, field.name)) for field in dataclasses.fields(item)}
    if isinstance(item, dict):
        return {str(key): _plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(value) for value in item]
    if isinstance(item, Tensor):
        return item.tolist()
    return item if item is None or isinstance(item, str | int | float | bool) else repr(item)
