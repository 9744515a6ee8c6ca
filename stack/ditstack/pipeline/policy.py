"""StepPolicy: of each pass of a transformer, how it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ditstack.pipeline.clock import Clock


class StepPolicy:
    """Says of each pass how it runs, from a schedule, and follows every guidance branch by itself.

    A branch that has not run in full since the last full step of the schedule runs in full now, whatever the schedule
    says: so a branch that a guider left out, or that appears late, never forecasts from nothing.

    Args:
        kinds: the kind of every step of a generation of so many steps; "full" runs and is remembered.
        steps: the one number of steps that it serves; None serves any.
    """

    def __init__(self, clock: Clock, kinds: Callable[[int], Sequence[str]], steps: int | None = None) -> None:
        self.clock, self.kinds, self.steps = clock, kinds, steps
        self.on_forget: list[Callable[[], None]] = []
        self._ran: dict[Any, int] = {}
        self._plans: dict[int, tuple[str, ...]] = {}

    def kind(self) -> str:
        index, plan = self.clock.index, self.plan(self.clock.steps)
        since = self._ran.get(self.clock.branch)
        missed = since is None or "full" in plan[since + 1 : index + 1]
        return "full" if missed else plan[index]

    def plan(self, steps: int) -> tuple[str, ...]:
        if steps not in self._plans:
            self._plans[steps] = tuple(self.kinds(steps))
        return self._plans[steps]

    def follow(self, kinds: Callable[[int], Sequence[str]]) -> None:
        """Another schedule, from the next generation on."""
        self.kinds, self._plans = kinds, {}

    def ran_in_full(self) -> None:
        self._ran[self.clock.branch] = self.clock.index

    def forget(self) -> None:
        self._ran.clear()
        for forget in self.on_forget:
            forget()
