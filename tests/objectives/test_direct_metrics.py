"""What the direct family logs: every metric by hand, with weights, a part of a batch and lengths that all differ."""

import math

import pytest
import torch
from torch import tensor

from accord.objectives.direct import LOSSES, Pairs, _log1mexp, implicit_rewards, match_ranks
from accord.objectives.direct_unpaired import Rankings, Singles, reward_shift

CHOSEN, REJECTED = (-6.0, -3.0), (-9.0, -2.5)
REFERENCE_CHOSEN, REFERENCE_REJECTED = (-7.5, -2.0), (-8.0, -4.0)
CHOSEN_TOKENS, REJECTED_TOKENS = (3.0, 2.0), (4.0, 5.0)
WEIGHTS, COUNT = (0.75, 2.0), 5.0  # the two of a batch whose weights are 5 in all


def pairs(weights=WEIGHTS):
    columns = (CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, CHOSEN_TOKENS, REJECTED_TOKENS, weights, (0, 0))
    return Pairs(*(tensor(column, dtype=torch.float64) for column in columns))


def weighted(values):
    return sum(weight * value for weight, value in zip(WEIGHTS, values, strict=True)) / COUNT


def log_ratio(beta, per_token=False):
    """β log π/π_ref of a reply."""
    return lambda p, q, n: beta * (p - q) / (n if per_token else 1)


# name: (keywords, the implicit reward of a reply from its log-probs under policy and reference and its tokens)
REWARDS = {
    "dpo": ({"beta": 0.3}, log_ratio(0.3)),
    "dpo_norm": ({"beta": 2.0}, log_ratio(2.0, per_token=True)),
    "dpo_length": ({"beta": 0.3}, log_ratio(0.3)),
    "cdpo": ({"beta": 0.3}, log_ratio(0.3)),
    "robust": ({"beta": 0.3}, log_ratio(0.3)),
    "ipo": ({"beta": 0.3}, log_ratio(0.3, per_token=True)),
    "hinge": ({"beta": 0.3}, log_ratio(0.3)),
    "exo": ({"beta": 0.3}, log_ratio(0.3)),
    "sppo": ({"beta": 0.3}, log_ratio(0.3)),
    "nca": ({"beta": 0.3}, log_ratio(0.3)),
    "bco_pair": ({"beta": 0.3}, log_ratio(0.3)),
    "apo_zero": ({"beta": 0.3}, log_ratio(0.3)),
    "apo_down": ({"beta": 0.3}, log_ratio(0.3)),
    "aot": ({"beta": 0.3, "matched": torch.zeros(2)}, log_ratio(0.3)),
    "orpo": ({"beta": 0.3}, lambda p, q, n: 0.3 * p / n),
    "simpo": ({"beta": 0.3}, lambda p, q, n: 0.3 * p / n),
    "dpo_forward_kl": ({"beta": 0.3}, lambda p, q, n: 0.3 * (1 - math.exp(q - p))),
    "dpo_js": ({"beta": 0.3}, lambda p, q, n: 0.3 * math.log(2 / (1 + math.exp(q - p)))),
    "dpo_alpha": ({"beta": 0.3, "alpha": 0.4}, lambda p, q, n: 0.3 * (1 - math.exp(0.4 * (q - p))) / 0.4),
}


@pytest.mark.parametrize("name", REWARDS)
def test_every_paired_loss_logs_its_rewards_by_weight(name):
    keywords, reward = REWARDS[name]
    chosen = [reward(*reply) for reply in zip(CHOSEN, REFERENCE_CHOSEN, CHOSEN_TOKENS, strict=True)]
    rejected = [reward(*reply) for reply in zip(REJECTED, REFERENCE_REJECTED, REJECTED_TOKENS, strict=True)]
    loss, metrics = LOSSES[name](pairs(), count=COUNT, **keywords)
    found = {key: value.item() for key, value in metrics.items() if not key.startswith("loss/")}
    assert found == pytest.approx(
        {
            "rewards/chosen": weighted(chosen),
            "rewards/rejected": weighted(rejected),
            "rewards/accuracies": weighted([a > b for a, b in zip(chosen, rejected, strict=True)]),
            "rewards/margins": weighted([a - b for a, b in zip(chosen, rejected, strict=True)]),
            "logps/chosen": weighted(CHOSEN),
            "logps/rejected": weighted(REJECTED),
        }
    )
    one = [LOSSES[name](pairs(weights), count=1.0, **keywords)[0].item() for weights in ((1.0, 0.0), (0.0, 1.0))]
    assert loss.item() == pytest.approx(weighted(one)) == metrics[f"loss/{name}"].item()


