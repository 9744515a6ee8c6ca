"""Fitting: the low-rank factors of every linear, from what its increments are along the cached schedule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ditstack.compensation import running_weight
from ditstack.errors import BadFile, BadPipeline
from ditstack.increments import Increments
from ditstack.lowrank import Pair, allocate, channel_scale, observed_map, regress, truncate
from ditstack.moments import Channels, Grams, Replay, See, Since, Survey, seeing
from ditstack.pipe import Pipe

if TYPE_CHECKING:
    from ditstack.calibrate import Rehearsal

By = Literal["svd", "ca", "cd", "rrr", "rrr_observed"]
SENSED = 2
"""How many prompts are run again with gradients."""


@dataclass
class Wish:
    """What is to be fitted.

    Attributes:
        by: how.
        rank: components of every linear, or their share of its smaller width.
        macs: what a calibrated step may cost, as a share of a full one; ranks then go where they pay.
        weighted: whether an output's error counts by what it does to the transformer's output.
    """

    by: By
    rank: int | float
    macs: float | None = None
    weighted: bool = True


class Fit:
    """One fit on one pipe."""

    def __init__(self, pipe: Pipe, increments: Increments, rehearsal: Rehearsal, wish: Wish) -> None:
        if not rehearsal.prompts:
            raise BadFile("found no calibration prompts; give some: `calibration:` in the recipe, or --prompts FILE")
        self.pipe, self.linears, self.rehearsal, self.wish = pipe, increments.linears, rehearsal, wish
        self.order = increments.order
        self.survey = Survey()
        self._spent = 0
        self.metrics: dict[str, Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        """The factors, as `increments.read_corrections` reads them."""
        pair = self._gather()
        self.survey.finish()
        ranks = self._ranks(pair)
        out = {}
        for members in self.survey.groups():
            kept = {name: pair(name).cut(ranks[name]) for name in members if ranks[name]}
            if kept:
                out[f"{'+'.join(kept)}.down"] = torch.cat([one.down for one in kept.values()])
            out |= {f"{name}.up": one.up for name, one in kept.items()}
        dtype = next(iter(self.pipe.transformers.values())).dtype
        return {name: one.to(dtype).contiguous().cpu() for name, one in out.items()}

    def _gather(self) -> Callable[[str], Pair]:
        """Run what must be run; what comes back fits one linear."""
        by = self.wish.by
        if by == "svd":
            self._run(self.survey, range(1))
            return lambda name: truncate(self._weight(name))
        if by in ("ca", "cd"):
            channels = Channels()
            self._run(channels if by == "ca" else Since(self.pipe, channels, None))
            return lambda name: self._scaled(name, channels)
        return self._regression()

    def _scaled(self, name: str, channels: Channels) -> Pair:
        left, right = channel_scale(torch.cat(channels.y[name])), channel_scale(torch.cat(channels.x[name]))
        return truncate(self._weight(name), left, right)

    def _regression(self) -> Callable[[str], Pair]:
        observed = self.wish.by == "rrr_observed"
        gram = Grams(self._moment)
        cross = Grams(lambda name, x, y: (y, x) if observed else None)

        def see(name: str, dx: Tensor, dy: Tensor) -> None:
            gram(name, dx, dy)
            cross(name, dx, dy)

        replay = Replay(self.pipe)
        self._run(Since(self.pipe, see, self.order), replay=replay if self.wish.weighted else None)
        if self.wish.weighted:
            self.rehearsal.tell(f"sensitivity of the output: {len(replay.calls)} passes with gradients")
            self.metrics = replay.sensitivity(self.linears)

        def fitted(name: str) -> Pair:
            source = self.survey.inputs[name] if self._by_input(name) else name
            moment = gram.sums.get(source, torch.eye(self.survey.shapes[name][1], dtype=torch.float64))
            weight = self._weight(name).to(moment)
            if name in cross.sums:
                weight = observed_map(weight, moment, cross.sums[name])
            return regress(weight, moment, self.metrics.get(name))

        return fitted

    def _weight(self, name: str) -> Tensor:
        return running_weight(self.linears[name]).double()

    def _by_input(self, name: str) -> bool:
        """Whether changes of the input are gathered, not of the output: the narrower, where both serve."""
        height, width = self.survey.shapes[name]
        return width <= height or self.wish.by == "rrr_observed"

    def _moment(self, name: str, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self._by_input(name):
            return dy, dy
        return (dx, dx) if self.survey.inputs[name] == name else None

    def _run(self, see: See, places: range | None = None, replay: Replay | None = None) -> None:
        """Run the prompts one by one without the cache, seeing every linear."""
        count = len(self.rehearsal.prompts) if places is None else len(places)
        for place in range(count):
            with ExitStack() as stack:
                if replay is not None and place < SENSED:
                    stack.enter_context(replay.recording())
                if see is not self.survey:
                    stack.enter_context(seeing(self.linears, self.survey))
                stack.enter_context(seeing(self.linears, see))
                self.rehearsal.uncached_latents(range(place, place + 1))
            self._spent += self.pipe.spent
            self.rehearsal.tell(f"calibration prompt {place + 1} of {count}")

    def _ranks(self, pair: Callable[[str], Pair]) -> dict[str, int]:
        shapes = self.survey.shapes
        if self.wish.macs is None:
            rank = self.wish.rank
            return {
                name: min(rank if isinstance(rank, int) else max(1, round(rank * min(shape))), *shape)
                for name, shape in shapes.items()
            }
        rows = self.survey.rows
        costs = {name: float(rows[name] * sum(shape)) for name, shape in shapes.items()}
        return allocate({name: pair(name).energy for name in costs}, costs, self._budget())

    def _budget(self) -> float:
        """What corrections may cost in all that was run, beside what is computed anew."""
        assert self.wish.macs is not None
        linears = sum(self.survey.rows[name] * out * into for name, (out, into) in self.survey.shapes.items())
        total, anew = self._spent, self._spent - linears
        if self.wish.macs * total <= anew:
            raise BadPipeline(
                f"cache.macs: {self.wish.macs} of a full step is less than the {anew / total:.2f} that attention and "
                "what else is computed anew take; wanted more"
            )
        return self.wish.macs * total - anew
