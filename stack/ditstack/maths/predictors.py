"""Predictors: what a feature will be at a coming step, from what it was at the last full steps.

`keep(z, t)` at full steps, `at(t)` between them; `tensors()` are what it holds on to. t is the share of noise or the
step's index, whichever is configured.
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

    def tensors(self) -> list[Tensor]: ...


class Reuse:
    """The last value (FORA, arXiv 2407.01425)."""

    def keep(self, z: Tensor, t: float) -> None:
        self.z = z

    def at(self, t: float) -> Tensor:
        return self.z

    def tensors(self) -> list[Tensor]:
        return [self.z]


class Ema:
    """E <- beta E + (1 - beta) Z, forecast E: SVD-Cache's equation 11, read literally. It lags."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.mean: Tensor | None = None

    def keep(self, z: Tensor, t: float) -> None:
        self.mean = z if self.mean is None else torch.lerp(z, self.mean, self.beta)

    def at(self, t: float) -> Tensor:
        assert self.mean is not None
        return self.mean

    def tensors(self) -> list[Tensor]:
        return [] if self.mean is None else [self.mean]


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

    def tensors(self) -> list[Tensor]:
        last = [] if self.last is None else [self.last[0]]
        return last if self.slope is None else [*last, self.slope]


class Taylor:
    """Newton's divided differences over the real gaps: the polynomial through the last order + 1 full steps."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.known: list[tuple[Tensor, float]] = []

    def keep(self, z: Tensor, t: float) -> None:
        # a second-order scheduler evaluates one time twice: the newer value stands for both
        self.known = [*(one for one in self.known if one[1] != t), (z, t)][-self.order - 1 :]

    def at(self, t: float) -> Tensor:
        z = self.known[-1][0]
        weights = lagrange([known for _, known in self.known], t)
        if len(weights) == 1:
            return z
        if len(weights) == 2:
            # z1 + (t - t1) / (t1 - t0) (z1 - z0)
            return torch.lerp(self.known[0][0], z, weights[-1])
        out = z * weights[-1]
        for (older, _), weight in zip(self.known[:-1], weights[:-1], strict=True):
            out.add_(older, alpha=weight)
        return out

    def tensors(self) -> list[Tensor]:
        return [z for z, _ in self.known]


def lagrange(knots: list[float], t: float) -> list[float]:
    """The weights of the values at `knots` in their interpolating polynomial at t; they sum to 1."""
    weights = []
    for i, a in enumerate(knots):
        weight = 1.0
        for j, b in enumerate(knots):
            weight *= (t - b) / (a - b) if i != j else 1.0
        weights.append(weight)
    return weights


class Steered:
    """The line through the last two full steps, turned by what a calibrated step since then makes of it.

    F_hat = L(t) + (t - t_n) / (t_c - t_n) news, with news = trust (F_c - L(t_c)) of the last calibrated step. A full
    step ends what was heard: beside an exact value an approximate one nearby would give a wild slope.

    Args:
        trust: the share of what a calibrated step finds beyond the line that is believed.
    """

    def __init__(self, trust: float) -> None:
        self.trust = trust
        self.line = Taylor(1)
        self.news: tuple[Tensor, float] | None = None

    def keep(self, z: Tensor, t: float) -> None:
        self.line.keep(z, t)
        self.news = None

    def hear(self, z: Tensor, t: float) -> None:
        """A calibrated step has come to z."""
        self.news = ((z - self.line.at(t)) * self.trust, t)

    def at(self, t: float) -> Tensor:
        z = self.line.at(t)
        if self.news is None:
            return z
        news, when = self.news
        last = self.line.known[-1][1]
        return z + news * ((t - last) / (when - last))

    def tensors(self) -> list[Tensor]:
        return self.line.tensors() + ([] if self.news is None else [self.news[0]])


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

    def tensors(self) -> list[Tensor]:
        return [self.feature, self.inside, *self.inner.tensors()]


class Fitted:
    """Newton's forecast with gains that were tuned on the final latent, one row for each full step.

    F_hat = F_n + P (g0 a1 + g1 a2) + (1 - P) (g2 a1 + g3 a2): a1 is the first-order change, a2 what the second order
    adds to it, P projects on the principal directions (all of them where `basis` is None). Gains (1, 0, 1, 0) are
    the plain first order.

    Args:
        gains_K4: a row per full step; the last row serves any further ones.
        basis: V (D, R) or None.
    """

    def __init__(self, gains_K4: Tensor, basis: Tensor | None) -> None:
        self.gains, self.basis = gains_K4.tolist(), basis
        self.known: list[tuple[Tensor, float]] = []
        self.count = 0

    def keep(self, z: Tensor, t: float) -> None:
        self.basis = None if self.basis is None else self.basis.to(z)
        self.known = [*(one for one in self.known if one[1] != t), (z, t)][-3:]
        self.count += 1

    def at(self, t: float) -> Tensor:
        row = self.gains[min(self.count, len(self.gains)) - 1]
        z = self.known[-1][0]
        if len(self.known) == 1:
            return z
        if self.basis is None:
            return self._mix(t, 1.0, row[0], row[1])
        principal = self._mix(t, 0.0, row[0] - row[2], row[1] - row[3]) @ self.basis
        return self._mix(t, 1.0, row[2], row[3]) + principal @ self.basis.mT

    def _mix(self, t: float, value: float, first: float, second: float) -> Tensor:
        """value z_n + first a1 + second a2, as one weighted sum of the values at the last full steps."""
        knots = [when for _, when in self.known]
        linear = [0.0] * (len(knots) - 2) + lagrange(knots[-2:], t)
        curved = lagrange(knots, t)
        weights = [first * a + second * (b - a) for a, b in zip(linear, curved, strict=True)]
        weights[-1] += value - first
        out = self.known[-1][0] * weights[-1]
        for (older, _), weight in zip(self.known[:-1], weights[:-1], strict=True):
            if weight:
                out.add_(older, alpha=weight)
        return out

    def tensors(self) -> list[Tensor]:
        return [z for z, _ in self.known]
