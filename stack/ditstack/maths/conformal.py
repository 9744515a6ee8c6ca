"""Conformal bounds: what holds for the next picture, from pictures that were not used to say what should hold."""

from __future__ import annotations

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
