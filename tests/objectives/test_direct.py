"""The direct family by hand: each loss against its formula in plain arithmetic, at the extremes, combined and cut."""

import inspect
import math

import pytest
import torch
from torch import tensor

from accord.objectives import direct
from accord.objectives.direct import LOSSES, Pairs, implicit_rewards, match_ranks, weighted_losses
from accord.objectives.direct_unpaired import Rankings, Singles, kl_estimate, reward_shift
from accord.objectives.implicit import reduce, reward_metrics, sequence_logprobs, token_counts
from accord.stages.dpo.config import DIRECT_LOSSES, DIRECT_OPTIONS, LISTWISE, PAIRED, TAKE_MARGIN, UNPAIRED

CHOSEN, REJECTED = (-6.0, -3.0), (-9.0, -2.5)
REFERENCE_CHOSEN, REFERENCE_REJECTED = (-7.5, -2.0), (-8.0, -4.0)
CHOSEN_TOKENS, REJECTED_TOKENS = (3.0, 2.0), (4.0, 5.0)
MARGIN = (0.25, 0.0)
NAMES = [name for name, (family, _, _) in DIRECT_LOSSES.items() if family == PAIRED]


def pairs(margin=MARGIN, dtype=torch.float64, weights=(1.0, 1.0)):
    columns = (CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, CHOSEN_TOKENS, REJECTED_TOKENS, weights, margin)
    return Pairs(*(tensor(column, dtype=dtype) for column in columns))


def sigma(x):
    return 1 / (1 + math.exp(-x))


def nls(x):
    """−log σ(x)."""
    return math.log(1 + math.exp(-x))


def odds(log_p):
    return math.log(math.exp(log_p) / (1 - math.exp(log_p)))


