"""Loss: how far pictures are from the converged ones, with a say for the worst of them."""

from __future__ import annotations

import torch
from torch import Tensor

TAIL = 0.25
"""What the worst quarter counts beside the mean."""
TINY = 1e-20


def loss_of(images: Tensor, aims: Tensor) -> Tensor:
    """The mean over items of the log of the squared distance, and of its worst quarter."""
    each = distances(images, aims).log()
    return each.mean() + TAIL * each.topk(_worst(len(each))).values.mean()


def distances(images: Tensor, aims: Tensor) -> Tensor:
    """(P,) the mean square of what an item's picture is off."""
    return (images.float() - aims.to(images.device)).square().flatten(1).mean(1) + TINY


def shares_of(distances: Tensor) -> Tensor:
    """(P,) what each item's logarithm counts in the loss."""
    count, worst = len(distances), _worst(len(distances))
    shares = torch.full((count,), 1 / count, dtype=torch.double)
    shares[distances.topk(worst).indices] += TAIL / worst
    return shares


def _worst(count: int) -> int:
    return max(1, count // 4)
