"""FeatureCache: what a cache remembers of each site, and what it makes of that at the present step."""

from __future__ import annotations

from collections.abc import Callable, Hashable

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
        late: those notes, of the last full step, by site and branch: |forecast - feature| / |feature|, (B,).
    """

    def __init__(self, pipe: Pipe, make: Callable[[str], Predictor], coordinate: str = "sigma") -> None:
        super().__init__(pipe)
        self.make, self.coordinate = make, coordinate
        self.listeners: list[Callable[[str, Tensor], None]] = []
        self.watched = False
        self.late: dict[Hashable, Tensor] = {}
        self._kept_at: dict[Hashable, float] = {}

    def keep(self, site: str, feature: Tensor) -> None:
        """Remember a feature at a full step. Where not all rows are due, the others keep what they had."""
        key = (site, self.pipe.clock.branch)
        if key not in self.memories:
            self.memories[key] = self.make(site)
        if self.passes.due is not None:
            feature = choose(self.passes.due, feature, self.last(site))
        elif self.watched and key in self._kept_at:
            self._note(key, feature)
        self._kept_at[key] = self._time()
        with for_later_steps():
            self.memories[key].keep(feature, self._kept_at[key])
        with uncounted():
            for tell in self.listeners:
                tell(site, feature)

    def _note(self, key: Hashable, feature: Tensor) -> None:
        with uncounted():
            off = self.memories[key].at(self._time()) - feature
            self.late[key] = off.flatten(1).norm(dim=1) / feature.flatten(1).norm(dim=1).clamp_min(1e-12)

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
        key = (site, self.pipe.clock.branch)
        return self.last(site) if self.passes.kind == REUSED else self.memories[key].at(self._time())

    def last(self, site: str) -> Tensor:
        """A feature as it was at the last full step."""
        key = (site, self.pipe.clock.branch)
        return self.memories[key].at(self._kept_at[key])

    def _time(self) -> float:
        clock = self.pipe.clock
        return clock.time() if self.coordinate == "sigma" else float(clock.index)


def choose(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of each row (B, ...) the first where `rows` (B,) is true, else the other."""
    return torch.where(rows.view(-1, *[1] * (one.ndim - 1)), one, other)
