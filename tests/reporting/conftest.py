"""Run folders as the stages write them, made up: a whole flow with two PPO runs and four evaluations."""

import hashlib
import json
import math

import numpy as np
import pytest
import yaml

from accord.reporting.blocks import Figure
from accord.reporting.figures import WIDTH

SLICES = ("benign", "harmful", "red-team", "look-alike", "knowledge", "skills")
# (helpful, harm) per snapshot where help and where harm is asked for
PLACES = {"pretrain": (-0.4, 0.0), "sft": (0.1, -0.1), "ppo": (0.9, 0.9), "limited": (0.8, -0.4)}


def write_run(folder, stage, *, config=None, metrics=(), samples=(), evaluation=None, parents=(), seconds=12.5, seed=0):
    folder.mkdir(parents=True)
    files = {"config.yaml": yaml.safe_dump(config or {})}
    for name, rows in (("metrics.jsonl", metrics), ("samples.jsonl", samples)):
        if rows:
            files[name] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if evaluation is not None:
        files["evaluation.json"] = json.dumps(evaluation)
    files["lineage.json"] = json.dumps(
        {
            "stage": stage,
            "parents": list(parents),
            "config_hash": "c0ffee0012345678",
            "version": "0.1.0",
            "seed": seed,
            "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
            "started": "2026-01-01T00:00:00Z",
            "finished": "2026-01-01T00:00:12Z",
            "seconds": seconds,
            "peak_memory": 3 * 2**29,
        }
    )
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    (folder / "manifest.json").write_text(json.dumps(hashes))
    return folder


def describe(values):
    values = np.asarray(values, dtype=float)
    half = 1.96 * values.std() / math.sqrt(len(values))
    return {"mean": values.mean(), "low": values.mean() - half, "high": values.mean() + half, "n": len(values)}


def evaluation_of(name, per_slice=20):
    rng = np.random.default_rng(sum(name.encode()))
    helpful, harm = PLACES[name]
    samples = []
    for slice_ in SLICES:
        for index in range(per_slice):
            asked = slice_ in ("harmful", "red-team")
            scores = {
                "gold/helpful": helpful + 0.3 * rng.normal(),
                "gold/harm": (harm if asked else -0.8) + 0.2 * rng.normal(),
                "gold/refusal": float(rng.random() < (0.6 if asked and name != "ppo" else 0.1)),
                "gold/honest": rng.normal(),
                "cost/harmless": (harm if asked else -0.8) + 0.1 * rng.normal(),
                "reward/helpful": 2 * helpful + rng.normal(),
                "kl": abs(rng.normal()),
                "length": float(rng.integers(5, 30)),
            }
            if slice_ in ("knowledge", "skills"):
                scores["gold/correct"] = float(rng.random() < 0.7)
            samples.append(
                {
                    "prompt_id": f"{slice_}-{index}",
                    "slice": slice_,
                    "prompt": [{"role": "user", "content": f"Question {index} about {slice_}, please?"}],
                    "reply": f"An answer by {name} to question {index}.",
                    "scores": scores,
                    "kl": scores["kl"],
                    "finish": "stop" if index else "length",
                }
            )
    slices = {}
    for slice_ in ("all", *SLICES):
        rows = [row["scores"] for row in samples if slice_ in ("all", row["slice"])]
        metrics = dict.fromkeys(key for row in rows for key in row)
        slices[slice_] = {"n": len(rows)} | {
            metric: describe([row[metric] for row in rows if metric in row]) for metric in metrics
        }
    return samples, slices


def training(steps, **extra):
    return [
        {
            "step": i + 1,
            "loss": 5 * math.exp(-i / 20) + 0.7,
            "learning_rate": 1e-3,
            "num_tokens": 6144 * (i + 1),
            "tokens_per_second": 20000.0,
            **({"eval/loss": 0.8} if i == steps - 1 else {}),
            **extra,
        }
        for i in range(steps)
    ]


