"""Build: apply the stages of a recipe, in the one order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch

from ditstack.assembly.anatomy import check_stages, refuse_compiled
from ditstack.assembly.drift import sketch
from ditstack.assembly.rounded import refuse_on_rounded
from ditstack.assembly.scheduler import check_scheduler, chosen_scheduler
from ditstack.assembly.snapshot import unchanged_on_failure
from ditstack.errors import BadPipeline
from ditstack.pipeline.hooks import Undo, noting_undo
from ditstack.pipeline.pipe import SWITCHED, Pipe, execution_device, transformers_of
from ditstack.recipe import plan
from ditstack.recipe.adapter import STAGES, Adapter
from ditstack.recipe.memory.room import check_room
from ditstack.recipe.recipe import PLAIN_STAGES, Recipe

OF_WEIGHTS = ("distill", "quantize")
"""Stages that change weights; what they did stays when a stack is removed."""
LOG = logging.getLogger("ditstack")

_STANDING: WeakValueDictionary[int, Pipe] = WeakValueDictionary()
"""What stands on a pipeline, by its id."""
_DONE: WeakKeyDictionary[torch.nn.Module, dict[str, Adapter]] = WeakKeyDictionary()
"""What stages have done to the weights of a transformer."""


def build(recipe: Recipe, pipeline: Any = None) -> Pipe:
    """Stack a recipe.

    Args:
        pipeline: a diffusers pipeline that the caller loaded; None loads the recipe's own model.

    Raises:
        Incompatible: before any weight is loaded.
        BadFile, BadPipeline: a stage cannot be put up; before anything is sampled.
    """
    check_stack(recipe, pipeline)
    if pipeline is None:
        return _load(recipe)
    return _put_up(recipe, pipeline)


def _load(recipe: Recipe) -> Pipe:
    """The recipe's own model with its stages; weights to be rounded are so on their way to the device, block by block.

    So the device holds the rounded model and one block that is not, at most.
    """
    model = recipe.model
    model.check_source()
    if tight := check_room(recipe):
        LOG.warning(tight)
    waits = model.waits and "quantize" in recipe.adapters
    loaded = model.load(wait=waits)
    pipe = _put_up(recipe, loaded, lambda: model.settle(loaded), model.place() if waits else None)
    pipe.notes += [tight] if tight else []
    return pipe


@contextmanager
def unchanged(recipe: Recipe, pipeline: Any) -> Iterator[None]:
    """Inside, a recipe is put up on a pipeline; where that raises anything, the pipeline is as it was before."""
    changes_weights = bool(_of_weights(recipe, pipeline)[0])
    with unchanged_on_failure(pipeline, changes_weights), _forgetting_on_failure(pipeline):
        yield


def check_stack(recipe: Recipe, pipeline: Any = None) -> None:
    """Refuse what can be known to fail before any weight is loaded, rounded or copied."""
    plan.check_plan(recipe, None if pipeline is None else str(execution_device(pipeline)))
    check_scheduler(recipe.sampler)
    for _, adapter in recipe.stages():
        adapter.inspect()
    if pipeline is not None:
        refuse_compiled(pipeline)
        _refuse_shared_cache(recipe, pipeline)
        recipe.model.check_family(pipeline)
        check_stages(recipe, {**_of_weights(recipe, pipeline)[0], **_others(recipe)}, pipeline)
        chosen_scheduler(pipeline, recipe.sampler)


def _refuse_shared_cache(recipe: Recipe, pipeline: Any) -> None:
    """Refuse stages on a transformer that wears a cache of diffusers for another pipeline's stack.

    diffusers takes its hooks off as if no others lay on them; a pipeline without stages puts none there.

    Raises:
        BadPipeline: with what to do.
    """
    own = standing_on(pipeline)
    clocks = [SWITCHED[one] for one in transformers_of(pipeline).values() if one in SWITCHED]
    if recipe.adapters.keys() - PLAIN_STAGES and any(own is None or clock is not own.clock for clock in clocks):
        raise BadPipeline(
            "another pipeline's stack has put a cache of diffusers on this transformer; `remove()` that stack first"
        )


def standing_on(pipeline: Any) -> Pipe | None:
    """The pipe of the stack that a pipeline carries."""
    found = _STANDING.get(id(pipeline))
    return found if found is not None and found.pipeline is pipeline else None


def changed_weights(pipe: Pipe) -> dict[str, Adapter]:
    """The stages that changed the weights of a pipe's transformers, now or earlier."""
    return {stage: one for module in pipe.transformers.values() for stage, one in _DONE.get(module, {}).items()}


