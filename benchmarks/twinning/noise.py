"""Noise of the models that predict it: 1000 steps of linearly growing variance, as DiT and PixArt have it."""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.flow import noise_levels

# B samples

KEPT = torch.cumprod(1 - torch.linspace(0.0001, 0.02, 1000), 0)  # share of the variance that is still the picture's
LEVELS = ((1 - KEPT).sqrt() / ((1 - KEPT).sqrt() + KEPT.sqrt())).contiguous()  # the same as a flow's noise level
LEAST = 0.02  # of the picture's variance, in a loss's weight
SPREAD = 0.3  # share of the samples whose step is drawn evenly


def timesteps(n: int) -> Tensor:
    """(B,) steps in 0 to 999: most by a flow's logit-normal noise levels, the others even."""
    by_level = torch.searchsorted(LEVELS, noise_levels(n)).clamp(max=999)
    return torch.where(torch.rand(n) < SPREAD, torch.randint(1000, (n,)), by_level)


def add_noise(z: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """`z` after that many steps of noise."""
    kept = KEPT[t_B].view(-1, *[1] * (z.ndim - 1))
    return kept.sqrt() * z + (1 - kept).sqrt() * noise


def denoising_error(said: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """(B,) mean squared error of the predicted noise, weighed as that of the velocity would be, but at most 50-fold.

    Unweighed, the steps near pure noise count for nothing, and there a picture's colours and places are decided.
    """
    return (said.float() - noise).square().flatten(1).mean(1) / (KEPT[t_B] + LEAST)
