"""Predictors: what a feature will be at a coming step, from what it was at the last full steps.

`keep(z, t)` at full steps, `at(t)` between them; t is the share of noise or the step's index, whichever is configured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Predictor(Protocol):
    """A forecast of one tensor (B, T, D); each item's depends on nothing but itself."""

    def keep(self, z: Tensor, t: float) -> None: ...

    def at(self, t: float) -> Tensor: ...


class Reuse:
    """The last value (FORA, arXiv 2407.01425)."""

    def keep(self, z: Tensor, t: float) -> None:
        self.z = z

    def at(self, t: float) -> Tensor:
        return self.z


class Ema:
    """E <- beta E + (1 - beta) Z, forecast E: SVD-Cache's equation 11, read literally. It lags; it does not forecast."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.mean: Tensor | None = None

    def keep(self, z: Tensor, t: float) -> None:
        self.mean = z if self.mean is None else torch.lerp(z, self.mean, self.beta)

    def at(self, t: float) -> Tensor:
        assert self.mean is not None
        return self.mean


class Holt:
    """D <- beta D + (1 - beta) dZ/dt, bias-corrected; forecast Z + (t - t_n) D: an average of slopes."""

    def __init__(self, beta: float) -> None:
        self.beta, self.count = beta, 0
        self.slope: Tensor | None = None
        self.last: tuple[Tensor, float] | None = None

    def keep(self, z: Tensor, t: float) -> None:
        if self.last is not None and t != self.last[1]:
            slope = (z - self.last[0]) / (t - self.last[1])
            self.slope = slope * (1 - self.beta) if self.slope is None else torch.lerp(slope, self.slope, self.beta)
            self.count += 1
        self.last = (z, t)

    def at(self, t: float) -> Tensor:
        assert self.last is not None
        z, when = self.last
        if self.slope is None:
            return z
        return z + self.slope * ((t - when) / (1 - self.beta**self.count))


class Taylor:
    """Newton's divided differences over the real gaps: the polynomial through the last order + 1 full steps.

    `damping` scales the step away from the last full value: 0 is reuse, 1 the polynomial.
    """

    def __init__(self, order: int, damping: float = 1.0) -> None:
        self.order, self.damping = order, damping
        self.known: list[tuple[Tensor, float]] = []

    def keep(self, z: Tensor, t: float) -> None:
        # a second-order scheduler evaluates one time twice: the newer value stands for both
        self.known = [*(one for one in self.known if one[1] != t), (z, t)][-self.order - 1 :]

    def at(self, t: float) -> Tensor:
        z, when = self.known[-1]
        weights = lagrange([known for _, known in self.known], t)
        if len(weights) == 1:
            return z
        if len(weights) == 2:
            # z + damping (t - t1) / (t1 - t0) (z1 - z0)
            return torch.lerp(self.known[0][0], z, 1 + self.damping * (weights[-1] - 1))
        out = z * (1 + self.damping * (weights[-1] - 1))
        for (older, _), weight in zip(self.known[:-1], weights[:-1], strict=True):
            out.add_(older, alpha=self.damping * weight)
        return out


def lagrange(knots: list[float], t: float) -> list[float]:
    """The weights of the values at `knots` in their interpolating polynomial at t; they sum to 1."""
    weights = []
    for i, a in enumerate(knots):
        weight = 1.0
        for j, b in enumerate(knots):
            weight *= (t - b) / (a - b) if i != j else 1.0
        weights.append(weight)
    return weights


class Subspace:
    """Forecast the principal part, reuse the residual: F_hat = F_last + (Z_hat - Z_last) V^T with Z = F V (SVD-Cache).

    Args:
        inner: the predictor of Z.
        basis: V (D, R), or (B, D, R) with one basis per item; None finds one with `find` from the first feature kept.
    """

    def __init__(self, inner: Predictor, basis: Tensor | None, find: Callable[[Tensor], Tensor]) -> None:
        self.inner, self.basis, self.find = inner, basis, find

    def keep(self, z: Tensor, t: float) -> None:
        if self.basis is None:
            self.basis = self.find(z)
        self.basis = self.basis.to(z)
        self.feature, self.inside = z, z @ self.basis
        self.inner.keep(self.inside, t)

    def at(self, t: float) -> Tensor:
        assert self.basis is not None
        change = (self.inner.at(t) - self.inside).to(self.feature.dtype)
        return self.feature + change @ self.basis.mT
