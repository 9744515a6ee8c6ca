"""Plain reuse: between full steps the residual of the whole stack of blocks is used again (FORA, arXiv 2407.01425)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.adapter import Cache
from ditstack.schedule import even_by_interval, spell

if TYPE_CHECKING:
    from ditstack.pipe import Pipe


class Reuse(Cache):
    """One full step in `interval`, spread evenly; F_hat = F_last on the others."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}

    interval: Annotated[int, Field(ge=1)] = 2

    def apply(self, pipe: Pipe) -> None:
        from ditstack import predictors
        from ditstack.cadence import Cadence
        from ditstack.pipe import REUSED
        from ditstack.trunk import Store, cache_trunks

        pipe.cadence = Cadence(pipe.clock, lambda steps: spell(even_by_interval(steps, self.interval), steps, REUSED))
        cache_trunks(pipe, Store(pipe, lambda site: predictors.Reuse()))
