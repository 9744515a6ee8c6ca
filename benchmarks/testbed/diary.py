"""Diary: what a training run prints now and then, and when it is to save."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise

import torch
from torch import Tensor


class Diary:
    """Prints a line now and then: counts, speed, learning rate, loss by noise level.

    Args:
        save_every: seconds.
        processes: that train together; this one sees its own samples alone.
    """

    def __init__(self, save_every: float, processes: int = 1) -> None:
        self.save_every, self.processes = save_every, processes
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.written = self.saved = time.monotonic()

    def add(self, t_B: Tensor, loss_B: Tensor) -> None:
        """One step's noise levels and losses."""
        self.seen.append((t_B, loss_B))

    def due(self) -> bool:
        """Whether it is time to save; asking counts as saving."""
        if time.monotonic() - self.saved < self.save_every:
            return False
        self.saved = time.monotonic()
        return True

    def write(self, steps: int, samples: int, factor: float) -> None:
        """Prints and forgets."""
        t, each = (torch.cat(part) for part in zip(*self.seen, strict=True))
        speed = len(each) * self.processes / (time.monotonic() - self.written)
        edges = (0.0, 0.3, 0.6, 0.85, 1.01)
        parts = [each[(t >= low) & (t < high)].mean() for low, high in pairwise(edges)]
        print(
            f"{datetime.now(UTC):%H:%M:%S} step {steps} samples {samples} {speed:.0f}/s rate {factor:.2f}"
            f" loss {each.mean():.4f} by noise {' '.join(f'{part:.4f}' for part in parts)}",
            flush=True,
        )
        self.seen.clear()
        self.written = time.monotonic()
