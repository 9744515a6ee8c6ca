"""Learning a pattern: for the work of a fixed period, the layers and steps that gain most by running in full.

As Learning-to-Cache (Ma et al., arXiv 2406.01733) asks which layers may be skipped on which steps, measured here: one
layer at a time, and one stretch of the generation at a time, runs more and less often than the period says, and the
change of final latents is each one's effect. Their products say, to first order, where full runs are worth most; moves
from there are tried on the same prompts, and prompts set aside decide between what was learned and the period.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from torch import Tensor

from ditstack.caching.patterns import Pattern
from ditstack.calibration.run import TOGETHER, Judge
from ditstack.maths.fidelity import paired
from ditstack.maths.schedule import ending, even
from ditstack.recipe.calibration import Calibration

LADDER = (1, 2, 3, 4, 6, 8, 12)
"""Intervals that a layer may have during a stretch."""
REACH = 2
"""How many rungs from the period effects are measured."""
STRETCHES = 8
TRIES = 40
"""Moves that are tried from the best pattern."""
PART = "patterns"

What = TypeVar("What", str, int)
"""A layer, or a stretch."""

Grid = Mapping[tuple[str, int], int]
"""The interval of each layer during each stretch of the generation."""
Scores = Callable[[Pattern, Sequence[int]], list[float]]
"""Of each of some pictures, decibels of the final latent under a pattern; more is better."""


@dataclass(frozen=True)
class Frame:
    """What patterns are made in.

    Attributes:
        saved: by layer, the multiply-accumulates that one step saves on which it does not run in full.
        last_full: how many last steps are full in all layers besides.
        full: the share of steps that the fixed pattern runs in full, spread evenly; None for one in `interval`.
    """

    steps: int
    interval: int
    saved: Mapping[str, float]
    last_full: int = 0
    full: float | None = None

    @classmethod
    def of_share(cls, steps: int, full: float, saved: Mapping[str, float], last_full: int = 0) -> Frame:
        """A frame for such a share; intervals begin at the one that costs no more."""
        return cls(steps, math.ceil(steps / math.floor(steps * full)), saved, last_full, full)

    def fixed(self) -> Pattern:
        """All layers alike: what a learned pattern may cost, and is set beside."""
        if self.full is None:
            return self.pattern(self.period())
        spread = even(self.steps, math.floor(self.steps * self.full))
        chosen = ending(spread, self.steps, self.last_full)
        return Pattern(dict.fromkeys(self.saved, tuple(step in chosen for step in range(self.steps))))

    @property
    def stretches(self) -> range:
        return range(min(STRETCHES, self.steps))

    @property
    def rungs(self) -> tuple[int, ...]:
        """The intervals near the period's."""
        ladder = sorted({*LADDER, self.interval})
        at = ladder.index(self.interval)
        return tuple(ladder[max(0, at - REACH) : at + REACH + 1])

    def period(self) -> dict[tuple[str, int], int]:
        """Every layer at the period, always."""
        return {(layer, stretch): self.interval for layer in self.saved for stretch in self.stretches}

    def pattern(self, grid: Grid) -> Pattern:
        """A layer runs in full when its interval at that time has passed since it last did."""
        return Pattern({layer: tuple(self._column(layer, grid)) for layer in self.saved})

    def _column(self, layer: str, grid: Grid) -> Iterator[bool]:
        last = None
        for step in range(self.steps):
            stretch = step * len(self.stretches) // self.steps
            due = last is None or step - last >= grid[layer, stretch] or step >= self.steps - self.last_full
            last = step if due else last
            yield due

    def cost(self, pattern: Pattern) -> float:
        """What its full runs take beyond none."""
        return sum(self.saved[layer] * sum(column) for layer, column in pattern.columns.items())


