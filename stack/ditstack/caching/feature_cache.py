"""FeatureCache: what a cache remembers of each site, and what it makes of that at the present step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from ditstack.caching.memory import CacheMemory
from ditstack.maths.predictors import Predictor, Steered
from ditstack.pipeline.macs import for_later_steps, uncounted
from ditstack.pipeline.pipe import REUSED, Pipe


class FeatureCache(CacheMemory[Predictor]):
    """What a cache remembers: a predictor per site, part and guidance branch; emptied when a generation begins or ends.

    Args:
        make: the predictor of a new feature at a site.
        coordinate: "sigma" counts time as the share of noise, "step" as the step's index.

    Attributes:
        listeners: told of every feature that is kept: its site and the feature. What they compute is not counted.
        watched: whether it is noted how far each forecast was off when the next full step came.
        beside: of rows that are remembered as their difference to another row: the other's memory, by their own.
        told: what another row that has just run tells of a row that has not, at a time, by its memory; it is remembered
            as if the row had run. None where nothing is told.
        late: those notes, of the last full step, by memory: |forecast - feature| / |feature|, (B,).
        on_late: told of each as it is noted.
    """

    def __init__(self, pipe: Pipe, make: Callable[[str], Predictor], coordinate: str = "sigma") -> None:
        super().__init__(pipe)
        self.make, self.coordinate = make, coordinate
        self.listeners: list[Callable[[str, Tensor], None]] = []
        self.watched = False
        self.beside: Callable[[Hashable], Hashable] = lambda key: None
        self.told: Callable[[Any, float], Tensor | None] = lambda key, time: None
        self.late: dict[Hashable, Tensor] = {}
        self.on_late: list[Callable[[Any, Tensor], None]] = []
        self._kept_at: dict[Hashable, float] = {}

    def keep(self, site: str, feature: Tensor) -> None:
        """Remember a feature at a full step. Where not all rows are due, the others keep what they had."""
        if self.passes.due is not None:
            feature = choose(self.passes.due, feature, self.last(site))
        with for_later_steps():
            # a row that is kept as its difference to another comes after that one
            for rows, key in sorted(self._keys(site, len(feature)), key=lambda one: self.beside(one[1]) is not None):
                self._keep(site, key, feature[rows].clone() if self.passes.by_row else feature)
        with uncounted():
            for tell in self.listeners:
                tell(site, feature)

    def _keys(self, site: str, rows: int) -> list[tuple[slice, Hashable]]:
        """What each memory of a site holds: the whole batch, or one row where rows may run differently."""
        branch = self.pipe.clock.branch
        if not self.passes.by_row:
            return [(slice(None), (site, branch))]
        places = self.passes.places(rows)
        return [(slice(at, at + 1), (site, branch, place)) for at, place in enumerate(places)]

    def _keep(self, site: str, key: Hashable, feature: Tensor) -> None:
        now = self._time()
        if (other := self.memories.get(self.beside(key))) is not None:
            feature = feature - other.at(now)
        if key not in self.memories:
            self.memories[key] = self.make(site)
        elif self.watched and key in self._kept_at:
            with uncounted():
                off = self.memories[key].at(now) - feature
                self.late[key] = off.flatten(1).norm(dim=1) / feature.flatten(1).norm(dim=1).clamp_min(1e-12)
                for tell in self.on_late:
                    tell(key, self.late[key])
        self._kept_at[key] = now
        self.memories[key].keep(feature, now)

    def forget(self) -> None:
        super().forget()
        self._kept_at.clear()

    def hear(self, site: str, feature: Tensor) -> Tensor:
        """What a calibrated step has come to, as far as its predictor believes it."""
        memory = self.memories[(site, self.pipe.clock.branch)]
        assert isinstance(memory, Steered)
        memory.hear(feature, self._time())
        return memory.at(self._time())

    def recall(self, site: str) -> Tensor:
        """What a feature will be at the present step."""
        if self.passes.kind == REUSED:
            return self.last(site)
        return self._joined(site, lambda key: self._time())

    def last(self, site: str) -> Tensor:
        """A feature as it was at the last full step."""
        return self._joined(site, lambda key: self._kept_at[key])

    def _joined(self, site: str, when: Callable[[Hashable], float]) -> Tensor:
        """The rows of the running pass, as their memories tell them of a time."""
        rows = self.passes.rows
        found = [self._at(key, when(key)) for _, key in self._keys(site, rows)]
        return torch.cat(found) if len(found) > 1 else found[0]

    def _at(self, key: Hashable, time: float) -> Tensor:
        if time != self._kept_at[key] and (told := self.told(key, time)) is not None:
            self.memories[key].keep(told, time)
            self._kept_at[key] = time
        feature, other = self.memories[key].at(time), self.memories.get(self.beside(key))
        return feature if other is None else feature + other.at(time)

    def _time(self) -> float:
        clock = self.pipe.clock
        return clock.time() if self.coordinate == "sigma" else float(clock.index)


def choose(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of each row (B, ...) the first where `rows` (B,) is true, else the other."""
    return torch.where(rows.view(-1, *[1] * (one.ndim - 1)), one, other)
