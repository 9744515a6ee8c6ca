"""Trajectories: final latents of a pipeline under a given scheduler, with a gradient where one is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ditstack.assembly.sample import call_arguments
from ditstack.calibration.run import SEED
from ditstack.maths.multistep import Method, Process, adams_bashforth
from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler, process_of
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import Calibration
from ditstack.recipe.recipe import Sampler
from ditstack.weights.dense import dense

TOGETHER = 8
"""Prompts of one converged run."""
LARGE = 100_000_000
"""A transformer of more parameters keeps the inputs of its blocks alone, not what they compute inside."""


class _Seen(BaseException):
    """Raised inside a pipeline when there is nothing more to wait for."""


@dataclass(frozen=True)
class Grid:
    """A dense grid of the model's own scheduler: timesteps, and the ODE's coordinate after the last."""

    process: Process
    kind: str
    times: Tensor
    end: float
    train_steps: int

    def thinned(self, count: int) -> Tensor:
        """(count,) timesteps spread over the grid as the scheduler spreads them."""
        at = torch.arange(count, dtype=torch.double) * len(self.times) / count
        low = at.long().clamp_max(len(self.times) - 1)
        high = (low + 1).clamp_max(len(self.times) - 1)
        times = self.times.double()
        return times[low] + (at - low) * (times[high] - times[low])

    def method(self, count: int | None = None, order: int = 2) -> Method:
        """Adams-Bashforth on the grid, or on `count` times of it."""
        times = self.times.double() if count is None else self.thinned(count)
        nodes = torch.cat([self.process.at(times), times.new_full((1,), self.end)])
        return Method(times.float(), nodes.float(), adams_bashforth(nodes, order).float())


def read_grid(pipe: Pipe, sampler: Sampler, steps: int, prompts: Sequence[str]) -> Grid:
    """The timesteps at which the pipeline's own scheduler would call the model in so many steps."""
    pipeline = pipe.pipeline
    own = pipeline.scheduler
    process, kind = process_of(own)

    def stop(*_: Any) -> None:
        raise _Seen

    handles = [one.register_forward_pre_hook(stop) for one in pipe.transformers.values()]
    try:
        with torch.no_grad():
            _call(pipe, prompts, [SEED], sampler.model_copy(update={"steps": steps}))
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    times = own.timesteps.detach().double().cpu()
    return Grid(process, kind, times.unique().flip(0), 0.0, own.config.get("num_train_timesteps", 1000))


def converged(pipe: Pipe, grid: Grid, calibration: Calibration) -> Tensor:
    """(P, ...) final latents of the calibration prompts without a cache, by Adams-Bashforth 2 on the whole grid.

    What a killed calibration had is not made again.
    """
    scheduler = FittedMultistepScheduler.of(grid.method(), grid.kind, grid.train_steps)
    sampler = calibration.sampler.model_copy(update={"steps": len(grid.times)})
    found = calibration.partial.of("converged latents")
    count = len(calibration.prompts)
    for start in range(0, count, TOGETHER):
        places = range(start, min(start + TOGETHER, count))
        if f"{start:06d}" not in found:
            prompts, seeds = [calibration.prompts[at] for at in places], [SEED + at for at in places]
            with pipe.without_cache(), torch.no_grad():
                found[f"{start:06d}"] = final_latents(pipe, scheduler, prompts, seeds, sampler)
            calibration.partial.keep("converged latents", found)
        calibration.bar("converged latents", places.stop, count)
    return torch.cat([found[key] for key in sorted(found)])


