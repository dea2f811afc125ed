"""Muon against torch's own, which works in bfloat16, and against what it promises."""

import torch
from torch import nn

from accord.training.muon import Muon, orthogonalise


def test_singular_values_come_near_one_for_wide_and_tall():
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 20), (3, 20, 8), (2, 16, 16)):
        made = orthogonalise(torch.randn(shape, generator=generator))
        values = torch.linalg.svdvals(made)
        assert made.shape == shape
        # the quintic swings about 1 by design
        assert values.max() < 1.3 and values.median() > 0.65


def test_steps_are_those_of_torch_up_to_bf16():
    torch.manual_seed(0)
    shapes = [(12, 6), (6, 12), (12, 6), (8, 8)]
    ours = [nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    settings = {"lr": 0.1, "weight_decay": 0.1}
    mine, reference = Muon(ours, **settings), torch.optim.Muon(theirs, momentum=0.95, **settings)
    start = [p.detach().clone() for p in ours]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.03 * (a - before).norm()


def test_a_matrix_without_gradient_stays():
    kept, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.eye(4))
    optimizer = Muon([kept, moved], lr=0.1, weight_decay=0.5)
    moved.grad = torch.eye(4)
    optimizer.step()
    assert torch.equal(kept, torch.ones(4, 4)) and not torch.equal(moved, torch.eye(4))