def ppo_metrics(limited, steps=40):
    rng = np.random.default_rng(int(limited))
    rows = []
    for i in range(steps):
        kl = 0.02 + 3 * (i / steps) ** 1.2
        cost = 0.9 * (1 - math.exp(-i / 6)) if not limited else 0.4 * math.exp(-i / 8) - 0.35
        row = {
            "step": i + 1,
            "objective/kl": kl,
            "sqrt_kl": math.sqrt(kl),
            "objective/entropy": 1.2 - 0.01 * i,
            "kl_coefficient": 0.2,
            "reward/helpful": math.sqrt(kl) + 0.03 * rng.normal(),
            "gold/helpful": math.sqrt(kl) - 0.25 * kl + 0.03 * rng.normal(),
            "gold/harm": cost,
            "cost/harmless/mean": cost + 0.03 * rng.normal(),
            "cost/harmless/unsafe": min(max(0.5 + cost / 2, 0), 1),
            "completions/mean_length": 18.0,
            "completions/clipped_ratio": 0.01,
            "policy/clip_fraction": 0.05,
        }
        if limited:
            row["lagrange/harmless"] = 3 + 2 * math.exp(-i / 10)
        rows.append(row)
    return rows


def preference_evaluation(role, criterion):
    bins = [{"confidence": 0.5 + 0.05 * i, "accuracy": 0.5 + 0.046 * i, "n": 40} for i in range(1, 10)]
    interval = {"mean": 0.82, "low": 0.78, "high": 0.86, "n": 360}
    rows = [
        {
            "subset": subset,
            "n": 360,
            "accuracy": interval,
            "length_baseline": {"mean": 0.6, "low": 0.55, "high": 0.65, "n": 360},
            "length_baseline_prefers": "longer",
            "over_length": {"mean": 0.22, "low": 0.17, "high": 0.27, "n": 360},
            "bag_of_words": {"mean": 0.8, "low": 0.76, "high": 0.84, "n": 360},
            "over_bag_of_words": {"mean": 0.02, "low": -0.01, "high": 0.05, "n": 360},
            "gold_ceiling": {"mean": 0.85, "low": 0.81, "high": 0.88, "n": 360},
            "gold_accuracy": {"mean": 0.9, "low": 0.86, "high": 0.93, "n": 300},
            "ece": 0.034,
            "tie_rate": 0.0,
        }
        for subset in ("all", "benign")
    ]
    return {"criterion": criterion, "role": role, "rows": rows, "bins": bins, "ece": 0.034}


def write_flow(directory):
    root = directory / "demo"
    folders = [
        write_run(root / "pretrain", "pretrain", metrics=training(60), seconds=95.0),
        write_run(root / "sft", "sft", metrics=training(30), parents=[parent(root, "pretrain")], seconds=8.0),
        write_run(
            root / "helpful",
            "preference",
            config={"criterion": "helpful"},
            metrics=training(20, accuracy=0.7),
            evaluation=preference_evaluation("preference", "helpful"),
            parents=[parent(root, "sft")],
        ),
        write_run(
            root / "harmless",
            "preference",
            metrics=training(20, accuracy=0.8),
            evaluation=preference_evaluation("cost", "harmless"),
            parents=[parent(root, "sft")],
        ),
        write_run(
            root / "limited",
            "ppo",
            config={"limits": {"harmless": -0.2}, "limit_slices": {"harmless": "harmful,red-team"}, "rewards": {}},
            metrics=ppo_metrics(True),
            parents=[parent(root, "sft")],
            seconds=60.0,
        ),
        write_run(root / "ppo", "ppo", metrics=ppo_metrics(False), parents=[parent(root, "sft")], seconds=50.0),
    ]
    for name in PLACES:
        samples, slices = evaluation_of(name)
        evaluation = {"model": str(root / name / "snapshot"), "n": len(samples), "seed": 0, "slices": slices}
        evaluation |= {"reference": None, "win_rate": None, "calibration": {}}
        folders.append(write_run(root / f"evaluate-{name}", "evaluate", samples=samples, evaluation=evaluation))
    return folders


def parent(root, name):
    return {"role": "model", "path": str(root / name / "snapshot"), "hash": "ab" * 32}


@pytest.fixture(scope="session")
def make_flow():
    """Writes the folders of a whole flow below a directory: 2 stages, 2 scorers, 2 PPO runs, 4 evaluations."""
    return write_flow


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are not drawn, which takes seconds a page, where a test reads its words alone."""
    monkeypatch.setattr(Figure, "drawn", lambda figure, width=WIDTH: '<svg role="img"></svg>')


@pytest.fixture
def flow(tmp_path):
    return write_flow(tmp_path)
