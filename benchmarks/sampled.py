"""What a stack makes of many prompts, in batches, with seeds that count up."""

from __future__ import annotations

import torch
from torch import Tensor

from ditstack.stack import Stack

BATCH = 16


def sampled(stack: Stack, prompts: list[str], first_seed: int = 1000) -> tuple[Tensor, Tensor]:
    """Pictures and final latents of every prompt."""
    made = []
    for at in range(0, len(prompts), BATCH):
        part = prompts[at : at + BATCH]
        made.append(stack.sample(part, [first_seed + at + place for place in range(len(part))]))
    return torch.cat([one.images for one in made]), torch.cat([one.latents for one in made])