# name: (keywords, loss of one pair from p = log π and a = log π/π_ref of both sides as the reduction has them,
# the margin m and the lengths n)
FORMULAS = {
    "dpo": ({"beta": 0.5}, lambda p, a, m, n: nls(0.5 * (a[0] - a[1]) - m)),
    "dpo_norm": ({"beta": 2.0}, lambda p, a, m, n: nls(2.0 * (a[0] - a[1]) - m)),
    "dpo_length": (
        {"beta": 0.5, "length_penalty": 0.1},
        lambda p, a, m, n: nls(0.5 * (a[0] - a[1]) + 0.1 * (n[0] - n[1]) - m),
    ),
    "cdpo": (
        {"beta": 0.5, "label_smoothing": 0.2},
        lambda p, a, m, n: 0.8 * nls(0.5 * (a[0] - a[1])) + 0.2 * nls(0.5 * (a[1] - a[0])),
    ),
    "robust": (
        {"beta": 0.5, "label_smoothing": 0.2},
        lambda p, a, m, n: (0.8 * nls(0.5 * (a[0] - a[1])) - 0.2 * nls(0.5 * (a[1] - a[0]))) / 0.6,
    ),
    "ipo": ({"beta": 0.5}, lambda p, a, m, n: (a[0] - a[1] - 1.0) ** 2),
    "hinge": ({"beta": 0.5}, lambda p, a, m, n: max(0.0, 1 - 0.5 * (a[0] - a[1]))),
    "exo": (
        {"beta": 0.5, "label_smoothing": 0.1},
        lambda p, a, m, n: sum(
            q * math.log(q / r) for q, r in ((sigma(0.5 * (a[0] - a[1])), 0.9), (sigma(0.5 * (a[1] - a[0])), 0.1))
        ),
    ),
    "sppo": ({"beta": 0.5}, lambda p, a, m, n: (a[0] - 1.0) ** 2 + (a[1] + 1.0) ** 2),
    "nca": (
        {"beta": 0.5},
        lambda p, a, m, n: nls(0.5 * a[0]) + 0.5 * nls(-0.5 * a[0]) + 0.5 * nls(-0.5 * a[1]),
    ),
    "bco_pair": ({"beta": 0.5}, lambda p, a, m, n: nls(0.5 * a[0]) + nls(-0.5 * a[1])),
    "apo_zero": ({"beta": 0.5}, lambda p, a, m, n: 1 - sigma(0.5 * a[0]) + sigma(0.5 * a[1])),
    "apo_down": ({"beta": 0.5}, lambda p, a, m, n: sigma(0.5 * a[0]) + 1 - sigma(0.5 * (a[0] - a[1]))),
    "aot": (
        {"beta": 0.5, "label_smoothing": 0.1, "matched": tensor([0.3, 0.3], dtype=torch.float64)},
        lambda p, a, m, n: 0.9 * nls(0.5 * (p[0] - p[1] - 0.3)) + 0.1 * nls(-0.5 * (p[0] - p[1] - 0.3)),
    ),
    "orpo": ({"beta": 0.5}, lambda p, a, m, n: -p[0] + 0.5 * nls(odds(p[0]) - odds(p[1]))),
    "simpo": (
        {"beta": 2.0, "target_margin": 0.4},
        lambda p, a, m, n: nls(2.0 * (p[0] - p[1]) - 0.4 - m),
    ),
    "dpo_forward_kl": (
        {"beta": 0.5},
        lambda p, a, m, n: nls(0.5 * ((1 - math.exp(-a[0])) - (1 - math.exp(-a[1]))) - m),
    ),
    "dpo_js": (
        {"beta": 0.5},
        lambda p, a, m, n: nls(
            0.5
            * (
                math.log(2 * math.exp(a[0]) / (1 + math.exp(a[0])))
                - math.log(2 * math.exp(a[1]) / (1 + math.exp(a[1])))
            )
            - m
        ),
    ),
    "dpo_alpha": (
        {"beta": 0.5, "alpha": 0.4},
        lambda p, a, m, n: nls(0.5 * ((1 - math.exp(-0.4 * a[0])) - (1 - math.exp(-0.4 * a[1]))) / 0.4 - m),
    ),
    "nll": ({}, lambda p, a, m, n: -p[0]),
}
# what the paper takes, where it is not the sum over tokens
MEANS = {"dpo_norm", "ipo", "orpo", "simpo", "nll"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["sum", "mean", None])
def test_every_paired_loss_is_its_formula(name, reduction):
    keywords, formula = FORMULAS[name]
    by_token = reduction == "mean" or (reduction is None and name in MEANS)
    expected = 0.0
    for i in range(2):
        n = (CHOSEN_TOKENS[i], REJECTED_TOKENS[i])
        by = n if by_token else (1.0, 1.0)
        p = (CHOSEN[i] / by[0], REJECTED[i] / by[1])
        a = ((CHOSEN[i] - REFERENCE_CHOSEN[i]) / by[0], (REJECTED[i] - REFERENCE_REJECTED[i]) / by[1])
        expected += formula(p, a, MARGIN[i], n) / 2
    chosen = {} if reduction is None else {"reduction": reduction}
    loss, metrics = LOSSES[name](pairs(), count=2.0, **keywords, **chosen)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert metrics[f"loss/{name}"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["dpo", "cdpo", "robust", "hinge", "exo", "nca", "bco_pair", "apo_zero", "apo_down", "orpo", "simpo"]
)
def test_the_rewards_are_beta_times_what_the_loss_compares(name):
    """Log-ratios to the reference; without one log-probs per token."""
    keywords, _ = FORMULAS[name]
    metrics = LOSSES[name](pairs(), count=2.0, **keywords)[1]
    sides = []
    for logprobs, reference, tokens in (
        (CHOSEN, REFERENCE_CHOSEN, CHOSEN_TOKENS),
        (REJECTED, REFERENCE_REJECTED, REJECTED_TOKENS),
    ):
        compared = [p / n if name in MEANS else p - q for p, q, n in zip(logprobs, reference, tokens, strict=True)]
        sides.append(keywords["beta"] * sum(compared) / 2)
    assert metrics["rewards/chosen"].item() == pytest.approx(sides[0])
    assert metrics["rewards/rejected"].item() == pytest.approx(sides[1])
    assert metrics["rewards/margins"].item() == pytest.approx(sides[0] - sides[1])


def test_a_tie_is_half_right_and_pairs_count_by_their_weight():
    columns = (tensor(column) for column in ([2.0, 1.0, 3.0], [1.0, 2.0, 3.0], [-1.0] * 3, [-2.0] * 3, [1.0, 0.5, 2.0]))
    metrics = reward_metrics(*columns, 3.5)
    assert metrics["rewards/accuracies"] == pytest.approx((1 + 0 + 2 * 0.5) / 3.5)
    assert metrics["rewards/margins"] == pytest.approx((1 - 0.5 + 0) / 3.5)


