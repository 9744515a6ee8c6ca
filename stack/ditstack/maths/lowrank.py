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
    values, vectors = _descending(gram_DD)
    if rank is not None:
        return vectors[..., :rank]
    ranks = energy_rank(values, energy or 1.0)
    widest = int(ranks.max())
    keep = torch.arange(widest, device=ranks.device) < ranks.unsqueeze(-1)
    return vectors[..., :widest] * keep.unsqueeze(-2)


WIDE, TURNS, SPARE = 1024, 3, 16
"""From this width on `leading` follows directions; turns of its iteration; how many it follows beyond those asked."""


def leading(gram_BDD: Tensor, rank: int | None = None, energy: float | None = None) -> Tensor:
    """`principal` for one generation, where a whole eigendecomposition of a wide matrix would cost more than steps do.

    Block power iteration with Rayleigh-Ritz (Halko et al., arXiv 0909.4061), item by item: products and thin QRs. For
    an energy twice as many directions are followed until they hold it; past a quarter of the width all are.
    """
    if gram_BDD.shape[-1] < WIDE or (rank or 0) > gram_BDD.shape[-1] // 4:
        return principal(gram_BDD, rank, energy)
    found = [_leading(one, rank, energy) for one in gram_BDD]
    widest = max(one.shape[-1] for one in found)
    return torch.stack([torch.nn.functional.pad(one, (0, widest - one.shape[-1])) for one in found])


def _leading(gram_DD: Tensor, rank: int | None, energy: float | None) -> Tensor:
    width, follow = len(gram_DD), (rank or 48) + SPARE
    generator = torch.Generator(gram_DD.device).manual_seed(0)
    while follow <= width // 4 + SPARE:
        q_DR = torch.randn(width, follow, device=gram_DD.device, dtype=gram_DD.dtype, generator=generator)
        for _ in range(TURNS):
            q_DR = torch.linalg.qr(gram_DD @ q_DR).Q
        values, inner = _descending(q_DR.mT @ gram_DD @ q_DR)
        if rank is not None:
            return q_DR @ inner[:, :rank]
        enough = values.cumsum(-1) >= (energy or 1.0) * gram_DD.diagonal().sum()
        if (first := int((~enough).sum())) < follow:
            return q_DR @ inner[:, : first + 1]
        follow *= 2
    return principal(gram_DD, rank, energy)


def energy_rank(values: Tensor, energy: float) -> Tensor:
    """The smallest k with sum(values[:k]) >= energy * sum(values); values descend along the last axis."""
    shares = values.cumsum(-1) / values.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return (shares < energy).sum(-1).clamp(max=values.shape[-1] - 1) + 1


@dataclass(frozen=True)
class LowRank:
    """A (O, R) and B (R, I) of a linear map of rank R; the components' share of what is fitted, strongest first.

    What is fitted decides the unit of `energy`; under an output metric it is the same for every linear.
    """

    up: Tensor
    down: Tensor
    energy: Tensor

    def cut(self, rank: int) -> LowRank:
        return LowRank(self.up[:, :rank], self.down[:rank], self.energy[:rank])

    def stored(self, dtype: torch.dtype) -> LowRank:
        """A copy of A and B on the CPU, as factors are kept; the energy stays as it is."""
        up, down = (one.to(dtype).contiguous().cpu() for one in (self.up, self.down))
        return LowRank(up, down, self.energy)


def truncate(weight_OI: Tensor, left_O: Tensor | None = None, right_I: Tensor | None = None) -> LowRank:
    """The singular components of S_o W S_i, with the scales taken out again (ICC, arXiv 2505.05829)."""
    left = torch.ones(weight_OI.shape[0]).to(weight_OI) if left_O is None else left_O.to(weight_OI)
    right = torch.ones(weight_OI.shape[1]).to(weight_OI) if right_I is None else right_I.to(weight_OI)
    scaled = left[:, None] * weight_OI * right
    # S_o W S_i = M = U S V^T; M M^T = U S^2 U^T and M^T M = V S^2 V^T, of which the smaller is decomposed
    if scaled.shape[0] <= scaled.shape[1]:
        energy, u = _descending(scaled @ scaled.mT)
        return LowRank(u / left[:, None], u.mT @ scaled / right, energy)
    energy, v = _descending(scaled.mT @ scaled)
    return LowRank(scaled @ v / left[:, None], v.mT / right, energy)


def channel_scale(activity_NC: Tensor) -> Tensor:
    """ICC's scale of each channel, from a mean |z| or |dz| per sample and channel.

    Min-max over channels for each sample, mean over samples, power 0.5, no smaller than a thousandth of the largest.
    """
    low, high = activity_NC.amin(1, keepdim=True), activity_NC.amax(1, keepdim=True)
    shares = (activity_NC - low) / (high - low).clamp_min(torch.finfo(activity_NC.dtype).tiny)
    scale = shares.mean(0).sqrt()
    return scale.clamp_min(scale.max() / 1000) if scale.max() > 0 else torch.ones_like(scale)


def regress(weight_OI: Tensor, gram: Tensor, metric: Tensor | None = None) -> LowRank:
    """Reduced-rank regression: the rank-R maps M that minimise E |H (W dx - M dx)|^2, for every R at once.

    Args:
        gram: E[dx dx^T] (I, I), or E[dy dy^T] (O, O) with dy = W dx: whichever is smaller.
        metric: H^T H, as a matrix (O, O) or its diagonal (O,); None is the identity.
    """
    h = _metric_root(metric, weight_OI)
    weighted, gram = h @ weight_OI, gram.to(weight_OI)
    height, width = weight_OI.shape
    if gram.shape[0] != width:
        # H E[dy dy^T] H^T = U S U^T
        energy, u = _descending(h @ gram @ h.mT)
    elif height <= width:
        # H W E[dx dx^T] W^T H^T = U S U^T
        energy, u = _descending(weighted @ gram @ weighted.mT + _ridge(gram) * weighted @ weighted.mT)
    else:
        # H W L = M = U S V^T with L L^T = E[dx dx^T]; U spans M V, column by column
        seen = weighted @ _root(gram)
        energy, v = _descending(seen.mT @ seen)
        u = torch.linalg.qr(seen @ v).Q
    # A = H^-1 U, B = U^T H W
    return LowRank(torch.linalg.solve_triangular(h, u, upper=True), u.mT @ weighted, energy)


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


def _descending(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, none negative, and eigenvectors of a symmetric matrix, the largest first."""
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(-1).clamp_min(0), vectors.flip(-1)


def _ridge(gram: Tensor, share: float = 1e-9) -> Tensor:
    """A small number beside the eigenvalues of a Gram matrix, so that directions never seen keep an order."""
    return share * gram.diagonal().mean().clamp_min(1e-30)


def _root(gram: Tensor) -> Tensor:
    """L with L L^T the Gram matrix, ridged once rounding has left no eigenvalue negative."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * (values.clamp_min(0) + _ridge(gram)).sqrt()


def _metric_root(metric: Tensor | None, like: Tensor, ridge: float = 1e-3) -> Tensor:
    """H, upper triangular. The ridge keeps what a few samples call insensitive from being given up."""
    one = torch.eye(len(like)).to(like)
    if metric is None or not metric.any():
        return one
    full = metric.to(like).diag() if metric.ndim == 1 else metric.to(like)
    return torch.linalg.cholesky(full + ridge * full.diagonal().mean() * one).mT
