"""StepPolicy: of each pass of a transformer, how it runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from ditstack.pipeline.clock import Clock

if TYPE_CHECKING:
    from ditstack.pipeline.passes import PassInputs

FULL, CALIBRATED, REUSED, OFF = "full", "calibrated", "reused", "off"
UNDECIDED = "undecided"
"""The kind of a pass that decides for itself, when its first block has run."""


class StepPolicy:
    """Says of each pass how it runs, from a schedule, and follows every guidance branch by itself.

    A branch that has not run in full since the last full step of the schedule runs in full now, whatever the schedule
    says: so a branch that a guider left out, or that appears late, never forecasts from nothing. A step that the
    schedule calls "undecided" is settled inside the pass, by the cache.

    Args:
        kinds: the kind of every step of a generation of so many steps; "full" runs and is remembered.
        steps: the one number of steps that it serves; None serves any.
    """

    def __init__(self, clock: Clock, kinds: Callable[[int], Sequence[str]], steps: int | None = None) -> None:
        self.clock, self.kinds, self.steps = clock, kinds, steps
        self.on_forget: list[Callable[[], None]] = []
        self._ran: dict[Hashable, int] = {}
        self._plans: dict[int, tuple[str, ...]] = {}

    def begin(self, inputs: PassInputs) -> str:
        """The kind of a pass that begins; a policy of another kind may look at what the transformer is given."""
        return self.kind()

    @property
    def first(self) -> bool:
        """Whether the present branch has not run in full yet: a cache may make more of its first full pass."""
        return self.clock.branch not in self._ran

    def outcomes(self, planned: str) -> tuple[str, ...]:
        """The kinds that a pass planned like this may turn out to be."""
        return (FULL, REUSED) if planned == UNDECIDED else (planned,)

    def end(self, kind: str) -> str:
        """A pass has ended; how it really ran. One that never decided ran every block, and kept nothing."""
        if kind == FULL:
            self._ran[self.clock.branch] = self.clock.index
        return FULL if kind == UNDECIDED else kind

    def kind(self) -> str:
        """Of the present step and branch."""
        index, plan = self.clock.index, self.plan(self.clock.steps)
        since = self._ran.get(self.clock.branch)
        missed = since is None or FULL in plan[since + 1 : index + 1]
        return FULL if missed else plan[index]

    def plan(self, steps: int) -> tuple[str, ...]:
        """The kind of every step, as scheduled."""
        if steps not in self._plans:
            self._plans[steps] = tuple(self.kinds(steps))
        return self._plans[steps]

    def follow(self, kinds: Callable[[int], Sequence[str]]) -> None:
        """Another schedule, from the next generation on."""
        self.kinds, self._plans = kinds, {}

    def forget(self) -> None:
        """A generation begins or has ended."""
        self._ran.clear()
        for forget in self.on_forget:
            forget()