def test_the_names_options_and_needs_of_the_command_are_those_of_the_functions():
    """The command's table stands in accord.config, which must not import torch."""
    assert list(DIRECT_LOSSES) == list(LOSSES) and set(FORMULAS) == set(NAMES)
    for name, (family, needs_reference, options) in DIRECT_LOSSES.items():
        parameters = inspect.signature(LOSSES[name]).parameters
        assert next(iter(parameters)) == {PAIRED: "pairs", UNPAIRED: "singles", LISTWISE: "rankings"}[family]
        given = {p.name for p in parameters.values() if p.default is not p.empty}
        assert given == {"reduction", *options} | (set() if name == "nll" else {"beta"}), name
        assert set(options) <= set(DIRECT_OPTIONS)
        if family == PAIRED:
            keywords = {**FORMULAS[name][0], "count": 2.0}
            moved = Pairs(*(getattr(pairs(), f) + (f.startswith("reference") * 0.5) for f in Pairs.__slots__))
            moved = Pairs(*(getattr(moved, f) * (2 if f == "reference_chosen" else 1) for f in Pairs.__slots__))
            same = torch.equal(LOSSES[name](pairs(), **keywords)[0], LOSSES[name](moved, **keywords)[0])
            assert same == (not needs_reference) or name == "aot", name  # aot's reference is in `matched`
            margin = LOSSES[name](pairs(margin=(1.0, 2.0)), **keywords)[0]
            assert (margin != LOSSES[name](pairs(), **keywords)[0]).item() == (name in TAKE_MARGIN), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_e1_finite_value_and_gradient_at_the_extremes(name, size):
    """E1: where a chosen or a rejected reply is e^±10000 times as probable as under the reference."""
    keywords = FORMULAS[name][0] | ({"matched": torch.zeros(2)} if name == "aot" else {})
    for side in ("chosen", "rejected"):
        logprobs = {
            "chosen": tensor([min(size, 0.0), -1e4], requires_grad=True),
            "rejected": tensor([min(-size, 0.0), -1e4], requires_grad=True),
        }
        reference = {k: v.detach().clone() for k, v in logprobs.items()}
        reference[side] = reference[side] - size
        batch = Pairs(
            logprobs["chosen"],
            logprobs["rejected"],
            reference["chosen"],
            reference["rejected"],
            torch.ones(2),
            torch.ones(2),
            torch.ones(2),
            torch.zeros(2),
        )
        loss, metrics = LOSSES[name](batch, count=2.0, **keywords)
        loss.backward()
        assert all(torch.isfinite(value) for value in (loss, *metrics.values())), name
        for tensors in logprobs.values():
            assert tensors.grad is None or torch.isfinite(tensors.grad).all(), name


def test_e1_unpaired_and_listwise_losses_are_finite_too():
    logprobs = tensor([0.0, -1e4, -1.0, -2e4], requires_grad=True)
    reference = tensor([-1e4, 0.0, -2e4, -1.0])
    good = tensor([True, False, True, False])
    singles = Singles(logprobs, reference, torch.ones(4), good, torch.ones(4))
    rankings = Rankings(
        logprobs.view(2, 2), reference.view(2, 2), torch.ones(2, 2), tensor([[1, 2], [2, 1]]), torch.ones(2)
    )
    for loss, _ in (
        LOSSES["kto"](singles, shift=tensor(5.0), count=4, goods=2),
        LOSSES["bco"](singles, shift=tensor(5.0), count=4, goods=2),
        LOSSES["plackett_luce"](rankings, count=2),
    ):
        (gradient,) = torch.autograd.grad(loss, logprobs, retain_graph=True)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_at_the_reference_the_loss_is_ln_2_and_every_reward_is_0():
    at_start = Pairs(
        *(pairs().chosen, pairs().rejected) * 2, *(getattr(pairs((0.0, 0.0)), f) for f in Pairs.__slots__[4:])
    )
    loss, metrics = LOSSES["dpo"](at_start, count=2.0)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    assert metrics["rewards/chosen"] == metrics["rewards/rejected"] == metrics["rewards/margins"] == 0.0
    assert metrics["rewards/accuracies"] == 0.5


