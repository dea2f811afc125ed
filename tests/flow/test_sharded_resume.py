"""Every training stage, stopped at five random steps, ends with the same bits: alone, and sharded over two ranks."""

import random

import pytest

from tests.fixtures.ranks import spawn

# stage: its changes, and its steps
STAGES = {
    "pretrain": ({"steps": 8, "matrix_learning_rate": 0.01}, 8),
    "sft": ({"epochs": 3, "eval_every": 2}, 9),
    "preference": ({"epochs": 3}, 9),
    "cost": ({"epochs": 3}, 9),
    "dpo": ({"epochs": 3, "eval_every": 2, "refresh_every": 3, "refresh_mix": 0.5}, 9),
    "ppo": ({"steps": 8, "kl_target": 0.01, "kl_horizon": 20, "weight_average": 0.5}, 8),
    "limited": ({"steps": 8, "samples": 2, "lora_rank": 2, "limit_window": 2}, 8),
}


def steps_of(name, kind):
    """Five random steps to stop after, the last one never among them."""
    return sorted(random.Random(f"{kind} {name}").sample(range(1, STAGES[name][1]), 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_one_process_stopped_at_random_steps(name, commands, same_run, stop_after, tmp_path):
    changes, steps = STAGES[name]
    assert commands.run(name, tmp_path / "whole", **changes) == 0
    assert len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()) == steps
    for step in steps_of(name, "one"):
        stop_after(step)
        assert commands.run(name, tmp_path / f"{step}", **changes) == 1
        stop_after(-1)
        assert commands.run(name, tmp_path / f"{step}", resume="true", **changes) == 0
        same_run(tmp_path / f"{step}", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_two_sharded_processes_stopped_at_random_steps(name, commands, same_run, tmp_path):
    changes = {"micro_tokens": 60, "shard": "true", **STAGES[name][0]}
    lines = [(-1, 0, commands.line(name, tmp_path / "whole", **changes))]
    for step in steps_of(name, "two"):
        lines.append((step, 1, commands.line(name, tmp_path / f"{step}", **changes)))
        lines.append((-1, 0, commands.line(name, tmp_path / f"{step}", resume="true", **changes)))
    spawn(tmp_path, lines, torchrun=True)
    for step in steps_of(name, "two"):
        same_run(tmp_path / f"{step}", tmp_path / "whole")
