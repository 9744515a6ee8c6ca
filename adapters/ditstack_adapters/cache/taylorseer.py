"""TaylorSeer (arXiv 2503.06923) as diffusers has it: outputs of attention are extrapolated by a Taylor series in steps.

F_hat(s + k) = sum over i of (Delta^i F / N^i) k^i / i!
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.plugin import Cache, Capability, Knob, Trunk

if TYPE_CHECKING:
    import torch

    from ditstack.plugin import Pipe


class TaylorSeer(Cache):
    """MLPs, norms and residual streams stay fresh; `lite` skips whole blocks and extrapolates the model's output."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}

    interval: Annotated[int, Field(ge=1)] = 5
    """One step in so many is full; 1 runs every step in full."""
    warmup: Annotated[int, Field(ge=1)] = 3
    """How many first steps are full."""
    order: Annotated[int, Field(ge=0)] = 1
    """Of the Taylor series; 0 reuses."""
    lite: bool = False
    """Skip whole blocks and extrapolate the output of `proj_out`; else only attentions are forecast."""

    @property
    def needs(self) -> frozenset[Capability]:
        return super().needs | {Capability.CACHE_HOOKS}

    @property
    def knob(self) -> Knob:
        return Knob("interval", values=(2, 3, 4, 5, 6, 8))

    def kept(self, trunk: Trunk) -> float:
        known = self.order + 1  # of the output, or of every attention's
        return known * (trunk.feature if self.lite else trunk.blocks * (trunk.tokens + trunk.text) * trunk.width)

    @property
    def drops(self) -> frozenset[Capability]:
        return super().drops | (frozenset() if self.lite else {Capability.TRACEABLE})

    def apply(self, pipe: Pipe) -> None:
        from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig

        from ditstack.plugin import BadPipeline, DiffusersCache

        def configure(stage: str, transformer: torch.nn.Module) -> TaylorSeerCacheConfig:
            if self.lite and not hasattr(transformer, "proj_out"):
                raise BadPipeline(f"taylorseer lite extrapolates proj_out; a {type(transformer).__name__} has none")
            attentions = [] if self.lite else _attentions(pipe, stage)
            if not (self.lite or attentions):
                raise BadPipeline(
                    f"taylorseer finds no attention by a name that is known in the blocks of a "
                    f"{type(transformer).__name__}; write lite: true"
                )
            return TaylorSeerCacheConfig(
                cache_interval=self.interval,
                disable_cache_before_step=self.warmup,
                max_order=self.order,
                taylor_factors_dtype=transformer.dtype,  # pyright: ignore[reportArgumentType]
                cache_identifiers=attentions or None,
                use_lite_mode=self.lite,
            )

        DiffusersCache(pipe, "taylorseer", configure)


def _attentions(pipe: Pipe, stage: str) -> list[str]:
    """Patterns of the attentions' names: diffusers' own miss those that are called attn1."""
    return [
        re.escape(f"{block.name}.{name}")
        for block in pipe.blocks[stage]
        for name, _ in block.module.named_children()
        if name.startswith("attn")
    ]