def final_latents(pipe: Pipe, scheduler: Any, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """(B, ...) fp32: what `scheduler` leaves after its last step; inside `differentiable` with its graph."""
    pipeline, own = pipe.pipeline, pipe.pipeline.scheduler
    last, grad = _Last(scheduler), torch.is_grad_enabled()
    pipeline.scheduler = scheduler
    try:
        with last.listening():
            _call(pipe, prompts, seeds, sampler, unwrapped=grad)
    except _Seen:
        pass
    finally:
        pipeline.scheduler = own
    latents = last.latents[: len(prompts)].float()  # some schedulers step both halves of guidance
    return latents if grad else latents.cpu()


@contextmanager
def differentiable(pipe: Pipe) -> Iterator[None]:
    """Inside, final latents keep their graph to the scheduler's numbers; `backward` must be called inside too.

    The cache stands aside, torchao's rounded weights are read as dense ones, attention is torch's own, and of each
    evaluation only the inputs are held until it is run again.
    """
    with ExitStack() as inside:
        inside.enter_context(torch.enable_grad())
        for one in (_uncounted(pipe), _frozen(pipe), _dense(pipe), _native(pipe), _checkpointed(pipe)):
            inside.enter_context(one)
        yield


def _call(pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler, unwrapped: bool = False) -> None:
    """The pipeline's call; `unwrapped` is the function under its `torch.no_grad`."""
    pipeline = pipe.pipeline
    arguments = call_arguments(pipe, prompts, sampler)
    arguments["generator"] = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    call = inspect.unwrap(type(pipeline).__call__) if unwrapped else type(pipeline).__call__
    call(pipeline, **arguments)


class _Last:
    """Hears a scheduler's last step and ends the pipeline's call there: nothing is decoded."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.latents = torch.empty(0)

    @contextmanager
    def listening(self) -> Iterator[None]:
        step = self.scheduler.step

        def heard(*args: Any, **kwargs: Any) -> Any:
            out = step(*args, **kwargs)
            if self.scheduler.step_index == len(self.scheduler.timesteps):
                self.latents = out[0] if isinstance(out, tuple) else out.prev_sample
                raise _Seen
            return out

        self.scheduler.step = heard
        try:
            yield
        finally:
            del self.scheduler.step


@contextmanager
def _uncounted(pipe: Pipe) -> Iterator[None]:
    """Inside, passes are neither cached nor counted: a pass that runs again for its gradient is no other pass."""
    run, pipe.clock.run = pipe.clock.run, lambda call, module, args, kwargs: call(*args, **kwargs)
    try:
        yield
    finally:
        pipe.clock.run = run


@contextmanager
def _frozen(pipe: Pipe) -> Iterator[None]:
    """Inside, no weight of the pipeline wants a gradient."""
    parts = [one for one in pipe.pipeline.components.values() if isinstance(one, torch.nn.Module)]
    wanting = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    for weight in wanting:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanting:
            weight.requires_grad_(True)


@contextmanager
def _dense(pipe: Pipe) -> Iterator[None]:
    """Inside, torchao's rounded weights are plain tensors of the same values, through which gradients go."""
    linears = [one for part in pipe.transformers.values() for one in part.modules() if isinstance(one, torch.nn.Linear)]
    rounded = {one: one.weight for one in linears if hasattr(one.weight, "__tensor_flatten__")}
    for linear in rounded:
        linear.weight = torch.nn.Parameter(dense(linear).detach(), requires_grad=False)
    try:
        yield
    finally:
        for linear, weight in rounded.items():
            linear.weight = weight


@contextmanager
def _native(pipe: Pipe) -> Iterator[None]:
    """Inside, the kernel of the attention stage declines every call, so that torch's own answers."""
    from ditstack.attention.dispatch import Declined

    if pipe.attention is None:
        yield
        return
    answer = pipe.attention.answer
    pipe.attention.answer = lambda *_: Declined("a gradient is wanted")
    try:
        yield
    finally:
        pipe.attention.answer = answer


@contextmanager
def _checkpointed(pipe: Pipe) -> Iterator[None]:
    """Inside, an evaluation keeps its inputs alone until its gradient is wanted; in a large one each block does too."""
    forwards: dict[Any, Any] = {one: one.forward for one in pipe.transformers.values()}
    block_wise = [
        one
        for one in forwards
        if getattr(one, "_supports_gradient_checkpointing", False)
        and sum(weight.numel() for weight in one.parameters()) > LARGE
    ]
    for one, forward in forwards.items():
        one.forward = _again(forward)
    for one in block_wise:
        one.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for one, forward in forwards.items():
            one.forward = forward
        for one in block_wise:
            one.disable_gradient_checkpointing()


def _again(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
