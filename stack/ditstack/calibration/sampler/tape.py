"""Tape: what the transformers said in a run, so that another that begins alike does not ask them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ditstack.calibration.trajectories import uncounted
from ditstack.pipeline.pipe import Pipe


class Tape:
    """What the transformers said in one run, to be said again at the first evaluations of another."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.said: list[tuple[int, Any]] = []
        self.replayed = self.at = 0
        self.records = True

    def replay(self, evaluations: int) -> None:
        """The next run's first evaluations are those of the recorded one."""
        self.replayed = sum(evaluation < evaluations for evaluation, _ in self.said)
        self.at, self.records = 0, False

    def extend(self) -> None:
        """The next run begins as the recorded one, and goes on recording where that ended."""
        self.replayed, self.at, self.records = len(self.said), 0, True

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, runs are recorded or replayed, without a cache."""
        forwards: dict[Any, Any] = {one: one.forward for one in self.pipe.transformers.values()}
        for one, forward in forwards.items():
            one.forward = self._heard(forward)
        try:
            with uncounted(self.pipe), torch.no_grad():
                yield
        finally:
            for one, forward in forwards.items():
                one.forward = forward

    def _heard(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            place, self.at = self.at, self.at + 1
            if place < self.replayed:
                return self.said[place][1]
            out = forward(*args, **kwargs)
            if self.records:
                self.said.append((self.pipe.pipeline.scheduler.step_index or 0, out))
            return out

        return run
