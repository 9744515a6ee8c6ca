"""Pictures: what a scheduler paints, and what given latents look like, through the pipeline's own decoding.

A fit looks at pictures: of two solvers the one with the nearer latents may have the pictures that are further off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ditstack.calibration.trajectories import Grid, call
from ditstack.maths.multistep import Method
from ditstack.pipeline.fitted_scheduler import SchedulerOutput
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Sampler


def painted(pipe: Pipe, scheduler: Any, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """(B, ...) fp32 pictures under a scheduler; with their graph where gradients are wanted."""
    grad = torch.is_grad_enabled()
    with pipe.sampled_by(scheduler):
        out = call(pipe, prompts, seeds, sampler, unwrapped=grad)
    images = torch.as_tensor(next(one for one in out.values() if one is not None)).float()
    return images if grad else images.cpu()


def decoded(
    pipe: Pipe, grid: Grid, latents: Tensor, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> Tensor:
    """(B, ...) what final latents look like: the pipeline is called for one step, and they take its place."""
    start = grid.times[:1].double()
    nodes = torch.cat([grid.process.at(start), start.new_full((1,), grid.end)]).float()
    method = Method(start.float(), nodes, torch.ones(1, 1))
    scheduler = grid.scheduler(method)
    with pipe.without_cache(), torch.no_grad(), _given(scheduler, latents):
        return painted(pipe, scheduler, prompts, seeds, sampler.changed(steps=1))


@contextmanager
def _given(scheduler: Any, latents: Tensor) -> Iterator[None]:
    """Inside, a step leaves these latents; some pipelines step both halves of guidance."""

    def replaced(*args: Any, **kwargs: Any) -> Any:
        out = type(scheduler).step(scheduler, *args, **kwargs)  # as the clock hears it
        after = out[0]
        given = torch.cat([latents] * (len(after) // len(latents))).to(after)
        return (given,) if isinstance(out, tuple) else SchedulerOutput(prev_sample=given)

    scheduler.step = replaced
    try:
        yield
    finally:
        del scheduler.step
