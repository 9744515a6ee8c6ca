"""Ladder: the settings that a promise tries, and their order, from the safest to the cheapest.

The values of one knob are in order already. Where settings differ in several things, each is tried on a few prompts of
its own, and those that something cheaper is as safe as are passed over (Pareto testing, arXiv 2210.07913): prompts that
chose the order prove nothing any more, the others prove as much as if the order had been known.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ditstack.calibration.certificate import Attempt, laid_over
from ditstack.errors import RecipeError
from ditstack.measure.controls import controls
from ditstack.pipeline import samplers
from ditstack.pipeline.samplers import SAMPLER
from ditstack.recipe import axes
from ditstack.recipe.plan import check_plan
from ditstack.recipe.recipe import Recipe

Changes = dict[str, Any]
"""Of a recipe: fields by stage, None leaving it out; "sampler" is another one, whole."""

PLACES = tuple(axis for axis in axes.AXES if axis != "distill")
"""What a promise may try: all that leaves the unaccelerated picture as it is, and fewer steps of it."""
SHARES = (0.9, 0.8, 0.6, 0.5, 0.35, 0.25, 0.2)
"""Of the steps, where there is no cache."""
SOLVERS = ("DPM-Solver++ 2M", "UniPC, order 2")
"""Beside the recipe's own."""


def is_ordered(recipe: Recipe) -> bool:
    """Whether the order of what is tried is known beforehand."""
    return not _tries(recipe) and _knob(recipe) is not None


def settings(recipe: Recipe, flow: bool = True) -> list[Changes]:
    """What is tried: what the promise names; else each value of the cache's knob, the safest first; else fewer steps.

    Args:
        flow: whether the model's scheduler integrates a flow.

    Raises:
        RecipeError, Incompatible: a setting that it names cannot be read, or cannot be stacked.
    """
    if tries := _tries(recipe):
        return _combined(recipe, tries)
    if (knob := _knob(recipe)) is not None:
        own = getattr(recipe.adapters["cache"], knob.field)
        return [{"cache": {knob.field: value}} for value in knob.settings(own)]
    return [{}, *_fewer_steps(recipe, flow)]


def front(found: Sequence[tuple[Attempt, float]]) -> list[Attempt]:
    """Those than which nothing is as cheap and as safe, the safest first.

    Args:
        found: settings on the same pictures, each with the low end of its pictures in dB.
    """
    kept: list[Attempt] = []
    safest = float("-inf")
    for attempt, low in sorted(found, key=lambda one: (*cost(one[0]), -one[1])):
        if low > safest:
            kept.append(attempt)
            safest = low
    return kept[::-1]


def cost(attempt: Attempt) -> tuple[float, int]:
    """Multiply-accumulates to a thousandth; where those are equal, the lighter weights are cheaper."""
    return round(attempt.macs, 3), attempt.weights or 0


def _tries(recipe: Recipe) -> Mapping[str, Any]:
    promise = recipe.quality.promise
    return promise.tries if promise is not None else {}


def _knob(recipe: Recipe) -> Any:
    cache = recipe.adapters.get("cache")
    return cache.knob if cache is not None else None


def _combined(recipe: Recipe, tries: Mapping[str, Any]) -> list[Changes]:
    """Every combination of what is named, each of which must stand."""
    if strange := [one for one in tries if one not in PLACES]:
        raise RecipeError(
            f"the promise of {recipe.name} cannot be tried:",
            [f"quality.promise.tries.{one}: unknown; wanted {', '.join(PLACES)}" for one in strange],
        )
    each = [[(stage, one) for one in _values(recipe, stage, tries[stage])] for stage in PLACES if stage in tries]
    found: list[Changes] = []
    for pairs in itertools.product(*each):
        changes = dict(pairs)
        check_plan(laid_over(recipe, changes))
        found += [changes] if changes not in found else []
    return found


def _values(recipe: Recipe, stage: str, named: Any) -> list[Changes | None]:
    """What is named of one stage: words, or fields with their values."""
    own = recipe.resolved()[SAMPLER] if stage == SAMPLER else {}
    if isinstance(named, Mapping):
        every = itertools.product(*([(field, value) for value in values] for field, values in named.items()))
        return [{**own, **dict(one)} for one in every]
    if stage == SAMPLER:
        return [samplers.named(own, str(word)) for word in named]
    model = recipe.model.method
    return [axes.fields(stage, str(word), model, "distill" in recipe.adapters) for word in named]


def _fewer_steps(recipe: Recipe, flow: bool) -> list[Changes]:
    """Of the recipe's own solver and of SOLVERS, on the model's own noise schedule."""
    counts = sorted({max(1, round(share * recipe.sampler.steps)) for share in SHARES}, reverse=True)
    found = []
    for count in counts:
        own, *others = controls(recipe, count, flow)
        tried = [own, *(one for one in others if one.title in SOLVERS)]
        found += [{SAMPLER: one.recipe.resolved()[SAMPLER]} for one in tried if count < recipe.sampler.steps]
    return found