@pytest.mark.parametrize("name", [name for name in REWARDS if name not in ("orpo", "simpo", "aot")])
def test_rewards_of_replies_alone_are_those_that_the_loss_compares(name):
    """`implicit_rewards` is what a policy scores with after it was trained by the loss."""
    keywords, reward = REWARDS[name]
    ratios = tensor(CHOSEN, dtype=torch.float64) - tensor(REFERENCE_CHOSEN, dtype=torch.float64)
    tokens = tensor(CHOSEN_TOKENS, dtype=torch.float64)
    reduction = "mean" if name in ("dpo_norm", "ipo") else "sum"
    rewards = implicit_rewards(name, ratios, tokens, reduction=reduction, **keywords)
    expected = [reward(*reply) for reply in zip(CHOSEN, REFERENCE_CHOSEN, CHOSEN_TOKENS, strict=True)]
    assert rewards.tolist() == pytest.approx(expected)


def test_nll_and_orpos_parts_count_a_pair_by_its_weight():
    likelihoods = [-CHOSEN[0] / 3, -CHOSEN[1] / 2]
    loss, metrics = LOSSES["nll"](pairs(), count=COUNT)
    assert loss.item() == pytest.approx(weighted(likelihoods)) == metrics["loss/nll"].item()

    def odds(log_p):
        return math.exp(log_p) / (1 - math.exp(log_p))

    ratios = [
        math.log(1 + odds(REJECTED[i] / REJECTED_TOKENS[i]) / odds(CHOSEN[i] / CHOSEN_TOKENS[i])) for i in range(2)
    ]
    metrics = LOSSES["orpo"](pairs(), beta=0.3, count=COUNT)[1]
    assert metrics["loss/orpo/nll"].item() == pytest.approx(weighted(likelihoods))
    assert metrics["loss/orpo/odds_ratio"].item() == pytest.approx(weighted(ratios))


@pytest.mark.parametrize(("side", "sign"), [("chosen", 1), ("rejected", -1)])
def test_orpos_odds_are_bounded_where_a_reply_is_certain(side, sign):
    """A log-prob of −10⁻⁶ stands for 0, and the loss of a certain winner or loser is finite."""
    bound, other = math.log(math.exp(-1e-6) / -math.expm1(-1e-6)), math.log(1 / (math.e - 1))
    for certain, expected in ((0.0, bound), (-1e-7, bound), (-4e-6, -math.log(math.expm1(4e-6)))):
        logprobs = {"chosen": -1.0, "rejected": -1.0} | {side: certain}
        columns = (logprobs["chosen"], logprobs["rejected"], 0.0, 0.0, 1.0, 1.0, 1.0, 0.0)
        batch = Pairs(*(tensor([column], dtype=torch.float64) for column in columns))
        ratio = LOSSES["orpo"](batch, count=1.0)[1]["loss/orpo/odds_ratio"].item()
        assert ratio == pytest.approx(math.log1p(math.exp(-sign * (expected - other))), rel=1e-8)


def test_the_log_of_what_a_probability_leaves_is_exact_at_both_ends():
    """In f32: next to a probability of 1 it is log(−x), and next to 0 it is −e^x."""
    x = tensor([-1e-8, -1e-3, -0.5, -2.0, -40.0])
    expected = [math.log(-math.expm1(v)) if v > -1 else math.log1p(-math.exp(v)) for v in x.tolist()]
    assert _log1mexp(x).tolist() == pytest.approx(expected, rel=1e-6)


def test_equal_margins_are_ranked_in_the_order_of_the_batch():
    """Whatever the order means, it is the same on every rank and every resume."""
    assert match_ranks(torch.zeros(64), torch.arange(64.0).flip(0)).tolist() == list(range(64))


# Single replies

