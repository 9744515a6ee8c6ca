"""Choice: how a forecast cache runs, chosen on the model that runs: which steps are full, and what it extrapolates by.

No constants are good on every model. So a few schedules and predictors run on some of the calibration prompts, moves of
the best one after them, and what is best there is kept where prompts that it was not chosen on gain clearly: with a
95 % interval above zero. All take as many full steps as the default.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.caching.feature_cache import FeatureCache
from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import decibels, paired
from ditstack.maths.schedule import even, nearby, spell, spreads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ditstack.pipeline.pipe import Pipe
    from ditstack.recipe.calibration import Calibration

TRIES = 40
"""Moves that are tried from the best schedule."""
TOGETHER = 4
"""Prompts of one run; a setting that loses on the first ones runs on no others."""
FEWEST = 8
"""Calibration prompts, half of which decide: with fewer an interval says nothing."""
CHOOSING, DECIDING = 8, 32
"""Pictures of each half, at least; prompts run again from other noise where they are fewer."""
COORDINATES = ("step", "sigma")
FAILED = -180.0
"""Decibels of a run that ended in NaN."""
PART = "schedules"
SAID = "schedule: "


@dataclass(frozen=True)
class Setting:
    """How a forecast cache runs: its full steps of how many, the order of its forecast, and what that counts in."""

    steps: int
    full: tuple[int, ...]
    order: int = 1
    coordinate: str = "step"

    def __str__(self) -> str:
        counted = "in steps" if self.coordinate == "step" else "in sigma"
        return f"full steps {', '.join(map(str, self.full))} of {self.steps}; order {self.order} {counted}"

    def tensors(self) -> dict[str, Tensor]:
        """As factors hold it."""
        full = torch.zeros(self.steps, dtype=torch.bool)
        full[list(self.full)] = True
        return {"full": full, "forecast": torch.tensor([self.order, COORDINATES.index(self.coordinate)])}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Setting | None:
        """What factors hold; None where nothing was chosen."""
        if "full" not in tensors:
            return None
        full, (order, coordinate) = tensors["full"], tensors["forecast"].tolist()
        return cls(len(full), tuple(full.nonzero().flatten().tolist()), order, COORDINATES[coordinate])


def wrong_setting(tensors: Mapping[str, Tensor]) -> list[str]:
    """Why `Setting.of` cannot read these."""
    if not {"full", "forecast"} <= tensors.keys():
        return ["full, forecast: missing; no schedule was chosen"]
    full, forecast, wrong = tensors["full"], tensors["forecast"], []
    if full.ndim != 1 or full.dtype != torch.bool or not len(full) or not full[0]:
        wrong.append("full: wanted true or false for every step, the first of them true")
    if forecast.tolist() not in [[order, place] for order in (1, 2, 3) for place in range(len(COORDINATES))]:
        wrong.append("forecast: wanted an order of 1 to 3, and 0 or 1 for what it counts in")
    return wrong


def follow_setting(pipe: Pipe, tensors: Mapping[str, Tensor], otherwise: Callable[[int], Sequence[str]]) -> None:
    """Let a pipe's steps run as factors say, where they say anything, and note what that gained.

    Args:
        otherwise: how generations of another number of steps run.
    """
    setting = Setting.of(tensors)
    if setting is None or pipe.policy is None:
        return
    kinds = spell(setting.full, setting.steps, "forecast")
    pipe.policy.follow(lambda steps: kinds if steps == setting.steps else otherwise(steps))
    FeatureCache.on(pipe).coordinate = setting.coordinate
    pipe.notes = [note for note in pipe.notes if not note.startswith(SAID)]
    if "gain" in tensors:
        pipe.notes.append(told(setting, tensors["gain"].tolist()))


Scores = Callable[[Setting, Sequence[int]], list[float]]
"""Of each of some pictures, decibels of the final latent under a setting; more is better."""


class Choice:
    """The setting that is best on some prompts, and whether others agree.

    Args:
        start: the default; every other setting has as many full steps.
        predictors: orders and coordinates that are tried.
        last_full: how many last steps stay full in every schedule.
    """

    def __init__(
        self,
        scores: Scores,
        start: Setting,
        predictors: Sequence[tuple[int, str]],
        last_full: int = 0,
        tries: int = TRIES,
    ) -> None:
        self.scores, self.start, self.last_full = scores, start, last_full
        self.predictors, self.tries = predictors, tries
        self.rng = random.Random(0)

    def stages(self, fitting: Sequence[int]) -> Iterator[Setting]:
        """The best setting so far on these pictures: of predictors, of spreads, of moves, and of predictors again."""
        first = fitting[:TOGETHER]
        best = self.start

        def better(trial: Setting) -> Setting:
            promising = self._mean(trial, first) > self._mean(best, first)
            return trial if promising and self._mean(trial, fitting) > self._mean(best, fitting) else best

        steps, count = self.start.steps, len(self.start.full)
        for full in filter(self._allows, (self.start.full, even(steps, count))):
            for predictor in self.predictors:
                best = better(Setting(steps, full, *predictor))
        for full in filter(self._allows, spreads(steps, count)):
            best = better(replace(best, full=full))
        yield best
        tried = {best.full}
        for _ in range(self.tries):
            moves = [one for one in nearby(best.full, steps) if one not in tried and self._allows(one)]
            if not moves:
                break
            full = self.rng.choice(moves)
            tried.add(full)
            best = better(replace(best, full=full))
        for predictor in self.predictors:
            best = better(Setting(steps, best.full, *predictor))
        yield best

    def decided(self, fitting: Sequence[int], deciding: Sequence[int]) -> tuple[Setting, tuple[float, float, float]]:
        """The setting that the deciding pictures agree to, the start where they agree to none, and what it gains there.

        The gain is in dB of the final latent, with its 95 % interval over the deciding pictures.
        """
        before = self.scores(self.start, deciding)
        found, gain = self.start, (0.0, 0.0, 0.0)
        for setting in dict.fromkeys(reversed([*self.stages(fitting)])):
            trial = paired(self.scores(setting, deciding), before)
            if trial[1] > 0:
                found, gain = setting, trial
                break
        plain = replace(self.start, full=even(self.start.steps, len(self.start.full)))
        if self._allows(plain.full):  # fits nothing, so that it may do better on others than what was chosen
            trial = paired(self.scores(plain, deciding), before)
            if trial[1] > 0 and trial[0] > gain[0]:
                return plain, trial
        return found, gain

    def _allows(self, full: tuple[int, ...]) -> bool:
        ending = range(max(0, self.start.steps - self.last_full), self.start.steps)
        return len(full) == len(self.start.full) and set(ending) <= set(full)

    def _mean(self, setting: Setting, places: Sequence[int]) -> float:
        return fmean(self.scores(setting, places))


class Trials:
    """Settings run on calibration prompts; what a killed calibration had run is not run again.

    Args:
        take: lets the pipe run like this.
    """

    def __init__(self, calibration: Calibration, take: Callable[[Setting], None], start: Setting) -> None:
        self.calibration, self.take, self.start = calibration, take, start
        self.known = calibration.partial.of(PART)
        self.ran = 0

    def scores(self, setting: Setting, places: Sequence[int]) -> list[float]:
        """Of each picture, decibels of the final latent to the uncached one."""
        parts = [places[at : at + TOGETHER] for at in range(0, len(places), TOGETHER)]
        return [one for part in parts for one in self._scores(setting, part)]

    def _scores(self, setting: Setting, part: Sequence[int]) -> list[float]:
        key = f"{setting} {' '.join(map(str, part))}"
        if key not in self.known:
            aim = self._aim(part)
            self.take(setting)
            self.known[key] = torch.tensor(self._run(setting, part, aim), dtype=torch.float64)
            self._note(len(part))
        return self.known[key].tolist()

    def _run(self, setting: Setting, part: Sequence[int], aim: Tensor) -> list[float]:
        try:
            return decibels(self.calibration.latents(part), aim)
        except BadPipeline:
            if setting == self.start:
                raise
            return [FAILED] * len(part)  # a bold forecast may overflow where the default does not

    def _aim(self, part: Sequence[int]) -> Tensor:
        key = f"uncached {' '.join(map(str, part))}"
        if key not in self.known:
            self.known[key] = self.calibration.uncached_latents(part)
            self._note(0)
        return self.known[key]

    def _note(self, ran: int) -> None:
        self.ran += ran
        self.calibration.partial.keep(PART, self.known)


def choose_setting(
    calibration: Calibration,
    take: Callable[[Setting], None],
    start: Setting,
    predictors: Sequence[tuple[int, str]],
    last_full: int = 0,
) -> dict[str, Tensor]:
    """The chosen setting and its gain, as factors hold them. One half of the prompts chooses, the other decides.

    Raises:
        BadPipeline: there are too few prompts.
    """
    fitting, deciding = halves(calibration)
    count = len(calibration.prompts)
    trials = Trials(calibration, take, start)
    choice = Choice(trials.scores, start, predictors, last_full)
    setting, gain = choice.decided(fitting, deciding)
    calibration.tell(f"schedule: {trials.ran / count:.0f} cached generations of each prompt were tried")
    decided = [*gain, len(deciding)]
    calibration.tell(told(setting, decided))
    return {**setting.tensors(), "gain": torch.tensor(decided, dtype=torch.float64)}


def halves(calibration: Calibration) -> tuple[list[int], list[int]]:
    """Places of the pictures that choose, and of those that decide, of other prompts.

    Raises:
        BadPipeline: there are too few prompts.
    """
    count = len(calibration.prompts)
    if count < FEWEST:
        raise BadPipeline(f"found {count} calibration prompts; a choice takes at least {FEWEST}, better 32")
    return _pictures(range(count // 2), count, CHOOSING), _pictures(range(count // 2, count), count, DECIDING)


def _pictures(half: range, count: int, least: int) -> list[int]:
    """Places of so many pictures, at least, of one half of the prompts."""
    return [place + count * turn for turn in range(math.ceil(least / len(half))) for place in half]


def told(setting: Setting, decided: Sequence[float]) -> str:
    """What was chosen, in a sentence.

    Args:
        decided: what it gains with its interval, and on how many pictures.
    """
    *gain, count = decided
    if not any(gain):
        return f"{SAID}the default is kept ({setting}): no clear gain on {count:.0f} pictures of prompts set aside"
    return f"{SAID}{setting}: {gained(decided)}"


def gained(decided: Sequence[float], over: str = "the default") -> str:
    """A gain with its interval, and on how many pictures."""
    said = "{:+.2f} dB ({:+.2f} to {:+.2f})".format(*decided)
    return f"{said} over {over}, in final latents of {decided[-1]:.0f} pictures of prompts set aside"