def test_e2_combined_losses_are_logged_apart():
    """E2: neither overwrites the other, and the rewards are those of the first."""
    weights = {"dpo": 0.8, "simpo": 0.2, "nll": 1.0}
    options = {"dpo": {"beta": 0.5}}
    loss, metrics = weighted_losses(weights, pairs(), options, count=2.0)
    alone = {name: LOSSES[name](pairs(), count=2.0, **options.get(name, {})) for name in weights}
    for name, (value, _) in alone.items():
        assert metrics[f"loss/{name}"] == value
    assert metrics["loss"] == loss == 0.8 * alone["dpo"][0] + 0.2 * alone["simpo"][0] + alone["nll"][0]
    assert metrics["rewards/chosen"] == alone["dpo"][1]["rewards/chosen"] != alone["simpo"][1]["rewards/chosen"]
    _, orpo = LOSSES["orpo"](pairs(), beta=0.3, count=2.0)
    assert orpo["loss/orpo"] == pytest.approx(orpo["loss/orpo/nll"] + 0.3 * orpo["loss/orpo/odds_ratio"])


@pytest.mark.parametrize("name", ["nll", "orpo"])
def test_e3_the_loss_and_its_gradient_are_linear_in_a_weight(name):
    """E3: an SFT term that is scaled twice grows with the square of its weight."""
    found = []
    for weight in (1.0, 2.0, 4.0):
        batch = pairs()
        chosen = batch.chosen.clone().requires_grad_()
        batch = Pairs(chosen, *(getattr(batch, f) for f in Pairs.__slots__[1:]))
        loss, _ = weighted_losses({"dpo": 1.0, name: weight}, batch, {}, count=2.0)
        loss.backward()
        found.append(torch.cat([loss.detach()[None], chosen.grad]))
    assert torch.allclose(found[2] - found[1], 2 * (found[1] - found[0]))
    assert not torch.allclose(found[1], found[0])


def test_e3_orpos_ratio_term_is_linear_in_its_weight():
    losses = [LOSSES["orpo"](pairs(), beta=beta, count=2.0)[0] for beta in (0.0, 0.1, 0.2)]
    assert torch.isclose(losses[2] - losses[1], losses[1] - losses[0])
    assert torch.equal(losses[0], LOSSES["nll"](pairs(), count=2.0)[0])


@pytest.mark.parametrize("name", NAMES)
def test_c15_losses_and_metrics_add_up_over_micro_batches(name):
    keywords = FORMULAS[name][0]
    parts = []
    for rows in (slice(0, 1), slice(1, 2)):
        batch = Pairs(*(getattr(pairs(), f)[rows] for f in Pairs.__slots__))
        part = {**keywords, "matched": keywords["matched"][rows]} if name == "aot" else keywords
        loss, metrics = LOSSES[name](batch, count=2.0, **part)
        parts.append(torch.stack([loss, *metrics.values()]))
    loss, metrics = LOSSES[name](pairs(), count=2.0, **keywords)
    assert torch.allclose(parts[0] + parts[1], torch.stack([loss, *metrics.values()]))


def test_a_ranking_of_three_counts_once():
    """The three pairs of a ranking, a third each, weigh as much as one comparison."""
    weighted = pairs(weights=(1 / 3, 1 / 3))
    loss, _ = LOSSES["dpo"](weighted, count=1.0)
    each = [
        LOSSES["dpo"](Pairs(*(getattr(pairs(), f)[i : i + 1] for f in Pairs.__slots__)), count=1.0)[0] for i in (0, 1)
    ]
    assert torch.isclose(loss, sum(each) / 3)


def test_a_margin_asks_for_a_reward_difference():
    """With the margin at the present difference, the loss is ln 2 and the labeler's strength is met."""
    difference = (0.1 * (CHOSEN[0] - REFERENCE_CHOSEN[0] - REJECTED[0] + REFERENCE_REJECTED[0]), 0.0)
    first = Pairs(*(getattr(pairs(margin=difference), f)[:1] for f in Pairs.__slots__))
    assert LOSSES["dpo"](first, beta=0.1, count=1.0)[0].item() == pytest.approx(math.log(2))


