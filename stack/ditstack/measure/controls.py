"""Controls: what the same work buys without a cache. A cache is worth having only above the best of them.

A control runs the plain model with fewer passes of the network, by one of several solvers, each on the model's own
noise schedule. Which one is best at a budget is chosen on other prompts than those that are reported, so that neither
side is chosen on the figures that it is judged by.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from ditstack.maths import fidelity
from ditstack.measure.bench import Trial, trial
from ditstack.measure.metrics import estimate
from ditstack.pipeline.samplers import fewer
from ditstack.recipe.recipe import Recipe
from ditstack.report import FILED, Estimate

SLACK = 0.01
"""Of all multiply-accumulates: what a skipped step may cost and still count as skipped."""
OTHER_SEEDS = 10_000
"""How far the seeds of the prompts for choosing lie from those that are reported."""
CHOSEN_ON = 8
"""Prompts on which the best control is chosen, at most."""


@dataclass(frozen=True)
class Control:
    """A plain recipe with at most so many passes of the network for each branch of guidance."""

    title: str
    recipe: Recipe


def controls(recipe: Recipe, evaluations: int, flow: bool, own: str = "") -> list[Control]:
    """Every control of a recipe at a budget: its own sampler with fewer steps, and every solver that can replace it.

    A recipe that gives its scheduler settings which other solvers do not take has its own sampler alone.

    Args:
        flow: whether the model's scheduler integrates a flow. A diffusion process has integer timesteps, which fewer
            steps then take from the grid of the recipe's own steps.
        own: the class of the scheduler that the model came with, as far as it is known.
    """
    plain = recipe.plain().resolved()
    found = fewer(plain["sampler"], evaluations, flow, own)
    return [
        Control(title, Recipe.parse({**plain, "sampler": sampler}, f"{evaluations} x {title}"))
        for title, sampler in found.items()
    ]


def evaluations_of(macs_ratio: float, steps: int) -> int:
    """The fewest passes of the network that cost at least so much of `steps` full ones; SLACK is forgiven."""
    return max(1, min(steps, math.ceil((macs_ratio - SLACK) * steps)))


@dataclass
class Controls:
    """The controls of one recipe, of which the best at each budget is chosen once.

    Attributes:
        recipe: what they are controls of.
        prompts: to choose on; other than those that are reported.
        sample: makes a recipe's pictures.
    """

    recipe: Recipe
    prompts: Sequence[str]
    sample: Callable[[Recipe, Sequence[str]], Trial] = trial
    _chosen: dict[int, Control] = field(default_factory=dict)
    _whole: Trial | None = None

    @property
    def steps(self) -> int:
        """Of the plain model, which a recipe with a sampler of its own has more of than it runs."""
        return self.recipe.plain().sampler.steps

    @property
    def whole(self) -> Trial:
        """The plain model with all its steps."""
        if self._whole is None:
            self._whole = self.sample(self._elsewhere(self.recipe.plain()), self.prompts)
        return self._whole

    def at(self, evaluations: int) -> list[Control]:
        """Every control at a budget."""
        return controls(self.recipe, evaluations, self.whole.flow, self.whole.scheduler)

    def best(self, evaluations: int) -> Control:
        """The one with the highest mean PSNR to the plain model with all its steps."""
        if evaluations >= self.steps:
            return Control("all steps", self.recipe.plain())
        if evaluations not in self._chosen:
            self._chosen[evaluations] = max(self.at(evaluations), key=self._worth)
        return self._chosen[evaluations]

    def _worth(self, control: Control) -> float:
        made = self.sample(self._elsewhere(control.recipe), self.prompts)
        return statistics.fmean(fidelity.psnr(made.pictures.images, self.whole.pictures.images))

    def _elsewhere(self, recipe: Recipe) -> Recipe:
        data = recipe.resolved()
        return Recipe.parse({**data, "seed": data["seed"] + OTHER_SEEDS}, recipe.name)


class Beside(BaseModel):
    """A stack beside the best control that does at least as much work, on the same prompts and seeds."""

    model_config = FILED

    control: str
    evaluations: int
    """Passes of the network for each branch of guidance."""
    psnr: Estimate
    """Of the control, to the plain model with all its steps."""
    gain: Estimate
    """The stack's mean PSNR less the control's, paired."""
    gain_p5: Estimate
    """The same of the 5th percentile."""

    def __str__(self) -> str:
        gain, low = (f"{one.mean:+.1f} dB ({one.low:+.1f} to {one.high:+.1f})" for one in (self.gain, self.gain_p5))
        return (
            f"beside the same work in {self.evaluations} full evaluations, by {self.control} "
            f"({self.psnr.mean:.1f} dB): {gain}; in the 5th percentile {low}"
        )


def beside(found: Controls, made: Trial, baseline: Trial) -> Beside | None:
    """A stack beside the control of its multiply-accumulates; None where it saves not even one step."""
    evaluations = evaluations_of(made.pictures.macs / max(1, baseline.pictures.macs), found.steps)
    if evaluations >= found.steps:
        return None
    control = found.best(evaluations)
    other = found.sample(control.recipe, made.pictures.prompts)
    ours, theirs = (fidelity.psnr(one.pictures.images, baseline.pictures.images) for one in (made, other))
    return Beside(
        control=control.title,
        evaluations=evaluations,
        psnr=estimate(theirs),
        gain=_gained(ours, theirs, fidelity.mean),
        gain_p5=_gained(ours, theirs, fidelity.low_end),
    )


def _gained(ours: Sequence[float], theirs: Sequence[float], of: fidelity.Statistic) -> Estimate:
    mean, low, high = fidelity.paired(ours, theirs, of)
    return Estimate(mean=mean, low=low, high=high)


def to_choose_on(recipe: Recipe, reported: Sequence[str]) -> list[str]:
    """Calibration prompts that are not reported; where a recipe has none, the reported ones, which favours controls."""
    others = [one for one in recipe.calibration if one not in reported]
    return (others or list(reported))[:CHOSEN_ON]