def take_down(pipe: Pipe) -> list[str]:
    """Give a pipeline back as it was before its stack.

    Returns:
        What cannot be undone, in sentences.
    """
    if standing_on(pipe.pipeline) is pipe:
        del _STANDING[id(pipe.pipeline)]
        pipe.clock.leave()
        for undo in reversed(pipe.undo):
            undo()
    done = changed_weights(pipe)
    return [f"weights stay as {stage} {adapter.method} left them" for stage, adapter in done.items()]


def _put_up(recipe: Recipe, pipeline: Any, settle: Undo | None = None, bound_for: torch.device | None = None) -> Pipe:
    wanted, kept = _of_weights(recipe, pipeline)
    undo: list[Undo] = []
    if (before := standing_on(pipeline)) is not None:
        take_down(before)
    with noting_undo(undo):
        pipe = recipe.model.wrap(pipeline)
    pipe.undo, pipe.bound_for = undo, bound_for
    _set_scheduler(pipe, chosen_scheduler(pipeline, recipe.sampler))
    pipe.notes += kept
    if settle is not None:
        pipe.on_weights.append(settle)
    for stage, adapter in wanted.items():
        _change_weights(pipe, stage, adapter)
    for tell in pipe.on_weights:
        tell()
    with noting_undo(undo):
        for adapter in _others(recipe).values():
            adapter.apply(pipe)
    _STANDING[id(pipeline)] = pipe
    return pipe


def _others(recipe: Recipe) -> dict[str, Adapter]:
    """The stages after the model's that change no weights."""
    return {
        stage: recipe.adapters[stage] for stage in STAGES[1:] if stage in recipe.adapters and stage not in OF_WEIGHTS
    }


def _of_weights(recipe: Recipe, pipeline: Any) -> tuple[dict[str, Adapter], list[str]]:
    """The stages that must change weights now, and what earlier ones did that this recipe says nothing of.

    Raises:
        BadPipeline: a stage did something else to them.
    """
    done = {stage: one for module in transformers_of(pipeline).values() for stage, one in _DONE.get(module, {}).items()}
    wanted = {stage: recipe.adapters[stage] for stage in OF_WEIGHTS if stage in recipe.adapters}
    kept = []
    for stage, adapter in done.items():
        if wanted.get(stage) == adapter:
            del wanted[stage]
        elif stage in wanted:
            raise BadPipeline(
                f"the weights were changed by {stage} {adapter.method} with other settings, which cannot be undone; "
                f"load the pipeline again, or write `{stage}: none` to stack on the weights as they are"
            )
        else:
            kept.append(
                f"{stage}: none, but the weights stay as {stage} {adapter.method} of an earlier recipe left them"
            )
    return wanted, kept


def _change_weights(pipe: Pipe, stage: str, adapter: Adapter) -> None:
    before = sketch(pipe.transformers)
    adapter.apply(pipe)
    if sketch(pipe.transformers) != before:
        for module in pipe.transformers.values():
            _DONE.setdefault(module, {})[stage] = adapter
            if stage == "quantize":
                refuse_on_rounded(module, f"quantize {adapter.method}")
    elif stage == "quantize":
        note = f"quantize {adapter.method} quantized no linear: its fields exclude every linear of the blocks"
        pipe.notes.append(note)
        LOG.warning(note)


def _set_scheduler(pipe: Pipe, scheduler: Any) -> None:
    before, pipeline = pipe.pipeline.scheduler, pipe.pipeline
    pipeline.scheduler = pipe.scheduler = scheduler
    pipe.own_scheduler = before

    def undo() -> None:
        if pipeline.scheduler is pipe.scheduler and before is not pipe.scheduler:
            pipeline.scheduler = before

    pipe.undo.append(undo)


@contextmanager
def _forgetting_on_failure(pipeline: Any) -> Iterator[None]:
    """Where what is inside fails, what is known of the pipeline is what was known before."""
    standing, modules = standing_on(pipeline), list(transformers_of(pipeline).values())
    done = [dict(_DONE.get(module, {})) for module in modules]
    try:
        yield
    except BaseException:
        _STANDING.pop(id(pipeline), None)
        if standing is not None:
            _STANDING[id(pipeline)] = standing
        for module, stages in zip(modules, done, strict=True):
            _DONE[module] = stages
        raise
