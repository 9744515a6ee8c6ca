"""halves: guidance's unconditional half runs in full more seldom than the conditional one (as FasterCache, 2410.19355).

Between full steps the conditional half is forecast to first order in the step's index, on graded full steps. Of the
unconditional half its difference to the conditional one is:

    F_u = F_c + D,   D = F_u - F_c extrapolated from the steps on which both ran in full

Outside of `guided` the unconditional half takes the conditional one's answer, which is no guidance at all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from ditstack.maths import schedule
from ditstack.plugin import Cache, Capability, Knob, Trunk

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ditstack.plugin import Pipe

Share = Annotated[float, Field(ge=0, le=1)]


class Halves(Cache):
    """One full step in `interval` for the conditional half; one in `every` of those for the unconditional one."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1, "every": 1}

    interval: Annotated[int, Field(ge=1)] = 4
    """One step in so many is full for the conditional half, and for models without guidance."""
    every: Annotated[int, Field(ge=1)] = 2
    """Of those full steps, one in so many is full for the unconditional half too."""
    difference: bool = True
    """Whether the halves' difference is forecast; else the unconditional half by itself."""
    guided_from: Share = 0.0
    """The share of the steps before which guidance is off."""
    guided_to: Share = 1.0
    """The share of the steps after which guidance is off."""

    @property
    def needs(self) -> frozenset[Capability]:
        return super().needs | {Capability.ROWS}

    @property
    def knob(self) -> Knob:
        return Knob("interval", values=(2, 4, 6))

    def kept(self, trunk: Trunk) -> float:
        return 2 * trunk.feature  # the line through the last two full steps

    def apply(self, pipe: Pipe) -> None:
        from ditstack.maths.predictors import Taylor
        from ditstack.plugin import FeatureCache, cache_trunks

        pipe.policy = policy_of(self, pipe)
        store = FeatureCache(pipe, lambda site: Taylor(1), "step")
        if self.difference:
            store.beside = partner_of(pipe.policy)
        cache_trunks(pipe, store)

    def full_steps(self, steps: int, unguided: bool) -> tuple[int, ...]:
        """The full steps of one half, of a generation of `steps`."""
        full = schedule.graded(steps, math.ceil(steps / self.interval))
        return full[:: self.every] if unguided else full

    def is_guided(self, index: int, steps: int) -> bool:
        """Whether guidance is on at a step."""
        return self.guided_from * steps <= index < max(1, self.guided_to * steps)


def policy_of(halves: Halves, pipe: Pipe) -> Any:
    """Each row on the schedule of its half."""
    from ditstack.plugin import COPIED, FULL, RowPolicy

    class Policy(RowPolicy):
        def decide(self, row: Hashable, unguided: bool, last: int) -> str:
            index, steps = self.clock.index, self.clock.steps
            if unguided and not halves.is_guided(index, steps):
                return COPIED
            missed = any(last < step <= index for step in halves.full_steps(steps, unguided))
            return FULL if missed else "forecast"

    return Policy(pipe.clock, pipe.unguided)


def partner_of(policy: Any) -> Any:
    """Of a memory's key (site, branch, row), that of the same picture's conditional half; None where it is that."""

    def partner(key: Any) -> Hashable:
        site, (module, name, rows), place = key
        if name == "uncond":
            return site, (module, "cond", rows), place
        return (site, (module, name, rows), (place + rows // 2) % rows) if key[1:] in policy.unconditional else None

    return partner
