"""Reward grows linearly in the square root of KL from the start of RL."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.recipes import GoldFlow
from accord.disk import read_lines
from accord.evaluation.statistics import nested_interval, r_squared
from accord.reporting.figures import Line, Panel, curves
from accord.stages.ppo.config import Ppo

SMOOTHING = 5  # iterations in the moving mean that finds the gold peak


def run_config(flow: GoldFlow) -> Ppo:
    """PPO on helpfulness with a weak KL penalty, so that it runs past the gold peak; in steps that show the start.

    Every iteration has twice the replies of a plain run: the noise of a point's mean must not pass for a bend.
    """
    slow = {"learning_rate": 8e-5, "batch_size": flow.scale.rollouts, "mini_batch_size": 128}
    return flow.ppo("ppo-weak-kl", kl_coefficient=0.02, schedule="constant", steps=60, **slow)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """R² of the reward in √KL and in KL up to half the KL at the gold peak."""
    flows = cells.base(seeds)
    cells.run([run_config(flow) for flow in flows])
    runs = [tuple(read_run(Path(run_config(flow).out)).values()) for flow in flows]
    early = [before_half_peak(*curve) for curve in runs]
    fits = np.array([[r_squared(np.sqrt(kl), reward), r_squared(kl, reward)] for kl, reward, _ in early])
    parts = [
        Part("R² in √KL", nested_interval(fits[:, 0], "r2"), 0.9, "above"),
        Part("R² in √KL − R² in KL", nested_interval(fits[:, 0] - fits[:, 1]), 0.0, "above"),
    ]
    notes = [
        f"seed {seed}: gold peak at KL {peak_kl(*curve):.2f} nats; {len(e[0])} iterations before half of it; "
        f"R² {fit[0]:.3f} in √KL, {fit[1]:.3f} in KL; {described(e, curve)}"
        for seed, curve, e, fit in zip(seeds, runs, early, fits, strict=True)
    ]
    lines = [
        Line(f"seed {seed}", i, np.sqrt(np.maximum(kl, 0)).tolist(), reward.tolist(), points=True)
        for i, (seed, (kl, reward, _)) in enumerate(zip(seeds, runs, strict=True))
    ]
    panel = Panel("", "√KL (√nats)", "preference-model score", lines)
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def read_run(folder: Path, *more: str) -> dict[str, np.ndarray]:
    """KL per reply, reward and gold helpfulness of a PPO run by iteration, in this order, and the metrics of `more`."""
    rows = read_lines(folder / "metrics.jsonl")
    names = ("objective/kl", "reward/helpful", "gold/helpful", *more)
    return {name: np.array([row[name] for row in rows]) for name in names}


def described(early: Sequence[np.ndarray], whole: Sequence[np.ndarray]) -> str:
    """The line through the early part, and where the whole run bends."""
    slope, intercept = np.polyfit(np.sqrt(early[0]), early[1], 1)
    bend = break_point(np.sqrt(np.maximum(whole[0], 0.0)), whole[1])
    return f"reward ≈ {intercept:.2f} + {slope:.2f} √KL there; the whole run bends at √KL {bend:.2f}"


def break_point(x: np.ndarray, y: np.ndarray) -> float:
    """The knot of the continuous two-piece line that fits y best by least squares, of the values of x inside."""

    def misfit(knot: float) -> float:
        design = np.stack([np.ones_like(x), x, np.maximum(x - knot, 0.0)], axis=1)
        return float(np.square(y - design @ np.linalg.lstsq(design, y, rcond=None)[0]).sum())

    return min(np.sort(x)[2:-2].tolist(), key=misfit)


def peak_kl(kl: np.ndarray, reward: np.ndarray, gold: np.ndarray) -> float:
    """KL where the smoothed gold score is highest."""
    return float(kl[peak_at(gold)])


def smoothed(series: np.ndarray) -> np.ndarray:
    """Means of `SMOOTHING` neighbouring iterations."""
    window = min(SMOOTHING, len(series))
    return np.convolve(series, np.ones(window) / window, mode="valid")


def peak_at(gold: np.ndarray) -> int:
    """The iteration where the smoothed gold score is highest."""
    return int(smoothed(gold).argmax()) + min(SMOOTHING, len(gold)) // 2


def before_half_peak(kl: np.ndarray, reward: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The iterations until KL first reaches half the KL at the gold peak; estimates below 0 count as 0."""
    beyond = np.flatnonzero(kl >= 0.5 * peak_kl(kl, reward, gold))
    stop = max(int(beyond[0]) + 1 if len(beyond) else len(kl), 3)
    return np.maximum(kl[:stop], 0.0), reward[:stop], gold[:stop]


CLAIM = Claim(
    name="sqrt-kl",
    claim="From the start of RL the reward grows linearly in the square root of KL.",
    source="Bai et al. 2022, section 4.3",
    statistic="R² of the preference-model score in √KL, and its difference to R² in KL, over the PPO iterations until "
    "KL first reaches half the KL at the gold peak; mean and interval over seeds.",
    rule="R² in √KL is above 0.9 and exceeds R² in KL, both with their lower bounds.",
    measure=measure,
)
