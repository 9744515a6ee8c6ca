"""Muon (Jordan et al. 2024; 2502.16982) on matrices stacked by shape: torch's own takes them one by one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# S matrices of one shape, R rows, C columns

ROUNDS = ((3.4445, -4.775, 2.0315),) * 5  # a x + b x^3 + c x^5 on the singular values, which goes towards 1
MOMENTUM = 0.95
DECAY = 0.01


class Muon(torch.optim.Optimizer):
    """Moves each matrix by its momentum made orthogonal."""

    def __init__(self, matrices: Iterable[Tensor], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                towards_SRC = orthogonal(torch.stack([self._momentum(weight) for weight in weights]))
                rate = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for weight, towards in zip(weights, towards_SRC, strict=True):
                    weight.mul_(1 - group["lr"] * DECAY).add_(towards, alpha=-rate)

    def _momentum(self, weight: Tensor) -> Tensor:
        """Nesterov's: the gradient, moved most of the way to its running average."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["momentum_buffer"], MOMENTUM)


def orthogonal(x_SRC: Tensor) -> Tensor:
    """Each matrix with its singular values brought near 1, by Newton and Schulz's rounds in bf16."""
    if x_SRC.shape[1] > x_SRC.shape[2]:
        return orthogonal(x_SRC.mT).mT
    x = (x_SRC / x_SRC.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).bfloat16()
    for a, b, c in ROUNDS:
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.to(x_SRC.dtype)
