"""Learning rates that no flag gave: by stage, size and adapters, and written down."""

import itertools

import pytest
import yaml

from accord.training.rates import RATES, usual_rate


def test_rates_fall_with_the_size_and_adapters_take_no_less():
    for stage, rows in RATES.items():
        for rates, larger in itertools.pairwise(rows):
            assert rates.size < larger.size, stage
            assert rates.weights >= larger.weights and rates.adapters >= larger.adapters, stage
        assert all(row.adapters >= row.weights for row in rows[2:]), stage


def test_the_rates_of_published_runs():
    """SmolLM2's SFT and DPO, QLoRA at 7B, InstructGPT's reward model and policy, GPT-3 at 6.7B."""
    small, seven = 134_515_008, 7_000_000_000
    assert usual_rate("sft", small, adapted=False) == 1e-3 and usual_rate("dpo", small, adapted=False) == 1e-6
    assert usual_rate("sft", seven, adapted=True) == 2e-4 and usual_rate("dpo", seven, adapted=True) == 5e-6
    assert usual_rate("preference", 6_000_000_000, adapted=False) == 9e-6
    assert usual_rate("ppo", 1_300_000_000, adapted=False) == 1e-5
    assert usual_rate("pretrain", 6_700_000_000, adapted=False) == 1.2e-4
    assert usual_rate("sft", 10**12, adapted=True) == 1e-4


@pytest.mark.parametrize("name", ["pretrain", "sft", "preference", "dpo", "ppo"])
def test_what_was_chosen_is_written_and_a_flag_stands(name, commands, tmp_path):
    def chosen(out):
        return yaml.safe_load((tmp_path / out / "config.yaml").read_text())

    short = {"steps": 1} if name in ("pretrain", "ppo") else {}
    assert commands.run(name, tmp_path / "left", learning_rate=None, **short) == 0
    assert chosen("left")["learning_rate"] == RATES[name][0].weights
    if name == "ppo":
        assert chosen("left")["critic_learning_rate"] == RATES["critic"][0].weights
        assert commands.run(name, tmp_path / "given", learning_rate=3e-4, critic_learning_rate=2e-4, **short) == 0
        assert (chosen("given")["learning_rate"], chosen("given")["critic_learning_rate"]) == (3e-4, 2e-4)
