"""What moves besides parameters, and must survive a resume to the bit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accord.disk import read_json
from accord.errors import BadInput
from accord.objectives.kl import adapt_kl_coefficient, annealed
from accord.objectives.lagrange import Multiplier
from accord.stages.ppo.config import KlKnobs, Ppo
from accord.stages.ppo.experience import Experience


@dataclass
class State:
    """Iterations done, β, λ of every limit; what `--limit_window` remembers and what `--alarms` compare with.

    `windows[limit]` holds (mean of what is bounded, replies) of the last iterations, `first[name]` numbers of the first
    iteration, `alarms` what rang, `diagnoses` what that means, `ended` the alarm that ended the run.
    """

    step: int
    kl_coefficient: float
    multipliers: dict[str, Multiplier]
    windows: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    diagnoses: list[dict[str, str]] = field(default_factory=list)
    ended: str = ""


def first_state(config: Ppo) -> State:
    """The state before the first iteration; λ from another run if that is asked for."""
    start = {name: config.of_limit("multiplier_init", name) for name in config.limits}
    if config.multipliers_from:
        found = read_json(Path(config.multipliers_from) / "lineage.json").get("multiplier_integrals", {})
        missing = [name for name in start if name not in found]
        if missing:
            raise BadInput(
                f"--multipliers_from {config.multipliers_from} has no limit {missing[0]}; there are "
                f"{', '.join(found) or 'none'}"
            )
        start = {name: float(found[name]) for name in start}
    return State(0, config.kl_coefficient, {name: Multiplier(value, value) for name, value in start.items()})


def save_state(state: State) -> dict[str, Any]:
    plain = asdict(state)
    plain["multipliers"] = {n: [m.integral, m.value] for n, m in state.multipliers.items()}
    return plain


def restore(saved: Mapping[str, Any]) -> State:
    multipliers = {n: Multiplier(*pair) for n, pair in saved["multipliers"].items()}
    windows = {n: [(mean, count) for mean, count in window] for n, window in saved["windows"].items()}
    kept = {name: saved[name] for name in ("step", "kl_coefficient", "first", "alarms", "diagnoses", "ended")}
    return State(**kept, multipliers=multipliers, windows=windows)


def move_kl_coefficient(knobs: KlKnobs, experience: Experience, state: State, steps: int) -> None:
    """β of the next iteration: annealed by its number of `steps`, adapted to this one's KL, or as it is."""
    if knobs.kl_anneal != 1:
        state.kl_coefficient = annealed(knobs.kl_coefficient, knobs.kl_anneal, state.step + 1, steps)
    elif knobs.kl_target:
        kl = experience.kl.sum(1)
        state.kl_coefficient = adapt_kl_coefficient(
            state.kl_coefficient,
            float(kl.mean()),
            target=knobs.kl_target,
            horizon=knobs.kl_horizon,
            samples=len(kl),
        )
