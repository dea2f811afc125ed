"""The ranking loss with margins and centring against what TRL's RewardTrainer computes (stored values)."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from accord.objectives.preference import bradley_terry_loss, centring_loss

sys.path.insert(0, str(Path(__file__).parent))
import trl_reward

STORED = json.loads((Path(__file__).parent / "trl_reward.json").read_text())


@pytest.mark.parametrize("name", trl_reward.CASES)
def test_loss_gradient_and_margin_are_trls(name):
    with_margin, coefficient = trl_reward.CASES[name]
    scores = torch.tensor(trl_reward.CHOSEN + trl_reward.REJECTED, dtype=torch.double, requires_grad=True)
    better, worse = scores[:5], scores[5:]
    margin = torch.tensor(trl_reward.MARGIN).double() if with_margin else 0.0
    weights = torch.ones(5).double()
    loss, metrics = bradley_terry_loss(better, worse, weights=weights, margin=margin, count=5.0)
    if coefficient:
        loss = loss + coefficient * centring_loss(better, worse, weights=weights, count=5.0)[0]
    loss.backward()
    stored = STORED["cases"][name]
    assert loss.item() == pytest.approx(stored["loss"], abs=1e-6)
    assert scores.grad.tolist() == pytest.approx(stored["gradient"], abs=1e-6)
    assert metrics["margin"].item() == pytest.approx(stored["margin"], abs=1e-6)


def test_b5_trl_counts_the_tie_as_wrong_and_we_do_not():
    """Two of five pairs are right and one is tied: TRL logs 0.4, where half a tie makes 0.5."""
    better, worse = torch.tensor(trl_reward.CHOSEN), torch.tensor(trl_reward.REJECTED)
    _, metrics = bradley_terry_loss(better, worse, weights=torch.ones(5), count=5.0)
    assert STORED["cases"]["plain"]["accuracy"] == pytest.approx(0.4)
    assert metrics["accuracy"].item() == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", trl_reward.CASES)
def test_the_stored_values_are_those_of_the_installed_trl(name):
    assert trl_reward.trl_loss(name)["loss"] == pytest.approx(STORED["cases"][name]["loss"], abs=1e-9)
