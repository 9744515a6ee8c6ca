"""Trajectory: where pictures stand on their way from noise, at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """Latents of P pictures on their way from noise.

    Attributes:
        times: (S,) timesteps from that of noise on; the last is 0, the picture's.
        along: (S - 1, P, ...) latents at all times but the last, in half precision.
        final: (P, ...) fp32.
    """

    times: Tensor
    along: Tensor
    final: Tensor

    def at(self, time: float, places: Sequence[int]) -> Tensor:
        """(B, ...) fp32 latents of some prompts at a timestep: a cubic through the four nearest that are kept."""
        if time <= 0:
            return self.final[places]
        times = self.times.tolist()
        low = max(place for place, one in enumerate(times) if one >= time or place == 0)
        start = min(max(low - 1, 0), max(len(times) - 4, 0))
        near = range(start, min(start + 4, len(times)))
        share = [
            prod((time - times[other]) / (times[place] - times[other]) for other in near if other != place)
            for place in near
        ]
        known = [self.final[places] if one == len(times) - 1 else self.along[one, places].float() for one in near]
        return sum((weight * one for weight, one in zip(share, known, strict=True)), torch.zeros(()))
