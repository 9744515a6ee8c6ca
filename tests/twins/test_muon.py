"""Muon on stacked matrices moves them as torch's own does."""

import torch
from torch import nn

from twinning.muon import Muon


def test_stacked_matrices_move_as_one_by_one() -> None:
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (8, 24), (24, 8)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    pair = Muon(ours, lr=0.02), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in pair:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 2e-3  # rounded to bf16 in another order