class Learning:
    """Finds a pattern that costs no more than the period and is best on some pictures.

    Args:
        scores: of patterns; asked again and again of the same ones.
        tries: moves from the best estimate.
    """

    def __init__(self, frame: Frame, scores: Scores, tries: int = TRIES) -> None:
        self.frame, self.scores, self.tries = frame, scores, tries
        self.start = frame.fixed()
        self.budget = frame.cost(self.start)
        self.rng = random.Random(0)

    def decided(self, fitting: Sequence[int], deciding: Sequence[int]) -> tuple[Pattern, tuple[float, float, float]]:
        """The pattern that the deciding pictures agree to, else the fixed one; and what the one found gains there.

        It is kept where its gain is clear: with a 95 % interval above zero.
        """
        found = self.found(fitting)
        gain = paired(self.scores(found, deciding), self.scores(self.start, deciding))
        return found if gain[1] > 0 else self.start, gain

    def found(self, fitting: Sequence[int]) -> Pattern:
        """The best pattern on these pictures."""
        candidates = [grid for grid in self.estimates(fitting) if self._fits(grid)]
        best: Grid = max([self.frame.period(), *candidates], key=lambda grid: self._mean(grid, fitting))
        first = fitting[:TOGETHER]
        for _ in range(self.tries):
            moved = self._moved(best)
            promising = self._fits(moved) and self._mean(moved, first) > self._mean(best, first)
            if promising and self._mean(moved, fitting) > self._mean(best, fitting):
                best = moved
        return self.frame.pattern(best)

    def estimates(self, fitting: Sequence[int]) -> Iterator[Grid]:
        """Grids for the budget: by the effects of layers, of stretches, and of both."""
        frame, rungs = self.frame, [rung for rung in self.frame.rungs if rung != self.frame.interval]
        layers = {(layer, rung): self._effect(fitting, rung, layer=layer) for layer in frame.saved for rung in rungs}
        times = {(one, rung): self._effect(fitting, rung, stretch=one) for one in frame.stretches for rung in rungs}
        even_layers, even_times = _shares(layers, rungs, even=True), _shares(times, rungs, even=True)
        whole = {rung: sum(layers[layer, rung] for layer in frame.saved) for rung in rungs}
        for by_layer, by_time in (
            (_shares(layers, rungs), _shares(times, rungs)),
            (_shares(layers, rungs), even_times),
            (even_layers, _shares(times, rungs)),
        ):
            gains = {
                (layer, one, rung): whole[rung] * by_layer[layer, rung] * by_time[one, rung]
                for layer in frame.saved
                for one in frame.stretches
                for rung in rungs
            }
            yield self._spent(gains)

    def _effect(self, fitting: Sequence[int], rung: int, layer: str = "", stretch: int = -1) -> float:
        """What it gains, in dB, that a layer, or all of them during a stretch, run at another interval."""
        moved = {key: rung if layer == key[0] or stretch == key[1] else old for key, old in self.frame.period().items()}
        period = self.frame.pattern(self.frame.period())
        before, after = self.scores(period, fitting), self.scores(self.frame.pattern(moved), fitting)
        return fmean(b - a for a, b in zip(before, after, strict=True))

    def _spent(self, gains: Mapping[tuple[str, int, int], float]) -> Grid:
        """The grid of the greatest gain that the budget allows: a price for work is found by halving."""
        frame, low, high = self.frame, 0.0, 1.0
        total, width = sum(frame.saved.values()), frame.steps / len(frame.stretches)

        def at(price: float) -> Grid:
            def worth(key: tuple[str, int], rung: int) -> float:
                gain = 0.0 if rung == frame.interval else gains[*key, rung]
                return gain - price * frame.saved[key[0]] / total * width / rung

            return {key: max(frame.rungs, key=lambda rung: worth(key, rung)) for key in frame.period()}

        while not self._fits(at(high)) and high < 1e9:
            high *= 2
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self._fits(at(middle)) else (middle, high)
        return at(high)

    def _moved(self, grid: Grid) -> Grid:
        """Something runs in full less often, and something else more often: a layer, a stretch, or one of both."""
        rungs, out = self.frame.rungs, dict(grid)
        for by in (1, -1):
            layer = self.rng.choice([*self.frame.saved, None])
            stretch = self.rng.choice([*self.frame.stretches, None]) if layer is not None else None
            stretch = self.rng.choice(self.frame.stretches) if layer is None else stretch
            for key in out:
                if layer in (None, key[0]) and stretch in (None, key[1]):
                    out[key] = rungs[min(max(rungs.index(out[key]) + by, 0), len(rungs) - 1)]
        return out

    def _fits(self, grid: Grid) -> bool:
        return self.frame.cost(self.frame.pattern(grid)) <= self.budget * (1 + 1e-9)

    def _mean(self, grid: Grid, places: Sequence[int]) -> float:
        return fmean(self.scores(self.frame.pattern(grid), places))


def _shares(
    effects: Mapping[tuple[What, int], float], rungs: Sequence[int], even: bool = False
) -> dict[tuple[What, int], float]:
    """By rung, each one's part of what all of them gain or lose; those that go the other way have none."""
    found: dict[tuple[What, int], float] = {}
    for rung in rungs:
        keys = [key for key in effects if key[1] == rung]
        sign = 1.0 if sum(effects[key] for key in keys) >= 0 else -1.0
        parts = {key: 1.0 if even else max(0.0, sign * effects[key]) for key in keys}
        total = sum(parts.values()) or 1.0
        found |= {key: part / total for key, part in parts.items()}
    return found


class PatternRuns:
    """Patterns run on calibration prompts; what a killed calibration had run is not run again.

    Args:
        follow: lets the pipe run like this.
    """

    def __init__(self, calibration: Calibration, follow: Callable[[Pattern], None]) -> None:
        self.calibration, self.follow = calibration, follow
        self.judge = Judge(calibration, PART, latents=True)

    def scores(self, pattern: Pattern, places: Sequence[int]) -> list[float]:
        """Of each picture, decibels of the final latent to the uncached one."""

        def make(part: Sequence[int]) -> Tensor:
            self.follow(pattern)
            made = self.calibration.latents(part)
            ran = self.judge.made + len(part)
            self.calibration.bar("patterns: pictures run", ran, ran)
            return made

        return self.judge.scores(str(pattern), places, make)
