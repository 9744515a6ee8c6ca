"""Choice: how a forecast cache runs, chosen on the model that runs: which steps are full, and what it extrapolates by.

No constants are good on every model. So a few schedules and predictors run on some of the calibration prompts, moves of
the best one after them, and what is best there is kept where prompts that it was not chosen on gain clearly: with a
95 % interval above zero. All take as many full steps as the default. Pictures are what is judged: final latents may
be nearer where pictures are not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ditstack.caching.setting import SAID, Gain, Setting, told, written
from ditstack.calibration.run import TOGETHER, Judge
from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import paired
from ditstack.maths.schedule import even, nearby, spreads
from ditstack.pipeline.samplers import fewer
from ditstack.recipe.recipe import Sampler

if TYPE_CHECKING:
    from ditstack.recipe.calibration import Calibration

TRIES = 40
"""Moves that are tried from the best schedule."""
RACE = (TOGETHER, 2 * TOGETHER, 4 * TOGETHER)
"""Pictures after which a setting that is behind the best one runs on no others."""
FEWEST = 8
"""Calibration prompts, half of which decide: with fewer an interval says nothing."""
CHOOSING, DECIDING = 8, 32
"""Pictures of each half, at least; prompts run again from other noise where they are fewer."""
SOLVERS_ON = 8
"""Pictures on which the best plain solver is chosen."""
PART = "schedules"

Scores = Callable[[Setting, Sequence[int]], list[float]]
"""Of each of some pictures, decibels under a setting; more is better."""


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
        self.plain = replace(start, full=even(start.steps, len(start.full)))
        self.rng = random.Random(0)

    def stages(self, fitting: Sequence[int]) -> Iterator[Setting]:
        """The best setting so far on these pictures: of predictors, of spreads, of moves, and of predictors again."""
        best = self.start

        def better(trial: Setting) -> Setting:
            races = (self._mean(trial, fitting[:count]) > self._mean(best, fitting[:count]) for count in RACE)
            return trial if trial != best and all(races) else best

        steps, count = self.start.steps, len(self.start.full)
        for full in filter(self._allows, (self.start.full, self.plain.full)):
            for predictor in self.predictors:
                best = better(Setting(steps, full, *predictor))
        yield best
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

        The more a setting was chosen, the later it stands: each must gain clearly over the one that is kept so far.
        Even steps are chosen by nobody, so that both halves may speak for them.
        """
        kept = self.start
        if self._allows(self.plain.full) and self._gain(self.plain, kept, [*fitting, *deciding])[1] > 0:
            kept = self.plain
        for setting in dict.fromkeys(self.stages(fitting)):
            if setting != kept and self._gain(setting, kept, deciding)[1] > 0:
                kept = setting
        return kept, self._gain(kept, self.start, deciding)

    def _gain(self, setting: Setting, over: Setting, places: Sequence[int]) -> tuple[float, float, float]:
        return paired(self.scores(setting, places), self.scores(over, places))

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
        self.judge = Judge(calibration, PART)

    def scores(self, setting: Setting, places: Sequence[int]) -> list[float]:
        """Of each picture, decibels to the uncached one."""

        def make(part: Sequence[int]) -> Tensor | None:
            self.take(setting)
            try:
                return self.calibration.pictures(part)
            except BadPipeline:
                if setting == self.start:
                    raise
                return None  # a bold forecast may overflow where the default does not

        return self.judge.scores(str(setting), places, make)

    def solver(self, fitting: Sequence[int], deciding: Sequence[int], kept: Setting) -> str | None:
        """What to write instead, in a sentence, where a plain solver with as many evaluations is ahead.

        It changes no picture, so that it need not be clear; it says whether it is.
        """
        calibration, flow = self.calibration, self.calibration.flow
        if flow is None:
            return None
        own = calibration.sampler.model_dump(exclude_none=True, exclude_defaults=True) | {"steps": kept.steps}
        found = fewer(own, len(kept.full), flow, "the sampler as it is")
        means = {title: fmean(self._solved(one, fitting[:SOLVERS_ON])) for title, one in found.items()}
        best = max(means, key=lambda title: means[title])
        ahead = paired(self._solved(found[best], deciding), self.scores(kept, deciding))
        gain = Gain(*ahead, len(deciding), calibration.decodes)
        if gain.mean <= 0:
            return None
        unclear = "" if gain.low > 0 else " (not clear)"
        lines = {key: one for key, one in found[best].items() if one and one != own.get(key)}
        return (
            f"{SAID}without a cache, as many evaluations by {best} gain {gain.over('this')}{unclear}; "
            f"write sampler: {_inline(lines)} and cache: none for that"
        )

    def _solved(self, sampler: dict[str, Any], places: Sequence[int]) -> list[float]:
        """Of each uncached picture by another sampler, decibels to that by the recipe's own."""

        def make(part: Sequence[int]) -> Tensor | None:
            try:
                with self.calibration.solved_by(Sampler.model_validate(sampler)):
                    return self.calibration.uncached_pictures(part)
            except BadPipeline:
                return None  # pipelines that give their scheduler times of their own take few others

        return self.judge.scores(f"solver {_inline(sampler)}", places, make)


def _inline(data: dict[str, Any]) -> str:
    """As one line of a recipe."""
    told = (f"{key}: {_inline(one) if isinstance(one, dict) else one}" for key, one in data.items())
    return f"{{{', '.join(told)}}}"


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
    fitting, deciding = halves(calibration, choosing=RACE[-1])
    trials = Trials(calibration, take, start)
    choice = Choice(trials.scores, start, predictors, last_full)
    setting, gain = choice.decided(fitting, deciding)
    decided = Gain(*gain, len(deciding), calibration.decodes)
    calibration.tell(_cost(calibration, trials.judge.made))
    calibration.tell(told(setting, decided))
    found = {**setting.tensors(), "gain": torch.tensor(decided, dtype=torch.float64)}
    beside = trials.solver(fitting, deciding, setting)
    if beside is None:
        return found
    calibration.tell(beside)
    return {**found, "beside": written(beside)}


def _cost(calibration: Calibration, made: int) -> str:
    """What was tried, how it was judged, and in what time."""
    ran = f"{SAID}{made / len(calibration.prompts):.0f} cached generations of each prompt were tried"
    seconds = calibration.spent
    took = f"in {sum(seconds.values()):.0f} s"
    if calibration.decodes:
        return f"{ran} and judged by their pictures, {took}, of which decoding took {seconds['decode']:.1f} s"
    return f"{ran}, {took}, and judged by their final latents, since this pipeline decodes none"


def halves(calibration: Calibration, choosing: int = CHOOSING) -> tuple[list[int], list[int]]:
    """Places of the pictures that choose, and of those that decide, of other prompts.

    Args:
        choosing: how many choose, at least.

    Raises:
        BadPipeline: there are too few prompts.
    """
    count = len(calibration.prompts)
    if count < FEWEST:
        raise BadPipeline(f"found {count} calibration prompts; a choice takes at least {FEWEST}, better 32")
    return _pictures(range(count // 2), count, choosing), _pictures(range(count // 2, count), count, DECIDING)


def _pictures(half: range, count: int, least: int) -> list[int]:
    """Places of so many pictures, at least, of one half of the prompts."""
    return [place + count * turn for turn in range(math.ceil(least / len(half))) for place in half]
