"""Sparse kernel: block-sparse attention at work on one pipe: what each site keeps, and what each head can spare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ditstack.attention.dispatch import Call, Declined
from ditstack.maths.blocksparse import Kept, attend, needed, text_blocks
from ditstack.pipeline.pipe import Pipe

Choose = Callable[[Tensor, Tensor, Call, "Tensor | None"], "Kept | Declined"]

# B batch, H heads, T tokens, D width of a head


class SparseKernel:
    """A kernel that keeps the blocks that `choose` names, chosen anew on full steps and held between them.

    Blocks are counted from the first token that is not text: the blocks of a picture are the same beside a prompt of
    any length.

    Attributes:
        size: how many tokens are in a block, for given queries.
        shares: by site, the share of key blocks without text that each head keeps, (H,), where that was calibrated.
    """

    thins = True

    def __init__(self, pipe: Pipe, choose: Choose, size: Callable[[Tensor], int]) -> None:
        self.pipe, self.choose, self.size = pipe, choose, size
        self.shares: dict[str, Tensor] = {}
        self._kept: dict[Any, Kept] = {}
        self._measure: Callable[[Tensor, Tensor, Tensor, Call], None] | None = None
        pipe.clock.on_edge.append(self._kept.clear)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        if (reason := refusal(call)) is not None:
            return Declined(reason)
        if not (before := leading_text(call, q.shape[-2], self.size(q))):
            return self._attended(q, k, v, call)
        last = text_last(call, q.shape[-2])
        out = self._attended(q.roll(-before, -2), k.roll(-before, -2), v.roll(-before, -2), last)
        call.share = last.share
        return out if isinstance(out, Declined) else out.roll(before, -2)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        if self._measure is not None:
            self._measure(q, k, v, call)
            return scaled_dot_product_attention(q, k, v, attn_mask=call.mask, scale=call.scale)
        kept = self._now(q, k, call)
        if isinstance(kept, Declined):
            return kept
        call.share = kept.kept.float().mean()
        return self.attend(q, k, v, kept, call)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kept: Kept, call: Call) -> Tensor:
        return attend(q, k, v, kept, call.scale)

    def _now(self, q: Tensor, k: Tensor, call: Call) -> Kept | Declined:
        key = (call.site.name, self.pipe.clock.branch, q.shape)
        if self.pipe.passes.rests and key in self._kept:
            return self._kept[key]
        kept = self.choose(q, k, call, self.shares.get(call.site.name))
        if not isinstance(kept, Declined):
            self._kept[key] = kept
        return kept

    @contextmanager
    def measuring(self, tolerance: float) -> Iterator[dict[str, Tensor]]:
        """Inside, attention is dense, and what each head needs is noted: by site, the largest share seen, (H,).

        Args:
            tolerance: what a head may lose of its output, relative.
        """
        found: dict[str, Tensor] = {}

        def measure(q: Tensor, k: Tensor, v: Tensor, call: Call) -> None:
            size = self.size(q)
            text = text_blocks(call.text, q.shape[-2], size, q.device)
            share = needed(q, k, v, call.scale, size, text, tolerance, call.keys).amax(0)
            found[call.site.name] = torch.maximum(found.get(call.site.name, share), share)

        self._measure = measure
        try:
            yield found
        finally:
            self._measure = None

    @contextmanager
    def watching(self) -> Iterator[dict[str, Tensor]]:
        """Inside, attention is as sparse as ever, and what each head loses is noted: by site, each call's (B, H)."""
        found: dict[str, Tensor] = {}
        kernel = self.attend

        def attend_and_note(q: Tensor, k: Tensor, v: Tensor, kept: Kept, call: Call) -> Tensor:
            out = kernel(q, k, v, kept, call)
            dense = scaled_dot_product_attention(q, k, v, attn_mask=call.mask, scale=call.scale)
            first, end = call.text or (0, 0)
            rows = torch.ones(q.shape[-2], dtype=torch.bool, device=q.device)
            rows[first:end] = False
            lost = (out - dense)[..., rows, :].float().flatten(2).norm(dim=2)
            share = lost / dense[..., rows, :].float().flatten(2).norm(dim=2).clamp_min(1e-30)
            found[call.site.name] = torch.cat([found.get(call.site.name, share[:0]), share])
            return out

        self.attend = attend_and_note
        try:
            yield found
        finally:
            self.attend = kernel


def leading_text(call: Call, tokens: int, size: int) -> int:
    """How many text tokens come first; 0 also where blocks of `size` begin anew behind them."""
    first, end = call.text or (0, 0)
    return end if first == 0 and end < tokens and (end % size or (tokens - end) % size) else 0


def text_last(call: Call, tokens: int) -> Call:
    """The same call of tokens in another order: the text that came first comes last."""
    assert call.text is not None
    before = call.text[1]
    mask = None if call.mask is None else call.mask.expand(*call.mask.shape[:-1], tokens).roll(-before, -1)
    return replace(call, mask=mask, text=(tokens - before, tokens))


def refusal(call: Call) -> str | None:
    """Why a call stays dense."""
    if call.across:
        return "they look across to other tokens, such as text"
    if call.causal:
        return "they are causal"
    if call.mask is not None and call.keys is None:
        return "they carry a mask between single tokens"
    return None
