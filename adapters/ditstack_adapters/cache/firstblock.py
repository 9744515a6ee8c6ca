"""firstblock: what the first block adds to a picture tells whether the blocks after it must run (as in ParaAttention).

Reuse what the blocks after the first added last, where mean |R - R_last| < threshold mean |R_last|; R is the residual
of the first block, R_last that of the last full pass of the same picture. Every picture of a batch decides for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.maths.schedule import spell
from ditstack.plugin import Cache, Knob, Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Pipe

# B batch, T tokens, D width


class FirstBlock(Cache):
    """The first block always runs, the others for the rows that need them; for all, where the batch cannot be cut."""

    neutral: ClassVar[dict[str, Any] | None] = {"threshold": 0.0}
    trial: ClassVar[dict[str, Any]] = {"threshold": 0.6}

    threshold: Annotated[float, Field(ge=0)] = 0.1
    """The largest relative change of the first block's residual at which the other blocks are skipped."""

    @property
    def knob(self) -> Knob:
        return Knob("threshold", scales=(0.5, 1.0, 2.0, 4.0))

    def apply(self, pipe: Pipe) -> None:
        from ditstack.maths import predictors
        from ditstack.plugin import UNDECIDED, FeatureCache, StepPolicy, cache_trunks

        policy = pipe.policy = StepPolicy(pipe.clock, lambda steps: spell((0,), steps, UNDECIDED))
        policy.by_row = True
        cache_trunks(pipe, FeatureCache(pipe, lambda site: predictors.Reuse()), self.due)

    def kept(self, trunk: Trunk) -> float:
        return 2 * trunk.feature  # of the first block, and of those after it

    def due(self, now_BTD: Tensor, last_BTD: Tensor) -> Tensor:
        """Which pictures have changed too much, (B,)."""
        change = (now_BTD - last_BTD).abs().flatten(1).mean(1)
        return change >= self.threshold * last_BTD.abs().flatten(1).mean(1)
