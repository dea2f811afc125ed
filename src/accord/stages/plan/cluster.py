"""A cluster in numbers: ranks that are never equally fast, links of two speeds, devices that fail.

The formulas of `cost` are means; here the events themselves are drawn, a step at a time, to see that the formulas have
the shape of what happens.
"""

from dataclasses import dataclass

import numpy as np

from accord.stages.plan.machines import Machine


@dataclass(frozen=True)
class Outcome:
    """Seconds until so many steps were done for good, steps done again, and failures."""

    seconds: float
    repeated: int
    failures: int


def simulate(
    machine: Machine, ranks: int, *, compute: float, messages: float, steps: int, checkpoint: float, seed: int
) -> Outcome:
    """Do `steps` steps, each of `compute` seconds on an even rank and of `messages` seconds once all have come.

    Every rank's time is drawn for every step; a device that fails loses the steps since the last checkpoint, which is
    written every `checkpoint` minutes.
    """
    rng = np.random.default_rng([seed, ranks])
    spread = np.sqrt(np.log1p(machine.straggle**2))
    fails_at = rng.exponential(machine.hours * 3600 / ranks)
    clock = saved_at = 0.0
    done = saved = repeated = failures = 0
    while done < steps:
        slowest = float(np.exp(spread * rng.standard_normal(ranks)).max()) if spread else 1.0
        clock += compute * slowest + messages
        if clock >= fails_at:
            failures += 1
            repeated += done - saved
            done = saved
            clock = fails_at + machine.restart * 60
            saved_at = clock
            fails_at = clock + rng.exponential(machine.hours * 3600 / ranks)
            continue
        done += 1
        if clock - saved_at >= checkpoint * 60:
            saved, saved_at = done, clock
    return Outcome(clock, repeated, failures)


def ring_seconds(bytes_: float, ranks: int, machine: Machine) -> float:
    """An all-reduce as a ring, message by message: every rank sends a part 2 (ranks − 1) times, and each round takes
    as long as its slowest link."""
    if ranks == 1:
        return 0.0
    part = bytes_ / ranks
    links = [machine.near if (rank + 1) % machine.per_node else machine.far for rank in range(ranks)]
    if ranks <= machine.per_node:
        links = [machine.near] * ranks
    elif ranks % machine.per_node:
        links[-1] = machine.far
    return sum(max(part / link for link in links) + machine.latency for _ in range(2 * (ranks - 1)))