def test_cdpo_stops_at_the_smoothed_probability():
    h = math.log(0.9 / 0.1) / 0.5
    chosen = tensor([h], dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    batch = Pairs(chosen, zero, zero, zero, one, one, one, zero)
    LOSSES["cdpo"](batch, beta=0.5, label_smoothing=0.1, count=1.0)[0].backward()
    assert chosen.grad.item() == pytest.approx(0.0, abs=1e-12)


def test_robust_dpo_is_unbiased_under_flips():
    """A share ε of turned labels gives, in expectation, the loss of the true ones."""
    epsilon = 0.2
    clean = pairs(margin=(0.0, 0.0))
    f = Pairs.__slots__
    flipped = Pairs(*(getattr(clean, f[i]) for i in (1, 0, 3, 2, 5, 4, 6, 7)))
    kept, turned = (LOSSES["robust"](b, label_smoothing=epsilon, count=2.0)[0] for b in (clean, flipped))
    assert torch.isclose((1 - epsilon) * kept + epsilon * turned, LOSSES["dpo"](clean, count=2.0)[0])


@pytest.mark.parametrize(("name", "slope"), [("dpo_forward_kl", 1.0), ("dpo_js", 0.5), ("dpo_alpha", 1.0)])
def test_divergences_agree_near_the_reference_up_to_their_curvature(name, slope):
    ratios = tensor([1e-4, -1e-4], dtype=torch.float64)
    rewards = implicit_rewards(name, ratios, torch.ones(2), beta=1.0, reduction="sum", alpha=0.5)
    assert torch.allclose(rewards, slope * ratios, rtol=1e-3)
    assert torch.equal(implicit_rewards("dpo", ratios, torch.ones(2), beta=2.0, reduction="sum"), 2 * ratios)


def test_beyond_its_bound_the_exponential_keeps_its_slope():
    x = tensor([29.0, 30.0, 31.0], dtype=torch.float64)
    assert torch.allclose(direct._bounded_exp(x[:2]), x[:2].exp())
    assert torch.isclose(direct._bounded_exp(x[2]), 2 * x[1].exp())


def test_ranks_are_matched_in_order():
    values, others = tensor([3.0, 1.0, 2.0]), tensor([10.0, 30.0, 20.0])
    assert match_ranks(values, others).tolist() == [30.0, 10.0, 20.0]


def singles(weights=(1.0, 1.0, 1.0)):
    columns = ((-4.0, -6.0, -2.0), (-5.0, -5.0, -2.5), (2.0, 3.0, 1.0))
    good = tensor([True, False, True])
    return Singles(*(tensor(c, dtype=torch.float64) for c in columns), good, tensor(weights, dtype=torch.float64))


def test_kto_by_hand():
    loss, metrics = LOSSES["kto"](
        singles(), shift=tensor(0.4), beta=0.5, good_weight=1.5, bad_weight=0.7, count=3, goods=2
    )
    terms = [
        1.5 * (1 - sigma(0.5 * (1.0 - 0.4))),
        0.7 * (1 - sigma(0.5 * (0.4 + 1.0))),
        1.5 * (1 - sigma(0.5 * (0.5 - 0.4))),
    ]
    assert loss.item() == pytest.approx(sum(terms) / 3)
    assert metrics["rewards/chosen"].item() == pytest.approx(0.5 * (1.0 + 0.5) / 2)
    assert metrics["rewards/rejected"].item() == pytest.approx(0.5 * -1.0)
    assert metrics["rewards/margins"].item() == pytest.approx(0.375 + 0.5)


def test_ktos_estimate_is_a_mean_clamped_at_0_and_carries_no_gradient():
    ratios = tensor([0.5, -0.2, 0.6], requires_grad=True)
    estimate = kl_estimate(ratios, 3)
    assert estimate.item() == pytest.approx(0.3) and not estimate.requires_grad
    assert kl_estimate(-ratios, 3) == 0.0


def test_bco_by_hand():
    loss, _ = LOSSES["bco"](singles(), shift=tensor(0.2), beta=0.5, count=3, goods=2)
    expected = (nls(0.5 * 1.0 - 0.2) + nls(0.2 + 0.5 * 1.0) + nls(0.5 * 0.5 - 0.2)) / 3
    assert loss.item() == pytest.approx(expected)
    rewards, good = tensor([1.0, -2.0, 3.0]), tensor([True, False, True])
    assert reward_shift(rewards, good).item() == pytest.approx((2.0 - 2.0) / 2)
    assert reward_shift(rewards, tensor([True, True, True])).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_c15_unpaired_losses_add_up_over_micro_batches(name):
    def total(rows):
        part = Singles(*(getattr(singles(), f)[rows] for f in Singles.__slots__))
        loss, metrics = LOSSES[name](part, shift=tensor(0.2), count=3, goods=2)
        return torch.stack([loss, *metrics.values()])

    assert torch.allclose(total(slice(0, 1)) + total(slice(1, 3)), total(slice(0, 3)))


def rankings(ranks, ratios):
    reference = tensor([[-5.0, -4.0, -3.0]], dtype=torch.float64)
    return Rankings(
        reference + tensor([ratios], dtype=torch.float64),
        reference,
        tensor([[2.0, 3.0, 4.0]], dtype=torch.float64),
        tensor([ranks]),
        torch.ones(1, dtype=torch.float64),
    )


def test_plackett_luce_by_hand():
    r = (0.5 * 2.0, 0.5 * -1.0, 0.5 * 0.5)
    loss, metrics = LOSSES["plackett_luce"](rankings((1, 3, 2), (2.0, -1.0, 0.5)), beta=0.5, count=1)
    e = [math.exp(x) for x in r]
    expected = -math.log(e[0] / sum(e)) - math.log(e[2] / (e[2] + e[1]))
    assert loss.item() == pytest.approx(expected)
    assert metrics["rewards/accuracies"] == 1.0
    assert metrics["rewards/margins"].item() == pytest.approx(r[0] - r[1])


def test_b5_a_tie_in_a_ranking_orders_nothing():
    r = (0.5 * 2.0, 0.5 * -1.0, 0.5 * 0.5)
    loss, metrics = LOSSES["plackett_luce"](rankings((1, 2, 1), (2.0, -1.0, 0.5)), beta=0.5, count=1)
    assert loss.item() == pytest.approx(nls(r[0] - r[1]) + nls(r[2] - r[1]))
    assert metrics["rewards/chosen"].item() == pytest.approx((r[0] + r[2]) / 2)


def test_what_stands_where_no_reply_is_changes_nothing():
    clean, dirty = rankings((1, 2, 0), (2.0, -1.0, 0.0)), rankings((1, 2, 0), (2.0, -1.0, float("nan")))
    values = [LOSSES["plackett_luce"](r, count=1) for r in (clean, dirty)]
    assert values[0][0] == values[1][0] and values[0][1] == values[1][1]


def test_plackett_luce_of_two_is_dpo():
    two = pairs(margin=(0.0, 0.0))
    listed = Rankings(
        torch.stack([two.rejected, two.chosen], 1),
        torch.stack([two.reference_rejected, two.reference_chosen], 1),
        torch.stack([two.rejected_tokens, two.chosen_tokens], 1),
        tensor([[2, 1], [2, 1]]),
        two.weights,
    )
    (loss, metrics), (other, others) = LOSSES["plackett_luce"](listed, count=2.0), LOSSES["dpo"](two, count=2.0)
    assert torch.isclose(loss, other)
    assert all(torch.isclose(metrics[k], others[k]) for k in others if k != "loss/dpo")


def test_sequences_are_summed_or_averaged_by_owner():
    logprobs, owner = tensor([-1.0, -2.0, -3.0]), tensor([0, 2, 0])
    assert sequence_logprobs(logprobs, owner, 4, "sum").tolist() == [-4.0, 0.0, -2.0, 0.0]
    assert sequence_logprobs(logprobs, owner, 4, "mean").tolist() == [-2.0, 0.0, -2.0, 0.0]
    assert token_counts(owner, 4).tolist() == [2.0, 0.0, 1.0, 0.0]
    assert reduce(tensor([6.0]), tensor([3.0]), "mean") == 2.0


def test_b5_equal_rewards_count_one_half():
    x = tensor([1.0, 2.0, 0.0])
    metrics = reward_metrics(x, tensor([1.0, 0.0, 3.0]), x, x, torch.ones(3), 3)
    assert metrics["rewards/accuracies"] == 0.5
