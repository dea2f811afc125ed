"""Learning rates where no flag gives one: by stage, size and adapters; docs/rates.md has the sources."""

from typing import NamedTuple


class Rates(NamedTuple):
    """Peak rates of models of up to `size` parameters: of every weight, and of LoRA adapters."""

    size: float
    weights: float
    adapters: float


MORE = float("inf")
SCALAR = (
    Rates(3e7, 7e-4, 7e-4),
    Rates(5e8, 5e-5, 5e-4),
    Rates(3e9, 2e-5, 2e-4),
    Rates(1.5e10, 9e-6, 1e-4),
    Rates(MORE, 5e-6, 5e-5),
)
RATES: dict[str, tuple[Rates, ...]] = {
    "pretrain": (
        Rates(3e7, 6e-3, 6e-3),
        Rates(5e8, 6e-4, 6e-4),
        Rates(3e9, 2e-4, 2e-4),
        Rates(1.5e10, 1.2e-4, 1.2e-4),
        Rates(MORE, 6e-5, 6e-5),
    ),
    "sft": (
        Rates(3e7, 1e-3, 1e-3),
        Rates(5e8, 1e-3, 5e-4),
        Rates(3e9, 3e-4, 3e-4),
        Rates(1.5e10, 2e-5, 2e-4),
        Rates(MORE, 1e-5, 1e-4),
    ),
    "preference": SCALAR,
    "probe-head": SCALAR,
    "dpo": (
        Rates(3e7, 1e-4, 1e-4),
        Rates(3e9, 1e-6, 1e-5),
        Rates(MORE, 5e-7, 5e-6),
    ),
    "ppo": (
        Rates(3e7, 2e-4, 2e-4),
        Rates(3e9, 1e-5, 1e-4),
        Rates(MORE, 1e-6, 1e-5),
    ),
    "critic": (
        Rates(3e7, 1e-3, 1e-3),
        Rates(5e8, 5e-5, 5e-4),
        Rates(3e9, 1e-5, 1e-4),
        Rates(MORE, 5e-6, 5e-5),
    ),
}


def usual_rate(stage: str, size: int, *, adapted: bool) -> float:
    """The peak rate for a stage's model of so many parameters, frozen ones included; `critic` is PPO's critics."""
    row = next(rates for rates in RATES[stage] if size <= rates.size)
    return row.adapters if adapted else row.weights
