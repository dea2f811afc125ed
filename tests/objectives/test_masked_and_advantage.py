"""Advantages by hand: streams, GAE, the combination with multipliers, whitening."""

import pytest
import torch
from torch import tensor

from accord.objectives.advantage import combine_advantages, gae, token_signals
from accord.objectives.masked import clean, masked_mean, masked_sum, scale_to_unit, whiten

NAN = float("nan")


def close(actual, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected)
    assert torch.allclose(actual, expected.to(actual.dtype), atol=tolerance), f"{actual} != {expected}"


def masks(*lengths, width=None):
    return torch.arange(width or max(lengths))[None] < tensor(lengths)[:, None]


def test_sums_and_means_count_true_slots_only():
    mask = tensor([[True, True, False], [True, False, False]])
    values = tensor([[1.0, 2.0, NAN], [6.0, NAN, 1e30]])
    close(masked_sum(values, mask), 9.0)
    close(masked_mean(values, mask), 3.0)
    close(masked_mean(values, mask, 2), 4.5)
    close(masked_mean(values, torch.zeros_like(mask)), 0.0)
    close(masked_mean(values, mask & tensor([[False], [True]])), 6.0)


def test_c6_clean_keeps_nan_out_of_the_gradient():
    values = tensor([1.0, NAN], requires_grad=True)
    (kept,) = clean(tensor([True, False]), values)
    kept.exp().sum().backward()
    close(values.grad, [2.7182817, 0.0])


def test_c1_score_stands_on_the_last_real_token_of_finished_and_full_replies():
    # row 0 ended early (padded slots hold rubbish), row 1 fills the width: both carry the score on their last token
    kl = tensor([[0.5, -0.25, NAN], [0.1, 0.2, 0.3]])
    signals = token_signals(tensor([2.0, -1.0]), kl, masks(2, 3), kl_weight=-0.5)
    close(signals, [[-0.25, 0.125 + 2.0, 0.0], [-0.05, -0.10, -0.15 - 1.0]])


def test_token_signals_of_a_cost_are_charged_with_kl():
    signals = token_signals(tensor([2.0]), tensor([[0.5, 0.5]]), masks(2), kl_weight=0.1)
    close(signals, [[0.05, 2.05]])


def test_token_signals_leave_a_row_without_tokens_alone():
    signals = token_signals(tensor([5.0, 7.0]), torch.zeros(2, 2), masks(0, 1, width=2), kl_weight=-1.0)
    close(signals, [[0.0, 0.0], [7.0, 0.0]])


def test_gae_by_hand_with_unequal_lengths():
    # γ = 0.9, λ = 0.5, so γλ = 0.45
    # row 0, length 3: r = 1, 0, 2; V = 0.5, 1, 1.5
    #   δ2 = 2 − 1.5 = 0.5            A2 = 0.5
    #   δ1 = 0.9·1.5 − 1 = 0.35       A1 = 0.35 + 0.45·0.5 = 0.575
    #   δ0 = 1 + 0.9·1 − 0.5 = 1.4    A0 = 1.4 + 0.45·0.575 = 1.65875
    # row 1, length 1: r = −1, V = 2: A = −3; what stands in slots 1 and 2 must not matter
    signals = tensor([[1.0, 0.0, 2.0], [-1.0, NAN, 5.0]])
    values = tensor([[0.5, 1.0, 1.5], [2.0, 9.0, NAN]])
    advantages, returns = gae(signals, values, masks(3, 1), gamma=0.9, lam=0.5)
    close(advantages, [[1.65875, 0.575, 0.5], [-3.0, 0.0, 0.0]])
    close(returns, [[2.15875, 1.575, 2.0], [-1.0, 0.0, 0.0]])


def test_gae_with_lam_1_is_return_to_go_and_with_lam_0_is_td():
    signals, values = tensor([[1.0, 2.0, 3.0]]), tensor([[0.1, 0.2, 0.3]])
    _, returns = gae(signals, values, masks(3), gamma=1.0, lam=1.0)
    close(returns, [[6.0, 5.0, 3.0]])
    advantages, _ = gae(signals, values, masks(3), gamma=1.0, lam=0.0)
    close(advantages, [[1.1, 2.1, 2.7]])


def test_c3_padded_values_change_nothing():
    torch.manual_seed(0)
    mask = masks(4, 2, 1)
    signals, values = torch.randn(3, 4), torch.randn(3, 4)
    plain = gae(signals, values, mask, gamma=0.97, lam=0.9)
    for poison in (1e6, NAN, -float("inf")):
        poisoned = gae(
            torch.where(mask, signals, poison),
            torch.where(mask, values, poison),
            mask,
            gamma=0.97,
            lam=0.9,
        )
        assert all(torch.equal(a, b) for a, b in zip(plain, poisoned, strict=True))


