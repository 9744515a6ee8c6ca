"""Options: what `tune` may try at each stage: every method that can stand here, with its knobs; and other samplers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ditstack.errors import RecipeError
from ditstack.measure.controls import controls
from ditstack.pipeline import samplers
from ditstack.pipeline.samplers import SAMPLER
from ditstack.recipe import plan
from ditstack.recipe.adapter import find, methods
from ditstack.recipe.axes import NONE, holds, is_plain, schemes
from ditstack.recipe.axes import fields as fields_of
from ditstack.recipe.recipe import Recipe

DISTILL, STAGES = "distill", ("quantize", "attention", "cache")
INTERVALS = (2, 3, 4, 5, 6, 8)
"""A long schedule's controls have one step in so many."""
TRIED = ("DPM-Solver++ 2M", "UniPC, order 2")
"""Solvers beside the recipe's own, where none is named: the best second-order ones, each of which costs a round."""


@dataclass(frozen=True)
class Option:
    """Changes of a recipe: fields by stage, None leaving it out; "sampler" is another one, whole."""

    changes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = []
        for stage, value in self.changes.items():
            if stage == SAMPLER:
                shown.append(samplers.title(value))
            elif value is not None:
                passed_over = {"method", *find(stage, value["method"]).incidental}
                rest = ", ".join(f"{key} {json.dumps(one)}" for key, one in value.items() if key not in passed_over)
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
        data = {**base.resolved(), **dict.fromkeys(STAGES), **self.changes}
        if DISTILL in self.changes and SAMPLER not in self.changes:
            data[SAMPLER] = _left_open(data)
        return Recipe.parse(data, name)


def options(base: Recipe, axes: dict[str, list[str]]) -> dict[str, list[Option]]:
    """For each stage what can stand here alone, on the base recipe's model and LoRA; `axes` may name the words."""
    model = base.resolved()["model"]["method"]
    found = {}
    for stage in STAGES:
        named = axes.get(stage) or [*_every(stage)]
        lora = "distill" in base.adapters
        settings = [one for word in named for one in turned(base, stage, word, fields_of(stage, word, model, lora))]
        found[stage] = [one for setting in settings if stands(one := Option({stage: setting}), base, stage)]
    return found


def distilled(base: Recipe, named: list[str]) -> list[Option]:
    """Samplers of few steps that can stand here alone; none where the base recipe has one of its own.

    Args:
        named: their words. Where there are none, those that must first be fitted are left out: that takes as long as
            many pictures.
    """
    if DISTILL in base.adapters:
        return []
    model, found = base.resolved()["model"]["method"], []
    for word in named or _every(DISTILL):
        settings = turned(base, DISTILL, word, fields_of(DISTILL, word, model, True))
        options = [Option({DISTILL: setting}) for setting in settings]
        standing = [one for one in options if stands(one, base, DISTILL)]
        found += [one for one in standing if named or not one.recipe(base).adapters[DISTILL].wants_factors]
    return found


def _left_open(data: dict[str, Any]) -> dict[str, Any]:
    """The sampler without what the distill stage brings itself: its steps, and whatever else it was made for."""
    open_ = {key: one for key, one in data.items() if key not in (SAMPLER, *STAGES)}
    made_for = Recipe.parse(open_).adapters[DISTILL].sampler
    dropped = {"scheduler", "settings", *samplers.TIMES} if "scheduler" in made_for or "steps" in made_for else set()
    return {key: one for key, one in data[SAMPLER].items() if key not in dropped | made_for.keys()}


def turned(base: Recipe, stage: str, word: str, fields: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """What a word stands for, with each setting of the knob that its method declares, or with the one that it names.

    Args:
        fields: as they are where the method declares no knob, or cannot be read; None gives nothing.
    """
    if fields is None:
        return
    try:
        adapter = Option({stage: fields}).recipe(base).adapters[stage]
    except RecipeError:
        adapter = None
    knob = adapter.knob if adapter is not None else None
    if knob is None:
        yield fields
    else:
        own, others = getattr(adapter, knob.field), knob.others(base.resolved()[SAMPLER])
        settings = (own,) if holds(stage, word) else knob.settings(own)
        yield from ({**fields, **others, knob.field: value} for value in settings)


def stands(option: Option, base: Recipe, stage: str) -> bool:
    """Whether it can be built on this machine, and changes anything."""
    try:
        recipe = option.recipe(base)
    except RecipeError:
        return False
    return not is_plain(recipe, stage) and not any(step.reasons for step in plan.plan(recipe))


def other_samplers(base: Recipe, words: list[str], flow: bool) -> list[Option]:
    """Solvers and numbers of steps: the words that are named, else fewer steps; see `fewer_steps`.

    Raises:
        RecipeError: a word names no solver.
    """
    if not words:
        return fewer_steps(base, flow)
    own = base.resolved()[SAMPLER]
    found = [Option({SAMPLER: samplers.named(own, word)}) for word in words if word != NONE]
    return [one for one in found if one.changes[SAMPLER] != own]


def fewer_steps(base: Recipe, flow: bool) -> list[Option]:
    """The controls with no cache: every count of a short schedule, else those of INTERVALS, by the recipe's own solver
    and by TRIED.

    Args:
        flow: whether the model's scheduler integrates a flow.
    """
    steps = base.sampler.steps
    counts = range(1, steps) if steps <= 8 else {*(-(-steps // interval) for interval in INTERVALS), steps * 3 // 4}
    found = []
    for count in sorted(counts):
        own, *others = controls(base, count, flow)
        tried = [own, *(one for one in others if one.title in TRIED)]
        found += [Option({SAMPLER: one.recipe.resolved()[SAMPLER]}) for one in tried]
    return found


def _every(stage: str) -> Iterator[str]:
    for method in methods(stage):
        own = schemes(stage, method)
        yield from (f"{method}.{scheme}" for scheme in own)
        if not own:
            yield method
