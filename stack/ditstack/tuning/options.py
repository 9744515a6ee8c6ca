"""Options: what `tune` may try at each stage: every method that can stand here, with its knobs; and fewer steps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ditstack.errors import RecipeError
from ditstack.recipe import plan
from ditstack.recipe.adapter import find, methods
from ditstack.recipe.axes import FIT, is_plain, schemes
from ditstack.recipe.axes import fields as fields_of
from ditstack.recipe.layers import Layered
from ditstack.recipe.recipe import Recipe

STAGES = ("quantize", "attention", "cache")
INTERVALS = (2, 3, 4, 5, 6, 8)
FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Of the threshold that the shelf writes, or the method's own."""
STEPS = "sampler"
HIDDEN = ("method", FIT)
"""Fields that an option's name passes over."""


@dataclass(frozen=True)
class Option:
    """Changes of a recipe: fields by stage, None leaving it out; "sampler" for fewer steps."""

    changes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = []
        for stage, value in self.changes.items():
            if stage == STEPS:
                shown.append(f"{value['steps']} steps")
            elif value is not None:
                rest = ", ".join(f"{key} {json.dumps(one)}" for key, one in value.items() if key not in HIDDEN)
                shown.append(f"{value['method']} {rest}".strip())
        return " + ".join(shown) or "plain"

    def __or__(self, other: Option) -> Option:
        return Option({**self.changes, **other.changes})

    def recipe(self, base: Recipe) -> Recipe:
        """The base recipe with these changes.

        Raises:
            RecipeError: it cannot be read.
        """
        name = re.sub(r"[^a-z0-9]+", "-", f"{base.name} {self}".lower()).strip("-")
        layered = Layered.plain(name, base.resolved())
        layered.add({**dict.fromkeys(STAGES), **self.changes}, "tune")
        return Recipe.check(layered)


def options(base: Recipe, axes: dict[str, list[str]]) -> dict[str, list[Option]]:
    """For each stage what can stand here alone, on the base recipe's model and LoRA; `axes` may name the words."""
    model = base.resolved()["model"]["method"]
    found = {}
    for stage in STAGES:
        named = axes.get(stage) or [*_every(stage)]
        fields = [fields_of(stage, word, model, "distill" in base.adapters) for word in named]
        settings = [setting for one in fields if one is not None for setting in turned(stage, one)]
        found[stage] = [one for setting in settings if stands(one := Option({stage: setting}), base, stage)]
    return found


def turned(stage: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A method with each setting of its knob: the interval or the threshold, if it has one."""
    known = find(stage, fields["method"]).model_fields
    if "interval" in known:
        yield from ({**fields, "interval": interval} for interval in INTERVALS)
    elif "threshold" in known:
        own = fields.get("threshold", known["threshold"].default)
        yield from ({**fields, "threshold": round(own * factor, 6)} for factor in FACTORS)
    else:
        yield fields


def stands(option: Option, base: Recipe, stage: str) -> bool:
    """Whether it can be built on this machine, and changes anything."""
    try:
        recipe = option.recipe(base)
    except RecipeError:
        return False
    return not is_plain(recipe, stage) and not any(step.reasons for step in plan.plan(recipe))


def fewer_steps(steps: int) -> list[Option]:
    """The controls: schedules with fewer steps and no cache, every one of a short schedule, else those of INTERVALS."""
    counts = range(1, steps) if steps <= 8 else {*(-(-steps // interval) for interval in INTERVALS), steps * 3 // 4}
    return [Option({STEPS: {"steps": count}}) for count in sorted(counts)]


def _every(stage: str) -> Iterator[str]:
    for method in methods(stage):
        own = schemes(stage, method)
        yield from (f"{method}.{scheme}" for scheme in own)
        if not own:
            yield method
