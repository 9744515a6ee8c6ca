"""Cadence: of each pass of a transformer, whether it runs in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ditstack.clock import Clock


class Cadence:
    """Says of each pass whether it runs in full, from a schedule, and follows every guidance branch by itself.

    A branch that has not run in full since the last full step of the schedule runs in full now, whatever the schedule
    says: so a branch that a guider left out, or that appears late, never forecasts from nothing.
    """

    def __init__(self, clock: Clock, full: Callable[[int], Sequence[int]], skipped: str) -> None:
        self.clock, self.full, self.skipped = clock, full, skipped
        self.on_forget: list[Callable[[], None]] = []
        self._ran: dict[Any, int] = {}
        self._plans: dict[int, frozenset[int]] = {}

    def kind(self) -> str:
        clock = self.clock
        due = max((step for step in self.plan(clock.steps) if step <= clock.index), default=0)
        return self.skipped if self._ran.get(clock.branch, -1) >= due else "full"

    def plan(self, steps: int) -> frozenset[int]:
        if steps not in self._plans:
            self._plans[steps] = frozenset(self.full(steps))
        return self._plans[steps]

    def ran_in_full(self) -> None:
        self._ran[self.clock.branch] = self.clock.index

    def forget(self) -> None:
        self._ran.clear()
        for forget in self.on_forget:
            forget()
