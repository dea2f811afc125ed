"""P(IK)'s cross-entropy against labels that stand many times, and the reward for a stated chance by hand."""

import pytest
import torch
import torch.nn.functional as F

from accord.objectives.honesty import brier_reward, knowledge_loss


def test_a_share_of_right_samples_is_as_many_hard_labels():
    logits = torch.tensor([0.3, -1.2, 2.0], requires_grad=True)
    hits, samples = (3, 0, 10), 10
    loss, metrics = knowledge_loss(logits, torch.tensor(hits) / samples, count=3)
    hard = torch.cat([torch.tensor([1.0] * k + [0.0] * (samples - k)) for k in hits])
    repeated = F.binary_cross_entropy_with_logits(logits.repeat_interleave(samples), hard)
    assert float(loss.detach()) == pytest.approx(float(repeated.detach()), rel=1e-6) == float(metrics["loss"])
    loss.backward()
    # the gradient is σ(s) − q, over the count
    expected = (torch.sigmoid(logits) - torch.tensor(hits) / samples) / 3
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_a_batch_that_is_cut_adds_up():
    logits, shares = torch.tensor([0.5, -0.5, 1.0, 0.0]), torch.tensor([1.0, 0.2, 0.0, 0.5])
    whole, _ = knowledge_loss(logits, shares, count=4)
    parts = [knowledge_loss(logits[i : i + 2], shares[i : i + 2], count=4)[0] for i in (0, 2)]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-6)


def test_a_stated_chance_by_hand():
    right, stated = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 1.0, 0.0, 0.7])
    assert brier_reward(right, stated).tolist() == pytest.approx([1.0, 0.0, -1.0, 0.0, 0.91])


@pytest.mark.parametrize("chance", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_it_pays_most_to_state_the_true_chance_and_that_is_its_square(chance):
    stated = torch.linspace(0, 1, 101)
    mean = chance * brier_reward(torch.ones(101), stated) + (1 - chance) * brier_reward(torch.zeros(101), stated)
    assert float(stated[mean.argmax()]) == pytest.approx(chance, abs=1e-6)
    assert float(mean.max()) == pytest.approx(chance**2, abs=1e-6)
