"""Low-rank mathematics: principal subspaces from Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor

# B batch, T tokens, D width, R rank


def gram(x_BTD: Tensor) -> Tensor:
    """x^T x of each item, in fp32: (B, T, D) -> (B, D, D)."""
    x = x_BTD.float()
    return x.mT @ x


def principal(gram_DD: Tensor, rank: int | None = None, energy: float | None = None) -> Tensor:
    """The principal directions of a Gram matrix, strongest first; leading dimensions are a batch.

    Args:
        gram_DD: (..., D, D), symmetric.
        rank: how many directions; or
        energy: as many, for each item, as hold this share of the energy (the others' columns are zero).

    Returns:
        (..., D, R) with orthonormal or zero columns.
    """
    values, vectors = torch.linalg.eigh(gram_DD)
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    if rank is not None:
        return vectors[..., :rank]
    ranks = energy_rank(values, energy or 1.0)
    widest = int(ranks.max())
    keep = torch.arange(widest, device=ranks.device) < ranks.unsqueeze(-1)
    return vectors[..., :widest] * keep.unsqueeze(-2)


def energy_rank(values: Tensor, energy: float) -> Tensor:
    """The smallest k with sum(values[:k]) >= energy * sum(values); values descend along the last axis."""
    shares = values.cumsum(-1) / values.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return (shares < energy).sum(-1).clamp(max=values.shape[-1] - 1) + 1
