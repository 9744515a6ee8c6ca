"""sparse: attention between the blocks of tokens that matter, chosen anew at every full step; nothing is trained.

p_ij = softmax_j (mean(Q_i) mean(K_j)^T / sqrt(D) + log |K_j|) says how much query block i looks at key block j (as in
SpargeAttn, arXiv 2502.18137). Each query block keeps the key blocks with the largest p; text tokens see and are seen
by everything. The kept blocks run on FlexAttention (arXiv 2412.05496), or on a masked product where there is no GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ditstack.adapter import Attention
from ditstack.errors import BadPipeline

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.attention import Call, Declined
    from ditstack.blocksparse import Kept
    from ditstack.pipe import Pipe

SAMPLED = 16
"""Query blocks on which a head's loss is measured."""
TOLERANCE = 0.05

# B batch, H heads, N blocks of tokens


class Sparse(Attention):
    """Give `keep`, `mass` or `tolerance`, or the window pattern; with none of them `tolerance` is 0.05."""

    neutral: ClassVar[dict[str, Any] | None] = {"keep": 1.0}
    trial: ClassVar[dict[str, Any]] = {"keep": 0.5, "block_size": 4}

    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the key blocks without text that every query block keeps."""
    mass: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of attention that the kept key blocks hold, by the estimate p."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    """What each head may lose of its output, relative, as measured at every full step; it keeps blocks accordingly."""
    pattern: Literal["scores", "window"] = "scores"
    """`window` is for video: tokens see the frames near their own, whatever the scores."""
    frames: Annotated[int, Field(ge=0)] | None = None
    """How many frames of latents before and after its own a token sees."""
    block_size: Annotated[int, Field(ge=4, multiple_of=4)] | None = None
    """Tokens in a block, on a GPU a multiple of 16; None takes 128 on a GPU and 16 elsewhere."""

    @model_validator(mode="after")
    def _one_rule(self) -> Sparse:
        rules = [name for name in ("keep", "mass", "tolerance", "frames") if getattr(self, name) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} each say what is kept; give one of them")
        if (self.pattern == "window") != (self.frames is not None):
            raise ValueError("`pattern: window` and `frames` go together")
        return self

    def apply(self, pipe: Pipe) -> None:
        import torch

        from ditstack.attention import replace_attention

        if pipe.device.type == "cuda" and self.block_size is not None and self.block_size % 16:
            raise BadPipeline(f"attention.block_size: found {self.block_size}; on a GPU it must be a multiple of 16")
        attend = _Attend(self, pipe)
        pipe.clock.on_edge.append(attend.kept.clear)
        kernel: Any = torch.compiler.disable(attend)
        replace_attention(pipe, "sparse", kernel)

    @property
    def whole(self) -> bool:
        """Whether everything is kept, whatever the scores."""
        return self.keep == 1 or self.mass == 1 or self.tolerance == 0

    def choose(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Kept | Declined:
        """Which blocks are kept for these queries and keys."""
        from ditstack.attention import Declined
        from ditstack.blocksparse import Kept, near_frames, text_blocks

        tokens, size = q.shape[-2], self.block_size or (128 if q.is_cuda else 16)
        text = text_blocks(call.text, tokens, size, q.device)
        if self.frames is None:
            kept = self._largest(q, k, v, call, size, text)
        else:
            near = near_frames(call.text, tokens, size, call.frames, self.frames)
            if near is None:
                return Declined("their tokens are no whole frames of a video")
            kept = near.to(q.device).expand(*q.shape[:2], -1, -1)
        keys = None if call.keys is None else call.keys.expand(len(q), -1, -1)
        return Kept(kept | text | text.unsqueeze(-1), size, tokens, keys)

    def _largest(self, q: Tensor, k: Tensor, v: Tensor, call: Call, size: int, text: Tensor) -> Tensor:
        from ditstack.blocksparse import block_mass

        p = block_mass(q, k, call.scale, size, call.keys)
        order = p.masked_fill(text, 2.0).argsort(dim=-1, descending=True)
        if self.mass is not None:
            sorted_p = p.gather(-1, order)
            first = sorted_p.cumsum(-1) - sorted_p < self.mass
        else:
            share = self.measure_keep(q, k, v, call, size, order, text) if self.keep is None else self.keep
            place = order.new_ones(order.shape[-1]).cumsum(0) - 1
            first = (place < text.sum() + share * (~text).sum()).expand_as(order)
        return first.scatter(-1, order, first)

    def measure_keep(
        self, q: Tensor, k: Tensor, v: Tensor, call: Call, size: int, order: Tensor, text: Tensor
    ) -> Tensor:
        """The smallest `keep` with which a head loses at most `tolerance` of its output: (B, H, 1, 1).

        Args:
            order: the key blocks of every query block, text first, then most wanted first: (B, H, N, N).
            text: which blocks hold text: (N,).
        """
        from ditstack.blocksparse import losses, spread

        rows = spread((~text).nonzero().flatten().tolist(), SAMPLED)
        lost = losses(q, k, v, call.scale, size, order, rows, call.keys)
        allowed = TOLERANCE if self.tolerance is None else self.tolerance
        enough = (lost > allowed).int().argmin(-1) + 1 - text.sum()
        return (enough.clamp_min(0) / (~text).sum().clamp_min(1))[..., None, None]


@dataclass
class _Attend:
    """The kernel of one pipe, with what is kept at each site and guidance branch of this generation."""

    adapter: Sparse
    pipe: Pipe
    kept: dict[Any, Kept] = field(default_factory=dict)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor | Declined:
        from torch.nn.functional import scaled_dot_product_attention

        from ditstack.attention import Declined
        from ditstack.blocksparse import attend

        if (reason := refusal(q, k, call)) is not None:
            return Declined(reason)
        if self.adapter.whole:
            return scaled_dot_product_attention(q, k, v, attn_mask=call.mask, scale=call.scale)
        kept = self._now(q, k, v, call)
        if isinstance(kept, Declined):
            return kept
        call.share = kept.kept.float().mean()
        return attend(q, k, v, kept, call.scale)

    def _now(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Kept | Declined:
        """Chosen anew on full steps, and as on the last full one between them."""
        from ditstack.attention import Declined
        from ditstack.pipe import FULL, OFF

        key = (call.site.name, self.pipe.clock.branch, q.shape)
        if self.pipe.kind not in (FULL, OFF) and key in self.kept:
            return self.kept[key]
        kept = self.adapter.choose(q, k, v, call)
        if not isinstance(kept, Declined):
            self.kept[key] = kept
        return kept


def refusal(q: Tensor, k: Tensor, call: Call) -> str | None:
    """Why a call stays dense."""
    if q.shape[-2] != k.shape[-2]:
        return "they look across to other tokens, such as text"
    if call.causal:
        return "they are causal"
    if call.mask is not None and call.keys is None:
        return "they carry a mask between single tokens"
    return None