LOGPROBS, REFERENCE = (-4.0, -6.0, -2.0, -7.0), (-5.0, -5.0, -2.5, -9.5)
GOOD, SINGLE_WEIGHTS = (True, False, True, False), (0.5, 1.5, 2.0, 0.25)


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_single_replies_count_by_their_weight_and_are_logged_by_their_label(name):
    """Of a batch with weights of 7 in all, 3 of them of good replies."""
    columns = (tensor(column, dtype=torch.float64) for column in (LOGPROBS, REFERENCE, (2.0, 3.0, 1.0, 4.0)))
    weights = tensor(SINGLE_WEIGHTS, dtype=torch.float64)
    singles = Singles(*columns, tensor(GOOD), weights)
    loss, metrics = LOSSES[name](singles, shift=tensor(0.4), beta=0.3, count=7.0, goods=3.0)
    rewards = [0.3 * (p - q) for p, q in zip(LOGPROBS, REFERENCE, strict=True)]
    values = []
    for reward, good in zip(rewards, GOOD, strict=True):
        ahead = (1 if good else -1) * (reward - (0.3 * 0.4 if name == "kto" else 0.4))
        values.append(1 / (1 + math.exp(ahead)) if name == "kto" else math.log(1 + math.exp(-ahead)))
    expected = sum(w * v for w, v in zip(SINGLE_WEIGHTS, values, strict=True)) / 7
    found = {key: value.item() for key, value in metrics.items()}
    sides = {
        key: ((0.5 * column[0] + 2.0 * column[2]) / 3, (1.5 * column[1] + 0.25 * column[3]) / 4)
        for key, column in (("rewards", rewards), ("logps", LOGPROBS))
    }
    assert loss.item() == pytest.approx(expected)
    assert found == pytest.approx(
        {
            f"loss/{name}": expected,
            "rewards/chosen": sides["rewards"][0],
            "rewards/rejected": sides["rewards"][1],
            "rewards/margins": sides["rewards"][0] - sides["rewards"][1],
            "logps/chosen": sides["logps"][0],
            "logps/rejected": sides["logps"][1],
        }
    )


def test_bcos_shift_is_the_middle_of_both_means_without_a_gradient():
    rewards = tensor([1.0, -2.0, 4.0, 3.0], requires_grad=True)
    shift = reward_shift(rewards, tensor([True, False, True, False]))
    assert shift.item() == pytest.approx((2.5 + 0.5) / 2) and not shift.requires_grad
    for label in (True, False):
        assert reward_shift(rewards, tensor([label] * 4)).item() == pytest.approx(6 / 4)
    assert reward_shift(rewards, tensor([True, False, False, False])).item() == pytest.approx((1 + 5 / 3) / 2)


# Rankings


def test_rankings_of_several_lengths_are_logged_by_hand():
    """One with two best replies and an empty slot, one of four with a tie of rewards, one without any reply."""
    ranks = tensor([[1, 2, 1, 0], [4, 2, 3, 1], [0, 0, 0, 0]])
    logprobs = tensor([[-1.0, -3.0, -6.0, 5.0], [-2.0, -4.0, -7.0, -1.5], [9.0, 9.0, 9.0, 9.0]], dtype=torch.float64)
    ratios = tensor([[2.0, -1.0, -3.0, 7.0], [0.5, -0.5, -0.5, 1.5], [8.0, 8.0, 8.0, 8.0]], dtype=torch.float64)
    weights = tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    rankings = Rankings(logprobs, logprobs - ratios, torch.ones(3, 4), ranks, weights)
    loss, metrics = LOSSES["plackett_luce"](rankings, beta=0.3, count=6.0)

    def worse_than(best, *others):
        return math.log(sum(math.exp(0.3 * (other - best)) for other in (best, *others)))

    first = worse_than(2.0, -1.0) + worse_than(-3.0, -1.0)
    second = worse_than(1.5, -0.5, -0.5, 0.5) + worse_than(-0.5, -0.5, 0.5) + worse_than(-0.5, 0.5)
    expected = (0.5 * first + 2.0 * second) / 6
    assert loss.item() == pytest.approx(expected)
    # the ordered pairs: 1 of 2 right; of 6, 3 right, one of equal rewards, and both of the middle below the last
    accuracies = (0.5 * 1 / 2 + 2.0 * 3.5 / 6) / 6
    best, last = (0.5 * 0.3 * (2.0 - 3.0) / 2 + 2.0 * 0.3 * 1.5) / 6, (0.5 * 0.3 * -1.0 + 2.0 * 0.3 * 0.5) / 6
    assert {key: value.item() for key, value in metrics.items()} == pytest.approx(
        {
            "loss/plackett_luce": expected,
            "rewards/chosen": best,
            "rewards/rejected": last,
            "rewards/accuracies": accuracies,
            "rewards/margins": best - last,
            "logps/chosen": (0.5 * (-1.0 - 6.0) / 2 + 2.0 * -1.5) / 6,
            "logps/rejected": (0.5 * -3.0 + 2.0 * -2.0) / 6,
        }
    )
