"""MagCache (arXiv 2506.09045) as diffusers has it: known ratios of residual magnitudes say which steps to skip.

Skip while sum over skipped steps of |1 - prod gamma| <= threshold, gamma_t = |R_t| / |R_(t-1)| measured beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.plugin import BadPipeline

from ._diffusers import Thresholded

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class MagCache(Thresholded):
    """The ratios belong to a checkpoint; diffusers knows those of FLUX.1."""

    neutral: ClassVar[dict[str, Any] | None] = {"max_skip": 0}

    threshold: Annotated[float, Field(ge=0)] = 0.06
    """The error, summed over skipped steps, up to which steps are skipped."""
    max_skip: Annotated[int, Field(ge=0)] = 3
    """The largest number of steps skipped in a row."""
    retention: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The share of first steps that are full."""
    ratios: Annotated[tuple[float, ...], Field(strict=False, min_length=2)] | None = None
    """One for each step of some generation; stretched to others."""

    def apply(self, pipe: Pipe) -> None:
        import torch
        from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS, MagCacheConfig, nearest_interp

        from ditstack.plugin import DiffusersCache

        (kind,) = {type(one).__name__ for one in pipe.transformers.values()}
        if len(pipe.transformers) > 1:
            raise BadPipeline("magcache counts the steps of one transformer; this pipeline has two")
        if self.ratios is None and kind != "FluxTransformer2DModel":
            raise BadPipeline(f"magcache.ratios: missing; diffusers knows none for a {kind}")
        ratios = FLUX_MAG_RATIOS if self.ratios is None else torch.tensor(self.ratios)
        config = MagCacheConfig(self.threshold, self.max_skip, self.retention, len(ratios), ratios)

        def stretch() -> None:
            if pipe.clock.running:
                config.num_inference_steps = pipe.clock.total
                config.mag_ratios = nearest_interp(ratios, pipe.clock.total)

        DiffusersCache(pipe, "magcache", lambda stage, transformer: config)
        pipe.clock.on_edge.append(stretch)
