"""Build: apply the stages of a recipe, in the one order."""

from __future__ import annotations

from typing import Any

from ditstack.assembly.scheduler import check_scheduler, chosen_scheduler
from ditstack.pipeline.pipe import Pipe, execution_device
from ditstack.recipe import plan
from ditstack.recipe.adapter import STAGES
from ditstack.recipe.recipe import Recipe


def build(recipe: Recipe, pipeline: Any = None) -> Pipe:
    """Stack a recipe.

    Args:
        pipeline: a diffusers pipeline that the caller loaded; None loads the recipe's own model.

    Raises:
        Incompatible: before any weight is loaded.
        BadFile, BadPipeline: a stage cannot be put up; before anything is sampled.
    """
    plan.check(recipe, None if pipeline is None else str(execution_device(pipeline)))
    check_scheduler(recipe.sampler)
    for _, adapter in recipe.stages():
        adapter.inspect()
    model = recipe.model
    loaded = model.load() if pipeline is None else pipeline
    scheduler = chosen_scheduler(loaded, recipe.sampler)
    pipe = model.wrap(loaded)
    loaded.scheduler = scheduler
    if pipeline is None:
        pipe.on_weights.append(lambda: model.settle(loaded))
    for stage in STAGES[1:]:
        if stage in recipe.adapters:
            recipe.adapters[stage].apply(pipe)
        if stage == "quantize":
            for tell in pipe.on_weights:
                tell()
    return pipe
