"""paced: a picture whose last forecast was far off gets its next full step earlier, a calm one later.

At a full step the relative error e of what had been forecast tells how far the next one may lie away, as the step size
of an adaptive solver of second order does:   gap = graded gap * (tolerance / e)^(1/2), between .5 and 2 graded gaps
Every row of a batch, and each half of guidance, goes at its own pace.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.maths import schedule

from ._rows import RowForecasts

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ditstack.plugin import Pipe

NARROWEST, WIDEST = 0.5, 2.0
ALIKE = 3
"""So many first full steps are those of the schedule: a forecast needs two, and its error a third."""


class Paced(RowForecasts):
    """The whole space is forecast to first order in the step's index, as svdcache does by default."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}

    interval: Annotated[int, Field(ge=1)] = 4
    """One step in so many is full where forecasts are off by the tolerance."""
    tolerance: Annotated[float, Field(gt=0)] = 0.1
    """The relative error of a forecast of the blocks' residual at which gaps are those of the schedule."""
    budget: Annotated[float, Field(ge=1)] = 1.5
    """A picture takes at most so many times the schedule's full steps."""

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import FULL, RowPolicy, cache_trunks

        paced = self

        class Policy(RowPolicy):
            def __init__(self) -> None:
                super().__init__(pipe.clock, pipe.unguided)
                self.errors: dict[Hashable, dict[str, Any]] = {}
                self.ran: dict[Hashable, int] = {}

            def decide(self, row: Hashable, unguided: bool, last: int) -> str:
                done = self.ran.setdefault(row, 1)
                each = [float(one) for one in self.errors.get(row, {}).values()]
                error = sum(each) / len(each) if each else paced.tolerance
                if self.clock.index < last + paced.gap(self.clock.steps, done, error):
                    return "forecast"
                self.ran[row] = done + 1
                return FULL

            def forget(self) -> None:
                super().forget()
                self.errors.clear()
                self.ran.clear()

        policy = pipe.policy = Policy()
        store = self.forecasts(pipe)
        store.watched = True
        store.on_late.append(lambda key, error: policy.errors.setdefault(key[1:], {}).update({key[0]: error}))
        cache_trunks(pipe, store)

    def gap(self, steps: int, done: int, error: float) -> float:
        """How many steps after its last full step a row runs in full again.

        Args:
            done: full steps that it has had.
            error: of the forecast at the last one.
        """
        full = (*schedule.graded(steps, math.ceil(steps / self.interval)), steps)
        if done >= math.ceil(self.budget * (len(full) - 1)):
            return math.inf
        at = min(done, len(full) - 1)
        graded = max(1, full[at] - full[at - 1])
        if done < ALIKE or self.interval == 1:
            return graded
        pace = (self.tolerance / max(error, 1e-12)) ** 0.5
        return max(1, round(graded * min(max(pace, NARROWEST), WIDEST)))
