"""Block-sparse attention: which blocks of keys a block of queries needs, what a head loses, and the product itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

SAMPLED = 64
"""Query blocks on which a head's loss is measured, at most."""

# B batch, H heads, T tokens, D width of a head, N blocks of tokens, S tokens in a block
# keys: which keys exist at all, (B, 1, T), or None for all


@dataclass
class Kept:
    """Which blocks of keys each block of queries sees: kept is (B, H, N, N); size is the tokens in a block."""

    kept: Tensor
    size: int
    tokens: int
    keys: Tensor | None = None

    @cached_property
    def block_mask(self) -> Any:
        """For FlexAttention: the blocks that must be looked at token by token, and those seen whole."""
        from torch.nn.attention.flex_attention import BlockMask

        kept, size, keys = self.kept, self.size, self.keys

        def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            # eager FlexAttention looks at nothing but this function, so it must say what the blocks say
            whole = kept[b, h, query // size, key // size]
            return whole if keys is None else whole & keys[b, 0, key]

        cut = torch.arange(kept.shape[-1], device=kept.device) >= self.tokens // size
        partial = kept & cut if keys is None else kept
        indices = [*_indices(partial), *_indices(kept & ~partial)]
        lengths = (self.tokens, self.tokens)
        return BlockMask.from_kv_blocks(*indices, BLOCK_SIZE=size, mask_mod=seen, seq_lengths=lengths)

    @property
    def seen(self) -> Tensor:
        """The same token by token: (B, H, T, T)."""
        rows = self.kept.repeat_interleave(self.size, -2)[..., : self.tokens, :]
        seen = rows.repeat_interleave(self.size, -1)[..., : self.tokens]
        return seen if self.keys is None else seen & self.keys.unsqueeze(1)


def _indices(kept_BHNN: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block sees, and their places, those first."""
    return kept_BHNN.sum(-1).int(), kept_BHNN.int().argsort(dim=-1, descending=True, stable=True).int()


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Kept, scale: float) -> Tensor:
    """Attention over the kept blocks: FlexAttention skips the others on a GPU; elsewhere they are masked."""
    if not q.is_cuda:
        return scaled_dot_product_attention(q, k, v, attn_mask=kept.seen, scale=scale)
    return compiled_flex()(q, k, v, block_mask=kept.block_mask, scale=scale)


@cache
def compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, fullgraph=True)


def block_mass(q: Tensor, k: Tensor, scale: float, size: int, keys: Tensor | None = None) -> Tensor:
    """How much each block of queries looks at each block of keys, estimated from their means: (B, H, N, N)."""
    every = torch.ones(1, 1, q.shape[-2], 1, device=q.device)
    q_mean, _ = _pooled(q, size, every)
    k_mean, weight = _pooled(k, size, every if keys is None else keys.unsqueeze(-1).float())
    # p_ij = softmax_j (mean(Q_i) mean(K_j)^T scale + log |K_j|)
    return (q_mean @ k_mean.mT * scale + weight.mT.log()).softmax(-1)


def _pooled(x_BHTD: Tensor, size: int, weight_BHT1: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean of each block of tokens, in fp32 (B, H, N, D), and its weight (B, H, N, 1)."""
    rest = (0, 0, 0, -x_BHTD.shape[-2] % size)
    total = pad(x_BHTD.float() * weight_BHT1, rest).unflatten(-2, (-1, size)).sum(-2)
    weight = pad(weight_BHT1, rest).unflatten(-2, (-1, size)).sum(-2)
    return total / weight.clamp_min(1), weight


def key_order(p_BHNN: Tensor, text_N: Tensor) -> Tensor:
    """The key blocks of every query block, text first, then those most looked at: (B, H, N, N)."""
    return p_BHNN.masked_fill(text_N, 2.0).argsort(dim=-1, descending=True)


def needed(
    q: Tensor, k: Tensor, v: Tensor, scale: float, size: int, text: Tensor, tolerance: float, keys: Tensor | None = None
) -> Tensor:
    """The smallest share of the key blocks without text with which a head loses at most `tolerance`: (B, H).

    Args:
        text: which blocks hold text: (N,).
        tolerance: of its output, relative; what text tokens see is whole and does not count.
    """
    order, rows = key_order(block_mass(q, k, scale, size, keys), text), (~text).nonzero().flatten().tolist()
    lost = losses(q, k, v, scale, size, order, spread(rows, SAMPLED), keys)
    # one more than the last count of blocks that are too few
    enough = (lost > tolerance).int().mul(torch.arange(1, lost.shape[-1] + 1, device=q.device)).amax(-1) + 1
    return (enough - text.sum()).clamp_min(0) / max(len(rows), 1)


def losses(
    q: Tensor, k: Tensor, v: Tensor, scale: float, size: int, order: Tensor, rows: Sequence[int],
    keys: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """What a head loses of its output, relative L2, with the first 1, 2, ... N key blocks of `order`: (B, H, N).

    Args:
        order: the key blocks of every query block, most wanted first, (B, H, N, N).
        rows: the query blocks on which it is measured.
    """
    error, whole = torch.zeros((), device=q.device), torch.zeros((), device=q.device)
    for block in rows:
        out = _partial_sums(q[..., block * size : (block + 1) * size, :], k, v, scale, size, order[..., block, :], keys)
        error = error + (out - out[..., -1:, :]).square().sum((-1, -3))
        whole = whole + out[..., -1, :].square().sum((-1, -2))
    return (error / whole.clamp_min(1e-30).unsqueeze(-1)).sqrt()


def _partial_sums(
    q: Tensor, k: Tensor, v: Tensor, scale: float, size: int, order_BHN: Tensor, keys: Tensor | None
) -> Tensor:
    """out_n = sum of p v over the first n blocks / sum of p over the first n blocks: (B, H, T, N, D)."""
    count, rest = order_BHN.shape[-1], -k.shape[-2] % size
    scores = q.float() @ k.float().mT * scale
    if keys is not None:
        scores = scores.masked_fill(~keys.unsqueeze(1), float("-inf"))
    p_BHTNS = pad((scores - scores.amax(-1, keepdim=True)).exp(), (0, rest)).unflatten(-1, (count, size))
    v_BHNSD = pad(v.float(), (0, 0, 0, rest)).unflatten(-2, (count, size))
    place = order_BHN.unsqueeze(-2).unsqueeze(-1)
    top = torch.einsum("bhtns,bhnsd->bhtnd", p_BHTNS, v_BHNSD).take_along_dim(place, -2).cumsum(-2)
    return top / p_BHTNS.sum(-1, keepdim=True).take_along_dim(place, -2).cumsum(-2).clamp_min(1e-30)


def spread(places: list[int], most: int) -> list[int]:
    """At most `most` of these, evenly."""
    step = max(len(places) / most, 1)
    return [places[int(index * step)] for index in range(min(most, len(places)))]


def text_blocks(text: tuple[int, int] | None, tokens: int, size: int, device: torch.device) -> Tensor:
    """Which blocks hold a text token: (N,)."""
    first, end = text or (0, 0)
    start = torch.arange(0, tokens, size, device=device)
    return (start < end) & (start + size > first)


def near_frames(text: tuple[int, int] | None, tokens: int, size: int, frames: int, reach: int) -> Tensor | None:
    """Which blocks hold tokens of frames at most `reach` apart: (N, N); None where the tokens are no whole frames."""
    first, end = text or (0, 0)
    each, rest = divmod(tokens - (end - first), frames)
    if frames < 2 or rest:
        return None
    start = torch.arange(0, tokens, size)
    ends = (start + size).clamp(max=tokens) - 1
    low, high = ((place - end * (place >= end)) // each for place in (start, ends))
    return (low.unsqueeze(-1) - reach <= high) & (low - reach <= high.unsqueeze(-1))
