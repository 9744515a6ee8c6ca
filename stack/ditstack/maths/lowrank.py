"""Low-rank mathematics: principal subspaces, truncated and regressed maps, and where rank pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# B batch, T tokens, D width, R rank; a linear's weight is (O, I), out and in


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


@dataclass(frozen=True)
class Pair:
    """A (O, R) and B (R, I) of a linear map of rank R; the components' share of what is fitted, strongest first.

    What is fitted decides the unit of `energy`; under an output metric it is the same for every linear.
    """

    up: Tensor
    down: Tensor
    energy: Tensor

    def cut(self, rank: int) -> Pair:
        return Pair(self.up[:, :rank], self.down[:rank], self.energy[:rank])

    def stored(self, dtype: torch.dtype) -> Pair:
        """A copy of A and B on the CPU, as factors are kept; the energy stays as it is."""
        up, down = (one.to(dtype).contiguous().cpu() for one in (self.up, self.down))
        return Pair(up, down, self.energy)


def truncate(weight_OI: Tensor, left_O: Tensor | None = None, right_I: Tensor | None = None) -> Pair:
    """The singular components of S_o W S_i, with the scales taken out again (ICC, arXiv 2505.05829)."""
    left = torch.ones(weight_OI.shape[0]).to(weight_OI) if left_O is None else left_O.to(weight_OI)
    right = torch.ones(weight_OI.shape[1]).to(weight_OI) if right_I is None else right_I.to(weight_OI)
    # S_o W S_i = U S V^T; A = S_o^-1 U S, B = V^T S_i^-1
    u, s, vt = torch.linalg.svd(left[:, None] * weight_OI * right, full_matrices=False)
    return Pair(u * s / left[:, None], vt / right, s.square())


def channel_scale(activity_NC: Tensor) -> Tensor:
    """ICC's scale of each channel, from a mean |z| or |dz| per sample and channel.

    Min-max over channels for each sample, mean over samples, power 0.5, no smaller than a thousandth of the largest.
    """
    low, high = activity_NC.amin(1, keepdim=True), activity_NC.amax(1, keepdim=True)
    shares = (activity_NC - low) / (high - low).clamp_min(torch.finfo(activity_NC.dtype).tiny)
    scale = shares.mean(0).sqrt()
    return scale.clamp_min(scale.max() / 1000) if scale.max() > 0 else torch.ones_like(scale)


def regress(weight_OI: Tensor, gram: Tensor, metric: Tensor | None = None) -> Pair:
    """Reduced-rank regression: the rank-R maps M that minimise E |H (W dx - M dx)|^2, for every R at once.

    Args:
        gram: E[dx dx^T] (I, I), or E[dy dy^T] (O, O) with dy = W dx: whichever is smaller.
        metric: H^T H, as a matrix (O, O) or its diagonal (O,); None is the identity.
    """
    h = _metric_root(metric, weight_OI)
    weighted = h @ weight_OI
    if gram.shape[0] == weight_OI.shape[1]:
        # H W L = U S V^T with L L^T = E[dx dx^T]
        u, s, _ = torch.linalg.svd(weighted @ _root(gram.to(weight_OI)), full_matrices=False)
        energy = s.square()
    else:
        # H E[dy dy^T] H^T = U S U^T
        energy, u = torch.linalg.eigh(h @ gram.to(weight_OI) @ h.mT)
        energy, u = energy.flip(-1).clamp_min(0), u.flip(-1)
    # A = H^-1 U, B = U^T H W
    return Pair(torch.linalg.solve_triangular(h, u, upper=True), u.mT @ weighted, energy)


def observed_map(weight_OI: Tensor, gram_II: Tensor, cross_OI: Tensor, ridge: float = 1e-4) -> Tensor:
    """The least-squares map from dx to dy where dy is not W dx exactly; W where nothing was seen.

    W + E[(dy - W dx) dx^T] (E[dx dx^T] + eps I)^-1
    """
    eps = ridge * gram_II.diagonal().mean().clamp_min(1e-30)
    ridged = gram_II + eps * torch.eye(len(gram_II)).to(gram_II)
    return weight_OI + torch.linalg.solve(ridged, (cross_OI - weight_OI @ gram_II).mT).mT


def allocate(
    energies: Mapping[str, Tensor], costs: Mapping[str, float], budget: float, within: float = 2.0
) -> dict[str, int]:
    """How many components each map keeps: all whose energy per cost is at least one mu, which spends the budget.

    Args:
        energies: of every map, strongest component first, all in one unit.
        costs: of one component.
        within: no rank is smaller than the even share of its width over this, or larger than the share times this.
    """
    widths = {name: len(all_of) for name, all_of in energies.items()}
    share = _even_share(widths, costs, budget)
    ranks = {name: min(width, int(share * width / within)) for name, width in widths.items()}
    most = largest_ranks(widths, costs, budget, within)
    spent = sum(ranks[name] * costs[name] for name in ranks)
    entries = sorted(
        (
            (float(energy) / costs[name], name)
            for name, all_of in energies.items()
            for energy in all_of[ranks[name] : most[name]]
        ),
        reverse=True,
    )
    for _, name in entries:
        if spent + costs[name] > budget:
            break
        spent += costs[name]
        ranks[name] += 1
    return ranks


def largest_ranks(
    widths: Mapping[str, int], costs: Mapping[str, float], budget: float, within: float = 2.0
) -> dict[str, int]:
    """The most components that `allocate` may give to each map, before any energy is known.

    Args:
        widths: how many components there are of every map.
    """
    share = _even_share(widths, costs, budget)
    return {name: min(width, round(share * width * within)) for name, width in widths.items()}


def _even_share(widths: Mapping[str, int], costs: Mapping[str, float], budget: float) -> float:
    """Of its components, what each map gets where all are treated alike."""
    return budget / sum(costs[name] * width for name, width in widths.items())


def _root(gram: Tensor, ridge: float = 1e-9) -> Tensor:
    """L with L L^T the Gram matrix and a small ridge, so that directions never seen keep an order."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * (values.clamp_min(0) + ridge * values.mean().clamp_min(1e-30)).sqrt()


def _metric_root(metric: Tensor | None, like: Tensor, ridge: float = 1e-3) -> Tensor:
    """H, upper triangular. The ridge keeps what a few samples call insensitive from being given up."""
    one = torch.eye(len(like)).to(like)
    if metric is None or not metric.any():
        return one
    full = metric.to(like).diag() if metric.ndim == 1 else metric.to(like)
    return torch.linalg.cholesky(full + ridge * full.diagonal().mean() * one).mT
