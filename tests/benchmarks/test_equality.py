"""What counts as the same result: each bound on both of its sides."""

import math

import pytest

from benchmarks import equality
from benchmarks.harness import Pair

GOOD = {"tokens": "ab", "losses": [1.0, 1, 1, 1, 0.9], "grad_norms": [2.0]}


def pair(ours, theirs):
    return Pair([ours], [theirs])


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"losses": [1.00005, 1, 1, 1, 0.9]}, True),
        ({"losses": [1.0002, 1, 1, 1, 0.9]}, False),
        ({"losses": [1.0, 1, 1, 1, 0.902]}, False),
        ({"grad_norms": [2.003]}, False),
        ({"tokens": "ac"}, False),
    ],
)
def test_training_is_equal_in_tokens_losses_and_gradients(change, holds):
    assert equality.training(pair({**GOOD, **change}, GOOD))["holds"] is holds


@pytest.mark.parametrize(("loss", "holds"), [(1.0, True), (1.0039, True), (1.0041, False)])
def test_bf16_may_be_twice_2e_3_apart(loss, holds):
    assert equality.training_bf16(pair({**GOOD, "losses": [loss, 1, 1, 1, 0.9]}, GOOD))["holds"] is holds


def test_five_losses_are_needed():
    short = {**GOOD, "losses": [1.0, 1, 1, 1]}
    with pytest.raises(ValueError, match="--steps 5"):
        equality.training(pair(short, short))


def test_greedy_replies_may_differ_in_a_quarter():
    def side(same):
        return {"greedy": [[1]] * same + [[2]] * (4 - same), "tokens": 7.0}

    assert equality.greedy(pair(side(3), side(4)))["holds"]
    assert not equality.greedy(pair(side(2), side(4)))["holds"]


# two prompts, two replies each: rewards 1, 3 and 2, 2; RLOO: r − the other; GRPO: over the deviation, 1 or √2
RLOO = {
    "advantages": [[[-2.0], [2.0], [0.0], [0.0]]] * 2,
    "scores": [2.0],
    "grad_norms": [6.4],
    "kl": [0.0, 0.5],
    "drawn": 256,
    "updates": 2,
}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"grad_norms": [0.1002]}, False),
        ({"grad_norms": [6.4]}, False),
        ({"advantages": [[[-2.0], [2.01], [0.0], [0.0]], RLOO["advantages"][1]]}, False),
        ({"advantages": [RLOO["advantages"][0], [[-2.0], [2.0], [0.0], [0.01]]]}, False),
        ({"kl": [0.0, 0.52]}, True),
        ({"kl": [0.0, 0.53]}, False),
        ({"scores": [2.001]}, False),
        ({"drawn": 255}, False),
        ({"updates": 3}, False),
    ],
)
def test_rloo_is_equal_in_advantages_and_in_the_gradient_over_the_length(change, holds):
    ours = {**RLOO, "grad_norms": [0.1], **change}
    assert equality.group("rloo", 2, 64)(pair(ours, RLOO))["holds"] is holds


def test_grpo_is_equal_but_for_the_deviation_with_n_minus_1():
    theirs = {**RLOO, "advantages": [[[-1 / math.sqrt(2)], [1 / math.sqrt(2)], [0.0], [0.0]]] * 2}
    ours = {**theirs, "advantages": [[[-1.0], [1.0], [0.0], [0.0]]] * 2, "grad_norms": [6.4 * math.sqrt(2)]}
    assert equality.group("grpo", 2, 64)(pair(ours, theirs))["holds"]
    assert not equality.group("grpo", 2, 64)(pair(theirs, theirs))["holds"]
    assert not equality.group("rloo", 2, 64)(pair(ours, theirs))["holds"]


# four tokens whose deviation with n − 1 is √(4/3) times that with n
PPO = {
    "advantages": [[[1.0, -1.0], [0.5, 0.5]]],
    "scores": [0.3],
    "kl": [0.0, 0.2],
    "value_loss": [0.04],
    "policy_loss": [-0.01],
    "drawn": 128,
    "updates": 4,
}


WIDER = math.sqrt(4 / 3)
EQUAL = {**PPO, "advantages": [[[WIDER, -WIDER], [0.5 * WIDER, 0.5 * WIDER]]], "policy_loss": [-0.01 * WIDER]}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"advantages": [[[WIDER, -WIDER], [0.5 * WIDER, 0.5005 * WIDER]]]}, True),
        ({"advantages": [[[WIDER, -WIDER], [0.5 * WIDER, 0.502 * WIDER]]]}, False),
        ({"advantages": PPO["advantages"]}, False),
        ({"kl": [0.002, 0.2]}, False),
        ({"kl": [0.0, 0.203]}, False),
        ({"value_loss": [0.0401]}, False),
        ({"policy_loss": [-0.01]}, False),
        ({"scores": [0.301]}, False),
        ({"drawn": 64}, False),
        ({"updates": 5}, False),
    ],
)
def test_ppo_is_equal_in_scores_advantages_losses_and_kl(change, holds):
    ours = {**EQUAL, **change}
    assert equality.ppo(pair(ours, PPO))["holds"] is holds


def test_lists_of_other_shapes_are_not_compared_as_far_as_they_go():
    with pytest.raises(ValueError):
        equality.furthest([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError):
        equality.furthest([[1.0]], [[1.0, 2.0]])