def test_c4_two_tokens_worked_out():
    # One reply of two tokens, score 3 at the end, V(before token 0) = 1, V(before token 1) = 2, γ = λ = 1.
    # The value that stands beside a token is the one *before* it: A0 = 3 − 1, A1 = 3 − 2.
    stream = token_signals(tensor([3.0]), torch.zeros(1, 2), masks(2), kl_weight=-0.1)
    advantages, _ = gae(stream, tensor([[1.0, 2.0]]), masks(2), gamma=1.0, lam=1.0)
    close(advantages, [[2.0, 1.0]])


def test_combination_by_hand_with_two_limits_and_slices():
    # prompt 0 is inside both limits, prompt 1 inside none: λ there is 0
    reward = tensor([[4.0], [4.0]])
    costs = {"harm": tensor([[1.0], [1.0]]), "bias": tensor([[2.0], [2.0]])}
    weights = {"harm": tensor([1.0, 0.0]), "bias": tensor([2.0, 0.0])}
    close(combine_advantages(reward, costs, weights), [[(4 - 1 - 4) / 4], [4.0]])


def test_no_limits_is_plain_ppo():
    reward = torch.randn(2, 3)
    assert torch.equal(combine_advantages(reward, {}, {}), reward)


@pytest.mark.parametrize("multiplier", [0.0, 1.0, 5.0])
def test_d1_kl_weight_is_beta_whatever_the_multiplier(multiplier):
    """With zero scores and values, the combined return of a token is −β·kl to go, for every λ."""
    beta = 0.3
    kl = tensor([[0.5, -0.2, 0.7], [0.1, 0.4, NAN]])
    mask = masks(3, 2)
    reward = token_signals(torch.zeros(2), kl, mask, kl_weight=-beta)
    cost = token_signals(torch.zeros(2), kl, mask, kl_weight=beta)
    parts = [gae(s, torch.zeros(2, 3), mask, gamma=1.0, lam=1.0)[0] for s in (reward, cost)]
    combined = combine_advantages(parts[0], {"c": parts[1]}, {"c": torch.full((2,), multiplier)})
    close(combined, [[-beta * 1.0, -beta * 0.5, -beta * 0.7], [-beta * 0.5, -beta * 0.4, 0.0]])


def test_c18_whiten_has_mean_0_and_deviation_1_over_the_valid_tokens():
    mask = masks(3, 1)
    values = tensor([[1.0, 2.0, 3.0], [6.0, NAN, 100.0]])
    white = whiten(values, mask)
    kept = white[mask]
    close(kept.mean(), 0.0)
    close((kept**2).mean(), 1.0, 1e-5)
    assert torch.equal(white[~mask], torch.zeros(2))
    # by hand: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    close(kept, (tensor([1.0, 2.0, 3.0, 6.0]) - 3) / 3.5**0.5, 1e-5)
    close(scale_to_unit(values, mask)[mask].mean(), 3.0)


def test_c18_whitening_does_not_shrink_small_advantages():
    mask = masks(4)
    white = whiten(1e-3 * tensor([[1.0, 2.0, 3.0, 4.0]]), mask)
    close((white[mask] ** 2).mean(), 1.0, 2e-2)


def test_c18_the_floor_of_the_variance_is_1e_8():
    """Two values 2e-4 apart have a variance of 1e-8: they come to ∓ 1/√2."""
    white = whiten(tensor([[-1e-4, 1e-4, NAN]]), masks(2, width=3))
    close(white, [[-(0.5**0.5), 0.5**0.5, 0.0]], 1e-5)


def test_scaling_to_unit_leaves_the_mean_where_it_is():
    """Mean 3, variance 3.5, as above."""
    scaled = scale_to_unit(tensor([[1.0, 2.0, 3.0], [6.0, NAN, 100.0]]), masks(3, 1))
    close(scaled, [[3 - 2 / 3.5**0.5, 3 - 1 / 3.5**0.5, 3.0], [3 + 3 / 3.5**0.5, 0.0, 0.0]], 1e-5)


def test_c23_one_token_or_equal_advantages_do_not_explode():
    assert torch.equal(whiten(tensor([[2.0, NAN]]), masks(1, width=2)), tensor([[2.0, 0.0]]))
    close(whiten(tensor([[2.0, 5.0]]), masks(2)), [[-1.0, 1.0]])
    assert torch.equal(whiten(torch.ones(2, 2), masks(2, 2)), torch.zeros(2, 2))
    assert torch.equal(whiten(torch.full((1, 2), NAN), masks(0, width=2)), torch.zeros(1, 2))
