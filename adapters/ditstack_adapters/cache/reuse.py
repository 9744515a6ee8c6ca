"""Plain reuse: between full steps the residual of the whole stack of blocks is used again (FORA, arXiv 2407.01425)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.maths.schedule import KINDS, even_by_interval, spell
from ditstack.plugin import Cache, Knob

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class Reuse(Cache):
    """One full step in `interval`, spread evenly; F_hat = F_last on the others."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}

    interval: Annotated[int, Field(ge=1)] = 2
    """One step in so many is full; 1 runs every step in full."""

    @property
    def knob(self) -> Knob:
        return Knob("interval", values=(2, 3, 4, 5, 6, 8))

    def apply(self, pipe: Pipe) -> None:
        from ditstack.maths import predictors
        from ditstack.plugin import FeatureCache, StepPolicy, cache_trunks

        pipe.policy = StepPolicy(pipe.clock, self.kinds)
        cache_trunks(pipe, FeatureCache(pipe, lambda site: predictors.Reuse()))

    def kinds(self, steps: int) -> tuple[str, ...]:
        return spell(even_by_interval(steps, self.interval), steps, KINDS["R"])
