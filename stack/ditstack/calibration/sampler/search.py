"""Search: the times of a sampler whose coefficients follow from them by regression.

An evolution strategy with one parent and one child (Rechenberg's rule of success decides how far it goes): where the
times stand decides in which valley a descent ends, and no slope leads from one valley to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.calibration.sampler.gradient import part
from ditstack.calibration.sampler.regression import Regression
from ditstack.maths.multistep import Method, gaps_of, times_of

if TYPE_CHECKING:
    from ditstack.calibration.sampler.fit import SamplerFit

SEARCHED = 48
"""Prompts that times are searched on, at most: with fewer, what is found holds less well on others."""
SIZE, GOOD, BAD, LEAST, SHARE = 0.25, 1.4, 0.93, 0.02, 0.5
"""By how much the logarithms of gaps are moved at first, what that is multiplied by after a child that was better or
worse, its least, and the share of the gaps that a child moves."""
PART = "sampler's times"


class Search:
    """The best times found; a killed search goes on."""

    def __init__(self, fit: SamplerFit, tries: int) -> None:
        self.fit, self.tries = fit, tries
        self.regression = Regression(fit, list(fit.fitted)[:SEARCHED])

    def best(self, starts: Sequence[Tensor]) -> Method:
        """The method with the least loss.

        Args:
            starts: (N,) times to begin with, each with the same first one.
        """
        calibration, count = self.fit.calibration, len(starts) + self.tries
        known = calibration.partial.of("search")
        done, size, loss = (int(known["done"]), float(known["size"]), float(known["loss"])) if known else (0, SIZE, inf)
        best = Method(**part(known, "best")) if known else None
        for at in range(done, count):
            parent = best if at >= len(starts) else None
            times = self._child(parent.times, at, size) if parent is not None else starts[at].double()
            method, found = self.regression.method(times)
            better = found < loss
            if parent is not None:
                size = max(size * (GOOD if better else BAD), LEAST)
            if best is None or better:
                best, loss = method, found if isfinite(found) else inf
            numbers = {"done": at + 1, "size": size, "loss": loss}
            state = {name: torch.tensor(one, dtype=torch.double) for name, one in numbers.items()}
            state |= {f"best.{name}": one for name, one in best.tensors().items()}
            calibration.partial.keep("search", state, at_once=True)
            calibration.bar(PART, at + 1, count)
        assert best is not None, "there is a start"
        return best

    @staticmethod
    def _child(times: Tensor, at: int, size: float) -> Tensor:
        times = times.double()
        draw = torch.Generator().manual_seed(at)
        move = size * torch.randn(len(times), generator=draw, dtype=torch.double)
        moved = torch.rand(len(times), generator=draw) < SHARE
        moved[torch.randint(len(times), (1,), generator=draw)] = True
        return times_of(gaps_of(times) + move * moved, float(times[0]))
