"""Aims: what the unaccelerated model tends to on the calibration prompts, made before anything of it is rounded.

A stage that is fitted towards it says so by `Adapter.aims_at`. The model stands alone then, and is gone before the
stack is built: two of them never lie in memory together.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.build import build, changed_weights, take_down
from ditstack.calibration.conditions import conditions, digest
from ditstack.calibration.converged import LATENTS, converged
from ditstack.calibration.run import Bar, CalibrationRun, Partial, Tell
from ditstack.calibration.trajectories import read_grid
from ditstack.maths.trajectory import Trajectory
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.recipe import Recipe

OF_THE_STACK = "converged latents of the stack as it stood"
WEIGHTS_ARE_CHANGED = (
    "distill was fitted towards what the rounded weights make, since the unrounded ones are not at hand; "
    "`ditstack calibrate` loads them first"
)


@dataclass(frozen=True)
class Aims:
    """What to fit towards.

    Attributes:
        converged: of each calibration prompt; None leaves it to the stack as it stands.
        told: of what they are.
        partial: the file that keeps them while the fit goes on.
    """

    converged: Trajectory | None = None
    told: str = OF_THE_STACK
    partial: Partial | None = None


def wants_aims(recipe: Recipe) -> int:
    """Steps of the unaccelerated run that a stage is fitted towards; 0 where none is, or where nothing differs from it.

    Attention, weights: what changes the model's answer. A cache stands aside while aims are made.
    """
    steps = max([one.aims_at for _, one in recipe.stages() if one.wants_factors], default=0)
    changing = [one for stage, one in recipe.stages() if stage in ("quantize", "attention") and not _is_neutral(one)]
    return steps if changing else 0


def plain_aims(recipe: Recipe, pipeline: Any, prompts: Sequence[str], file: Path, tell: Tell, bar: Bar) -> Aims:
    """Aims of the recipe's plain model, before `recipe` is built. Killed, they go on when they are called for again.

    Args:
        pipeline: on which the recipe will be built; None loads the recipe's own model and lets it go.
        file: of the factors; the aims are kept beside it until they are fitted to.
    """
    steps = wants_aims(recipe)
    if not steps:
        return Aims()
    plain = recipe.plain()
    pipe = build(plain, pipeline)
    try:
        if "quantize" in changed_weights(pipe):
            return Aims()
        found = conditions(plain, pipe)
        known = {**found, "prompts": digest(list(prompts)), "steps": str(steps)}
        partial = Partial(file.with_name(f"{file.name}.aims"), known, tell)
        run = CalibrationRun(pipe, prompts, plain.sampler, tell, bar, partial)
        tell(f"the unaccelerated model: {steps} steps for {len(prompts)} prompts, to aim at")
        grid = read_grid(pipe, plain.sampler, plain.sampler.steps, prompts[:1])
        made = converged(pipe, grid, run, steps)
        partial.keep(LATENTS, partial.of(LATENTS), at_once=True)
    finally:
        take_down(pipe)
    del pipe, run
    _let_go()
    return Aims(made, f"{steps} steps of the unaccelerated model, weights {found['weights']}", partial)


def note_aims(recipe: Recipe, pipe: Pipe, aims: Aims) -> None:
    """Say so where a fit had to aim at something else than its recipe asks for."""
    if wants_aims(recipe) and aims.converged is None and WEIGHTS_ARE_CHANGED not in pipe.notes:
        pipe.notes.append(WEIGHTS_ARE_CHANGED)


def _is_neutral(adapter: Adapter) -> bool:
    """Whether its fields are those at which it changes nothing."""
    if adapter.neutral is None or adapter.rounds_activations:
        return False
    return all(getattr(adapter, key) == value for key, value in adapter.neutral.items())


def _let_go() -> None:
    """The memory of what nobody holds any more is free again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
