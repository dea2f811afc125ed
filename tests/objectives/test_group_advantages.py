"""Advantages without a critic by hand, and what the policy loss is a mean over."""

import pytest
import torch
from torch import tensor

from accord.objectives.advantage import (
    leave_one_out,
    less_group_mean,
    over_group_deviation,
    reply_returns,
    returns_to_go,
)
from accord.objectives.policy_gradient import ppo_loss, token_weights
from accord.stages.ppo.config import Ppo

NAN = float("nan")
MASK = tensor([[True, True, True], [True, False, False]])


def test_leave_one_out_by_hand():
    # two prompts of three replies
    found = leave_one_out(tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    assert torch.allclose(found, tensor([1 - 4.0, 2 - 3.5, 6 - 1.5, -1.5, -1.5, 3.0]))


def test_rloo_is_dr_grpo_times_g_over_g_less_1():
    torch.manual_seed(0)
    returns = torch.randn(12)
    assert torch.allclose(leave_one_out(returns, 4), 4 / 3 * less_group_mean(returns, 4), atol=1e-6)


def test_grpo_by_hand_and_equal_replies_stay_at_0():
    centred = less_group_mean(tensor([1.0, 3.0, 5.0, 5.0]), 2)
    assert torch.equal(centred, tensor([-1.0, 1.0, 0.0, 0.0]))
    assert torch.allclose(over_group_deviation(centred, 2), tensor([-1.0, 1.0, 0.0, 0.0]), atol=1e-5)


def test_grpo_divides_by_the_deviation_of_a_group_and_a_millionth():
    """Replies that are nearly equal are not blown up: with a deviation of 1e-6 they come to one half."""
    found = over_group_deviation(tensor([-3.0, 1.0, 2.0, -1e-6, 0.0, 1e-6]), 3)
    deviations = (14 / 3) ** 0.5, (2 / 3) ** 0.5 * 1e-6
    expected = [-3 / deviations[0], 1 / deviations[0], 2 / deviations[0]]
    expected += [-1e-6 / (deviations[1] + 1e-6), 0.0, 1e-6 / (deviations[1] + 1e-6)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_returns_to_go_by_hand_and_without_what_is_masked():
    signals = tensor([[1.0, 2.0, 4.0], [3.0, NAN, NAN]])
    assert torch.equal(returns_to_go(signals, MASK, gamma=0.5), tensor([[3.0, 4.0, 4.0], [3.0, 0.0, 0.0]]))
    assert torch.equal(reply_returns(signals, MASK), tensor([7.0, 3.0]))


@pytest.mark.parametrize(
    ("mean_over", "expected"),
    [
        ("tokens", (1 + 2 + 3 + 9) / 4),
        ("replies", ((1 + 2 + 3) / 3 + 9) / 2),
        ("length", ((1 + 2 + 3) / 5 + 9 / 5) / 2),
    ],
)
def test_the_mean_of_the_loss_is_what_its_name_says(mean_over, expected):
    """At ratio 1 the loss is minus the mean of the advantages; metrics stay means over tokens."""
    advantages = tensor([[1.0, 2.0, 3.0], [9.0, NAN, NAN]])
    zeros = torch.zeros(2, 3)
    weights = token_weights(MASK, mean_over, longest=5)
    loss, metrics = ppo_loss(zeros, zeros, advantages, MASK, clip=0.2, count=4, weights=weights)
    assert loss == pytest.approx(-expected)
    assert metrics["policy/ratio"] == 1.0


def test_each_method_takes_the_mean_of_its_paper_unless_told():
    def of(**changes):
        return Ppo(**{"model": "m", "data": "d", "out": "o", "rewards": {"r": "r"}, "samples": 2, **changes}).mean_over

    means = {name: of(advantages=name) for name in ("gae", "rloo", "grpo", "dr-grpo", "reinforce++")}
    assert means == {"gae": "tokens", "rloo": "length", "grpo": "replies", "dr-grpo": "length", "reinforce++": "tokens"}
    assert of(advantages="grpo", loss_mean="tokens") == "tokens"


@pytest.mark.parametrize("name", ["rloo", "grpo", "dr-grpo"])
def test_c23_one_reply_has_nothing_to_be_compared_with(name):
    with pytest.raises(ValueError, match="--samples 2"):
        Ppo(model="m", data="d", out="o", rewards={"r": "r"}, advantages=name)
