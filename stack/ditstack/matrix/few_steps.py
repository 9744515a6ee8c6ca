"""Few steps: on a short schedule, is a cache worth more than a schedule that is one step shorter?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ditstack.errors import DitstackError, RecipeError
from ditstack.maths import fidelity
from ditstack.matrix.schema import FewSteps
from ditstack.measure.bench import Trial
from ditstack.measure.controls import SLACK, Controls, evaluations_of, to_choose_on
from ditstack.measure.metrics import estimate
from ditstack.pipeline.samplers import TIMES
from ditstack.recipe import axes
from ditstack.recipe.adapter import find
from ditstack.recipe.recipe import Recipe

if TYPE_CHECKING:
    from ditstack.matrix.cell import Bench


class Schedule:
    """One LoRA, or none, at so many steps: what caches on it are compared with."""

    def __init__(self, bench: Bench, distill: str, steps: int) -> None:
        self.bench, self.distill, self.steps = bench, distill, steps
        self.controls: Controls | None = None
        self.chosen = {"distill": distill} if "distill" in bench.survey.axes else {}

    def row(self, word: str) -> FewSteps:
        """A cache, as gently as it can be set, beside one step fewer and beside as much work without a cache."""
        made = self.bench.reference("cached", self.gentlest(word))
        psnr, fewer = self._psnr(made), self._psnr(self._uncached(self.steps - 1))
        as_dear = max(1, min(self.steps - 1, evaluations_of(made.macs_ratio, self.steps)))
        equal = self._psnr(self._uncached(as_dear))
        gain, share = estimate(_minus(psnr, fewer)), (self.steps - 1) / self.steps
        return FewSteps(
            distill=self.distill,
            steps=self.steps,
            cache=word,
            full_steps=made.pictures.steps.get("full", 0),
            macs_ratio=made.macs_ratio,
            psnr=estimate(psnr),
            fewer_psnr=estimate(fewer),
            fewer_macs_ratio=share,
            gain=gain,
            wins=gain.low > 0 and made.macs_ratio <= share + SLACK,
            equal_steps=as_dear,
            equal_psnr=estimate(equal),
            equal_gain=estimate(_minus(psnr, equal)),
        )

    def gentlest(self, word: str) -> Recipe:
        """The cache skipping as little as it declares that it can; as it is where it declares nothing that fits."""
        given = dict(axes.fields("cache", word, self.bench.survey.model, few_steps=True) or {})
        own = {key: value for key, value in given.items() if key != "method"}
        gentle = find("cache", given["method"])(**own).gentlest(self.steps)
        try:
            return self._read(word, {**given, **gentle})
        except RecipeError:
            return self._read(word, given)

    def _read(self, word: str, cache: dict[str, Any]) -> Recipe:
        changes = {"sampler": {"steps": self.steps, **dict.fromkeys(TIMES)}, "cache": cache}
        return self.bench.survey.recipe({**self.chosen, "cache": word}, changes)

    def _uncached(self, steps: int) -> Trial:
        """The whole schedule without a cache, or the best control with fewer evaluations."""
        recipe = self.bench.survey.recipe(
            {**self.chosen, "cache": axes.NONE}, {"sampler": {"steps": self.steps, **dict.fromkeys(TIMES)}}
        )
        if self.controls is None:
            self.controls = Controls(recipe, to_choose_on(recipe, self.bench.survey.prompts))
        return self.bench.reference(f"{steps} steps", self.controls.best(steps).recipe)

    def _psnr(self, made: Trial) -> list[float]:
        """To the whole schedule without a cache."""
        return fidelity.psnr(made.pictures.images, self._uncached(self.steps).pictures.images)


def rows(bench: Bench, distill: str, steps: int) -> list[FewSteps]:
    """Every cache of the matrix on this schedule; those that refuse it are left out, as their cells say why."""
    schedule, found = Schedule(bench, distill, steps), []
    for word in bench.survey.axes["cache"]:
        if word != axes.NONE:
            try:
                found.append(schedule.row(word))
            except DitstackError:
                continue
    return found


def _minus(a: list[float], b: list[float]) -> list[float]:
    return [0.0 if x == y else x - y for x, y in zip(a, b, strict=True)]
