"""sparse: attention between the blocks of tokens that matter, chosen anew at every full step; nothing is trained.

p_ij = softmax_j (mean(Q_i) mean(K_j)^T / sqrt(D) + log |K_j|) says how much query block i looks at key block j (as in
SpargeAttn, arXiv 2502.18137). Each query block keeps the key blocks with the largest p; text tokens see and are seen
by everything. The kept blocks run on FlexAttention (arXiv 2412.05496), or on a masked product where there is no GPU.
How many blocks a head keeps is calibrated for a bound on pictures yet unseen (split conformal): half of the
calibration prompts say with how few blocks each head loses at most `tolerance` of its output, the other half by how
much that must be raised for all heads and calls of a picture at once. n pictures that vouch give n / (n + 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ditstack.plugin import Attention, BadPipeline

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.maths.blocksparse import Kept
    from ditstack.maths.conformal import Bound
    from ditstack.plugin import Calibration, Call, Declined, Pipe, SparseKernel

TOLERANCE = 0.05

# B batch, H heads, N blocks of tokens


class Sparse(Attention):
    """Give `keep`, `mass` or `tolerance`, or the window pattern; with none of them `tolerance` is 0.05."""

    neutral: ClassVar[dict[str, Any] | None] = {"keep": 1.0}
    trial: ClassVar[dict[str, Any]] = {"keep": 0.5, "block_size": 4}
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"calibrate"})

    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the key blocks without text that every query block keeps."""
    mass: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of attention that the kept key blocks hold, by the estimate p."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    """What each head may lose of its output in any call of an unseen picture, relative; `ditstack calibrate` finds what
    it must keep for that, and says with what probability it holds."""
    pattern: Literal["scores", "window"] = "scores"
    """`window` is for video: tokens see the frames near their own, whatever the scores."""
    frames: Annotated[int, Field(ge=0)] | None = None
    """How many frames of latents before and after its own a token sees."""
    block_size: Annotated[int, Field(ge=4, multiple_of=4)] | None = None
    """Tokens in a block, on a GPU a multiple of 16; None takes 128 on a GPU and 16 elsewhere."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where factors are missing or stale: fit them now, or refuse."""

    @model_validator(mode="after")
    def _one_rule(self) -> Sparse:
        rules = [name for name in ("keep", "mass", "tolerance", "frames") if getattr(self, name) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} each say what is kept; give one of them")
        if (self.pattern == "window") != (self.frames is not None):
            raise ValueError("`pattern: window` and `frames` go together")
        return self

    @property
    def wants_factors(self) -> bool:
        """A tolerance of 0 leaves nothing to find out."""
        return self.keep is None and self.mass is None and self.frames is None and self.tolerance != 0

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import SparseKernel, replace_attention

        if pipe.device.type == "cuda" and self.block_size is not None and self.block_size % 16:
            raise BadPipeline(f"attention.block_size: found {self.block_size}; on a GPU it must be a multiple of 16")
        replace_attention(pipe, "sparse", SparseKernel(pipe, self.choose, self.tokens), closed=True)

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        return [
            f"{site}: found the shape {tuple(one.shape)}; wanted a share from 0 to 1 for each head"
            for site, one in tensors.items()
            if one.ndim != 1 or not one.is_floating_point() or bool(((one < 0) | (one > 1)).any())
        ]

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """The share of key blocks that each head of each site keeps, (H,), bounded for pictures yet unseen."""
        import torch

        from ditstack.maths.conformal import bound

        allowed = TOLERANCE if self.tolerance is None else self.tolerance
        needs: dict[str, Tensor] = {}

        def run(places: range) -> None:
            with _thinning(pipe).measuring(allowed) as shares:
                calibration.uncached_latents(places)
            needs.update({f"{places[0]} {site}": share.cpu() for site, share in shares.items()})

        calibration.gather("needs", needs, run)
        needs.pop("done", None)
        sites = [key.partition(" ")[2] for key in needs if key.startswith("0 ")]
        if not sites:
            return {}
        each = [torch.cat([needs[f"{place} {site}"] for site in sites]) for place in range(len(calibration.prompts))]
        found = bound(torch.stack(each))
        self._say(found, allowed, calibration)
        widths = [len(needs[f"0 {site}"]) for site in sites]
        return dict(zip(sites, found.limits.split(widths), strict=True))

    def _say(self, found: Bound, allowed: float, calibration: Calibration) -> None:
        heads, dense = found.limits, int((found.limits == 1).sum())
        calibration.tell(
            f"attention sparse: heads keep {heads.mean():.0%} of the blocks on average, {dense} of {len(heads)} heads "
            f"keep all. For a new picture, no call of any head loses more than {allowed:g} with probability "
            f"{found.coverage:.0%}; that this holds for 90 % of pictures has a confidence of "
            f"{found.confidence(0.9):.0%}, from {found.witnesses} held-out pictures"
        )

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        spare = {site: share for site, share in tensors.items() if (share < 1).any()}
        _thinning(pipe).shares = {site: share.to(pipe.device) for site, share in spare.items()}

    def tokens(self, q: Tensor) -> int:
        """How many tokens are in a block."""
        return self.block_size or (128 if q.is_cuda else 16)

    def choose(self, q: Tensor, k: Tensor, call: Call, share: Tensor | None) -> Kept | Declined:
        """Which blocks are kept for these queries and keys.

        Args:
            share: of the key blocks without text, what each head keeps, (H,), where that was calibrated.
        """
        from ditstack.maths.blocksparse import Kept, near_frames, text_blocks
        from ditstack.plugin import Declined

        tokens, size = q.shape[-2], self.tokens(q)
        text = text_blocks(call.text, tokens, size, q.device)
        if self.keep == 1 or self.mass == 1 or self.tolerance == 0:
            return Declined("every block is kept")
        if self.wants_factors and share is None:
            return Declined("none of their heads can skip a block")
        if self.frames is None:
            kept = self._largest(q, k, call, size, text, share)
        else:
            near = near_frames(call.text, tokens, size, call.frames, self.frames)
            if near is None:
                return Declined("their tokens are not whole frames of a video")
            kept = near.to(q.device).expand(*q.shape[:2], -1, -1)
        keys = None if call.keys is None else call.keys.expand(len(q), -1, -1)
        return Kept(kept | text | text.unsqueeze(-1), size, tokens, keys)

    def _largest(self, q: Tensor, k: Tensor, call: Call, size: int, text: Tensor, share: Tensor | None) -> Tensor:
        from ditstack.maths.blocksparse import block_mass, key_order

        p = block_mass(q, k, call.scale, size, call.keys)
        order = key_order(p, text)
        if self.mass is not None:
            sorted_p = p.gather(-1, order)
            first = sorted_p.cumsum(-1) - sorted_p < self.mass
        else:
            place = order.new_ones(order.shape[-1]).cumsum(0) - 1
            most = self.keep if share is None else share[:, None, None]
            assert most is not None
            first = (place < text.sum() + most * (~text).sum()).expand_as(order)
        return first.scatter(-1, order, first)


def _thinning(pipe: Pipe) -> SparseKernel:
    from ditstack.plugin import SparseKernel

    assert pipe.attention is not None
    assert isinstance(pipe.attention.kernel, SparseKernel)
    return pipe.attention.kernel
