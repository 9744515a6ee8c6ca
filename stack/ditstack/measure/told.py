"""Told: what long work says of itself: a bar on a terminal, and a line every few seconds where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

PAUSE = 5.0
"""Seconds between two lines of one piece of work."""


class Told:
    """Sentences and counts of work that takes long."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}
        self._said = 0.0

    @contextmanager
    def shown(self) -> Iterator[Told]:
        """Inside, bars stand on a terminal."""
        if not self.console.is_terminal:
            yield self
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), Remaining(), console=self.console) as self._bars:
            yield self
        self._bars = None
        self._tasks.clear()

    def tell(self, text: str) -> None:
        """A sentence of its own."""
        self.console.print(Text(text), soft_wrap=True)

    def count(self, part: str, done: int, count: int) -> None:
        """So much of a piece of work is done."""
        if self._bars is None:
            self._line(part, done, count)
            return
        if part not in self._tasks:
            self._tasks[part] = self._bars.add_task(part, total=count)
        self._bars.update(self._tasks[part], completed=done, total=count)

    def _line(self, part: str, done: int, count: int) -> None:
        now = time.monotonic()
        if done <= 1:
            self._begun[part] = now
        began = self._begun.setdefault(part, now)
        if done < count and now - self._said < PAUSE:
            return
        self._said = now
        left = f", about {(now - began) / (done - 1) * (count - done):.0f} s left" if 1 < done < count else ""
        self.tell(f"{part}: {done} of {count}{left}")
