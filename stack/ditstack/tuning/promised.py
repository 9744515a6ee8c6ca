"""Promised: the cheapest stack of those tried that is proved to keep a promise about every picture.

Every option of every stage runs alone on a few prompts, and so do fewer steps by several solvers. The cheapest of each
that keep the line there are combined; the combinations are put in order on more prompts, and proved on all others, as
`calibrate` does it with the settings of one recipe. Cheap is what takes few multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ditstack.calibration.certificate import Certificate, laid_over, said
from ditstack.calibration.run import Bar, Tell
from ditstack.errors import DitstackError
from ditstack.measure.promise.certify import Certification, certify
from ditstack.measure.promise.ladder import Changes, front
from ditstack.measure.promise.trials import Found
from ditstack.pipeline.samplers import SAMPLER
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.tuning.options import STAGES, Option, options, other_samplers
from ditstack.tuning.tune import file_of

SCREENED_ON = 8
"""Prompts on which every option runs alone."""
KEPT = {"quantize": 1, "attention": 1, "cache": 3, SAMPLER: 2}
"""How many of each go on, beside leaving it out."""


@dataclass
class Search:
    """The search for one base recipe and its promise.

    Attributes:
        base: what is written is named as it is; its own stages are options like any.
        axes: the words to try at a stage; else all that can run here.
        tried: every stack that was put in order.
    """

    base: Recipe
    prompts: Sequence[str]
    axes: dict[str, list[str]]
    tell: Tell
    bar: Bar = lambda part, done, count: None
    tried: list[Changes] = field(default_factory=list)
    _alone_at: dict[str, list[Option]] = field(default_factory=dict)

    def choose(self) -> Certificate | None:
        """Find it, and keep its certificate, beside which `written` makes the recipe; None where none is proved.

        Raises:
            RecipeError: a word means nothing at its stage.
            BadFile: there are too few prompts to prove anything.
        """
        self._alone_at = options(self.base, self.axes)
        other_samplers(self.base, self.axes.get(SAMPLER, []), True)
        plain = self.base.with_(self.base.name, **dict.fromkeys(STAGES))
        return certify(plain, self.prompts, self.tell, self.bar, self._candidates, _certificate)

    def _candidates(self, run: Certification, flow: bool) -> list[Changes]:
        trials = run.trials(slice(0, SCREENED_ON))
        alone: dict[str, list[Any]] = {
            stage: [one.changes[stage] for one in each] for stage, each in self._alone_at.items()
        }
        alone[SAMPLER] = [one.changes[SAMPLER] for one in other_samplers(run.recipe, self.axes.get(SAMPLER, []), flow)]
        count = sum(map(len, alone.values()))
        self.tell(f"screening {count} options on {SCREENED_ON} prompts")
        plain = run.of(trials, {}, SCREENED_ON, "screening: ")
        kept: dict[str, list[Any]] = {}
        for stage, values in alone.items():
            found = [one for value in values if (one := self._alone(run, trials, {stage: value})) is not None]
            kept[stage] = [one[stage] for one in _best([plain, *found], run.promise.psnr)[: KEPT[stage]]]
        self.tried = [one for one in _combined(kept) if _stands(run.recipe, one)]
        return self.tried

    def _alone(self, run: Certification, trials: Any, changes: Changes) -> Found | None:
        """An option by itself; None where it cannot be built after all."""
        try:
            return run.of(trials, changes, SCREENED_ON, "screening: ")
        except DitstackError as error:
            self.tell(f"{said(changes)} cannot be tried: {error}")
            return None

    def written(self, certificate: Certificate, extends: str) -> str:
        """The recipe as a file. Its sampler stays, which says what is promised; the certificate has the one to take."""
        chosen = next(one.changes for one in reversed(certificate.tested) if one.kept)
        stages = {stage: chosen.get(stage) for stage in STAGES}
        recipe = self.base.with_(self.base.name, **stages)
        head = [f"The cheapest of {len(self.tried)} stacks that is proved to keep what it promises.", str(certificate)]
        if SAMPLER in certificate.changes:
            head.append(f"With --promise it samples otherwise: {said(certificate.changes)}.")
        return file_of(recipe, stages, extends, head)


def _certificate(found: Certificate) -> Certificate:
    """As it belongs to the recipe that is written, which has the stages itself."""
    return found.model_copy(update={"changes": {key: one for key, one in found.changes.items() if key == SAMPLER}})


def _best(found: Sequence[Found], psnr: float) -> list[Changes]:
    """Of a stage's front, the cheapest whose low end keeps the line, else the safest; without doing nothing."""
    ends = {id(one.attempt): one.low for one in found}
    useful = [one for one in front([(each.attempt, each.low) for each in found]) if one.changes]
    fine = [one for one in reversed(useful) if ends[id(one)] >= psnr]
    return [one.changes for one in (fine or useful[:1])]


def _combined(kept: dict[str, list[Any]]) -> list[Changes]:
    """Every stage with each that is kept and without it; over another sampler the best cache alone."""
    caches, samplers = [None, *kept["cache"]], kept[SAMPLER]
    last: list[Changes] = [{"cache": one} for one in caches]
    last += [{"cache": cache, SAMPLER: sampler} for sampler in samplers for cache in caches[:2]]
    firsts = product([None, *kept["quantize"]], [None, *kept["attention"]])
    every = [{"quantize": a, "attention": b, **rest} for (a, b), rest in product(list(firsts), last)]
    return [one for one in every if any(one.values())]


def _stands(base: Recipe, changes: Changes) -> bool:
    try:
        return not any(step.reasons for step in plan(laid_over(base, changes)))
    except DitstackError:
        return False
