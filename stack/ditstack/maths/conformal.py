"""Conformal bounds: what holds for the next picture, from pictures that were not used to say what should hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# N pictures of calibration, H needs of each picture


@dataclass(frozen=True)
class Bound:
    """Limits that a further picture's needs keep, all of them at once.

    Attributes:
        limits: (H,).
        witnesses: the pictures that vouch for them, exchangeable with a further one.
    """

    limits: Tensor
    witnesses: int

    @property
    def coverage(self) -> float:
        """How probable it is that a further picture keeps every limit: it is as likely as any to be the worst."""
        return self.witnesses / (self.witnesses + 1)

    def confidence(self, share: float) -> float:
        """How sure it is that at least this share of all pictures keeps every limit."""
        return 1 - share**self.witnesses


def bound(needs_NH: Tensor, most: float = 1.0) -> Bound:
    """Split conformal: one half of the pictures says how needs differ, the other by how much that is to be raised.

    limit_h = max_first need_h + max_second max_h (need_h - max_first need_h)

    Args:
        most: no limit is higher, since no need can be.
    """
    first = max(1, len(needs_NH) // 2)
    shape, rest = needs_NH[:first].amax(0), needs_NH[first:]
    margin = (rest - shape).amax().clamp_min(0) if len(rest) else torch.tensor(float("inf"))
    return Bound((shape + margin).clamp_max(most), len(rest))


def chance(broken: int, pictures: int, share: float) -> float:
    """How probable it is that so few of `pictures` are broken where only `share` of all are whole: a p-value.

    P(Binomial(n, 1 - share) <= broken), which is what learn-then-test (arXiv 2110.01052) asks of a 0-1 loss.
    """
    if share <= 0:
        return float(broken >= pictures)
    terms = (
        math.lgamma(pictures + 1) - math.lgamma(one + 1) - math.lgamma(pictures - one + 1)
        + one * math.log1p(-share) + (pictures - one) * math.log(share)
        for one in range(min(broken, pictures) + 1)
    ) if share < 1 else iter((0.0,))  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, terms)))


def most_broken(pictures: int, share: float, confidence: float) -> int:
    """How many of `pictures` may be broken and still prove that `share` of all are whole; -1 where none proves it."""
    broken = -1
    while broken + 1 < pictures and chance(broken + 1, pictures, share) <= 1 - confidence:
        broken += 1
    return broken


def pictures_for(share: float, confidence: float, broken: int = 0) -> int:
    """The fewest pictures that prove a share where so many of them are broken."""
    pictures = broken + 1
    while chance(broken, pictures, share) > 1 - confidence:
        pictures += 1
    return pictures


def proved(broken: int, pictures: int, confidence: float) -> float:
    """The largest share that the pictures prove: the lower end of Clopper and Pearson's one-sided interval."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(broken, pictures, middle) <= 1 - confidence else (low, middle)
    return low if broken < pictures else 0.0


def unlike(some: Sequence[float], others: Sequence[float]) -> float:
    """How probable it is that two samples of one distribution differ as much: Kolmogorov and Smirnov's p-value.

    The largest distance d of the two distribution functions, with n the harmonic half of the sizes:
    p = 2 sum_k (-1)^(k-1) exp(-2 k^2 x^2), x = (sqrt(n) + .12 + .11 / sqrt(n)) d   (Stephens 1970)
    """
    a, b = torch.tensor(some).double().sort().values, torch.tensor(others).double().sort().values
    at = torch.cat([a, b])
    d = float(
        (torch.searchsorted(a, at, right=True) / len(a) - torch.searchsorted(b, at, right=True) / len(b)).abs().max()
    )
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    x = (root + 0.12 + 0.11 / root) * d
    if x < 0.3:
        return 1.0
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))))
