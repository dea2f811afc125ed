"""What moves besides parameters, and must survive a resume to the bit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accord.objectives.lagrange import Multiplier


@dataclass
class State:
    """What moves besides parameters; saved with every checkpoint."""

    step: int
    kl_coefficient: float
    multipliers: dict[str, Multiplier]


def save_state(state: State) -> dict[str, Any]:
    return {
        "kl_coefficient": state.kl_coefficient,
        "multipliers": {n: [m.integral, m.value] for n, m in state.multipliers.items()},
    }


def restore(saved: Mapping[str, Any]) -> State:
    multipliers = {n: Multiplier(*pair) for n, pair in saved["multipliers"].items()}
    return State(saved["step"], saved["kl_coefficient"], multipliers)
