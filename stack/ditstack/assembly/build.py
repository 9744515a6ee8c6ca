"""Build: apply the stages of a recipe, in the one order."""

from __future__ import annotations

from typing import Any

from ditstack.errors import BadPipeline
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
    for _, adapter in recipe.stages():
        adapter.inspect()
    model = recipe.model
    loaded = model.load() if pipeline is None else pipeline
    set_scheduler(loaded, recipe)
    pipe = model.wrap(loaded)
    if pipeline is None:
        pipe.on_weights.append(lambda: model.settle(loaded))
    for stage in STAGES[1:]:
        if stage in recipe.adapters:
            recipe.adapters[stage].apply(pipe)
        if stage == "quantize":
            for tell in pipe.on_weights:
                tell()
    return pipe


def set_scheduler(pipeline: Any, recipe: Recipe) -> None:
    """Give the pipeline the scheduler that the recipe names, with the model's own settings where it names none."""
    sampler = recipe.sampler
    if sampler.scheduler is None and not sampler.settings:
        return
    import diffusers

    kind = getattr(diffusers, sampler.scheduler, None) if sampler.scheduler else type(pipeline.scheduler)
    if kind is None:
        raise BadPipeline(f"sampler.scheduler: diffusers has no {sampler.scheduler!r}; see diffusers.schedulers")
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **sampler.settings)
