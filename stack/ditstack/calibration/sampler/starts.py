"""Starts: where the fit of a sampler may begin: Adams-Bashforth on the model's own grid, and solvers of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor

from ditstack.assembly.linear import unrolled
from ditstack.assembly.solvers import NEARLY_NOISE, is_flow, solver
from ditstack.calibration.trajectories import Grid, begin
from ditstack.maths.multistep import Method, adams_bashforth
from ditstack.pipeline.fitted_scheduler import FLOW
from ditstack.pipeline.pipe import Pipe
from ditstack.pipeline.samplers import SOLVERS
from ditstack.recipe.recipe import Sampler

ADAMS_BASHFORTH = {"Euler": 1, "Adams-Bashforth 2": 2}
"""Titles and orders."""

CROWDED = (1.0, 4 / 3, 5 / 3)
"""How much more the times crowd towards noise than the model's own do, as a factor of its shift: few evaluations want
more of them there. (On the embedded model 5/3 is 2.7 dB better than 1 at 5 evaluations, and none at 12.)"""


def starts(
    pipe: Pipe, grid: Grid, sampler: Sampler, evaluations: int, grid_steps: int, prompts: Sequence[str]
) -> dict[str, Method]:
    """Unfitted methods by their titles, each on the model's own times and on such as crowd more towards noise.

    Args:
        sampler: the user's, with any number of steps.
        grid_steps: of a diffusion process, the steps whose integer timesteps a solver of fewer takes.
        prompts: with which the pipeline is called until it has set a solver's timesteps.
    """
    found = {}
    for title, order in ADAMS_BASHFORTH.items():
        for factor, times in crowds(grid, evaluations).items():
            nodes = torch.cat([grid.process.at(times), times.new_full((1,), grid.end)])
            rows = adams_bashforth(nodes, order)
            found[_titled(title, factor)] = Method(times.float(), nodes.float(), rows.float())
    flow = is_flow(pipe.pipeline.scheduler)
    for one in SOLVERS if flow or evaluations <= grid_steps else ():
        if one.scheduler is None or one.steps(evaluations) != evaluations:
            continue
        for factor in CROWDED:
            kind, own = getattr(diffusers, one.scheduler), pipe.pipeline.scheduler
            made = solver(kind, own, dict(one.settings), None if flow else grid_steps)
            begin(pipe, made, sampler.changed(steps=evaluations), prompts)
            if factor != 1:
                _crowd(made, grid, factor)
            method = unrolled(made, grid.process, grid.kind, grid.end)
            if method is not None and len(method) == evaluations:
                found[_titled(one.title, factor)] = method
    return found


def crowds(grid: Grid, evaluations: int) -> dict[float, Tensor]:
    """The model's own times, spread over so many evaluations, by how much more they crowd towards noise."""
    return {factor: crowded(grid.spread(evaluations), factor, grid.train_steps) for factor in CROWDED}


def crowded(times: Tensor, factor: float, scale: float) -> Tensor:
    """Times shifted towards noise as a flow's are, t' = f t / (1 + (f - 1) t); the first stays where it is."""
    share = times / scale
    shifted = factor * share / (1 + (factor - 1) * share)
    return times[0] * shifted / shifted[0]


def _crowd(made: Any, grid: Grid, factor: float) -> None:
    """Let a solver whose timesteps are set step along other ones."""
    times = crowded(made.timesteps.double().cpu(), factor, grid.train_steps)
    made.timesteps = times.float()
    made.sigmas = torch.cat([grid.process.at(times).float(), made.sigmas[-1:].float().cpu()])
    made.sigmas[:1].clamp_(max=made.sigmas.new_tensor(NEARLY_NOISE if grid.kind == FLOW else torch.inf))


def _titled(title: str, factor: float) -> str:
    return title if factor == 1 else f"{title}, its times crowded {factor:.2g} times towards noise"
