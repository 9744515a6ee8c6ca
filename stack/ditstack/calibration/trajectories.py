"""Trajectories: a pipeline run along a given scheduler, step by step, with a gradient where one is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
from ditstack.recipe.recipe import Sampler
from ditstack.weights.dense import dense

LARGE = 100_000_000
"""A transformer of more parameters keeps the inputs of its blocks alone, not what they compute inside."""

HELD = 2 * 2**30
"""Bytes that a small transformer's gradient may hold of all evaluations together, so that none runs a second time."""


class _Seen(BaseException):
    """Raised inside a pipeline when there is nothing more to wait for."""


@dataclass(frozen=True)
class Grid:
    """A grid of the model's own scheduler, such as its user's steps: timesteps, and the ODE's coordinate at the end."""

    process: Process
    kind: str
    times: Tensor
    end: float
    train_steps: int

    def spread(self, count: int) -> Tensor:
        """(count,) timesteps from the grid's first on, spread as the scheduler spreads its own; also more than it has.

        A diffusion process whose grid ends at timestep 0 has fewer: between there and its end is nothing.
        """
        at = torch.arange(count, dtype=torch.double) * len(self.times) / count
        times = torch.cat([self.times.double(), torch.zeros(1, dtype=torch.double)])
        low = at.long()
        return (times[low] + (at - low) * (times[low + 1] - times[low])).unique().flip(0)

    def method(self, count: int | None = None, order: int = 2) -> Method:
        """Adams-Bashforth on the grid, or on `count` times spread over it."""
        times = self.times.double() if count is None else self.spread(count)
        nodes = torch.cat([self.process.at(times), times.new_full((1,), self.end)])
        return Method(times.float(), nodes.float(), adams_bashforth(nodes, order).float())

    def scheduler(self, method: Method) -> FittedMultistepScheduler:
        """What runs a method in the model's pipeline."""
        return FittedMultistepScheduler.of(method, self.kind, self.train_steps)


def read_grid(pipe: Pipe, sampler: Sampler, steps: int, prompts: Sequence[str]) -> Grid:
    """The timesteps at which the pipeline's own scheduler would call the model in so many steps."""
    own = pipe.pipeline.scheduler
    process, kind = process_of(own)
    begin(pipe, own, sampler.changed(steps=steps), prompts)
    times = own.timesteps.detach().double().cpu()
    return Grid(process, kind, times.unique().flip(0), 0.0, own.config.get("num_train_timesteps", 1000))


def begin(pipe: Pipe, scheduler: Any, sampler: Sampler, prompts: Sequence[str]) -> None:
    """Let the pipeline set a scheduler's timesteps as it would for a picture: it is called up to its first pass."""

    def stop(*_: Any) -> None:
        raise _Seen

    handles = [one.register_forward_pre_hook(stop) for one in pipe.transformers.values()]
    try:
        with suppress(_Seen), torch.no_grad(), pipe.sampled_by(scheduler):
            call(pipe, prompts, [SEED], sampler)
    finally:
        for handle in handles:
            handle.remove()


def stepped(
    pipe: Pipe,
    scheduler: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    hear: Callable[[int, Tensor, Tensor], None],
    steps: int | None = None,
) -> None:
    """Let the pipeline take a scheduler's first steps, and end its call there: nothing is decoded.

    Args:
        hear: told of each step how many there were, and the (B, ...) latents before and after it.
        steps: None for all of them.
    """
    step, count = scheduler.step, len(prompts)

    def heard(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = step(model_output, timestep, sample, *args, **kwargs)
        done = scheduler.step_index
        hear(done, sample[:count], out[0][:count])  # some pipelines step both halves of guidance
        if done == (len(scheduler.timesteps) if steps is None else steps):
            raise _Seen
        return out

    scheduler.step = heard
    try:
        with suppress(_Seen), pipe.sampled_by(scheduler):
            call(pipe, prompts, seeds, sampler, unwrapped=torch.is_grad_enabled())
    finally:
        del scheduler.step


@contextmanager
def differentiable(pipe: Pipe, again: bool = True) -> Iterator[None]:
    """Inside, latents and pictures keep their graph to the scheduler's numbers; `backward` must be called inside too.

    The cache stands aside, torchao's rounded weights are read as dense ones, attention is torch's own.

    Args:
        again: hold of each evaluation only the inputs until it is run again; else everything that its gradient needs.
    """
    with ExitStack() as inside:
        inside.enter_context(torch.enable_grad())
        for one in (uncounted(pipe), _frozen(pipe), _dense(pipe), _native(pipe)):
            inside.enter_context(one)
        if again:
            inside.enter_context(_checkpointed(pipe))
        yield


def held_whole(pipe: Pipe, run: Callable[[], Any], times: int) -> bool:
    """Whether all that the gradient of `times` such runs needs fits into HELD bytes; large transformers are not tried.

    Args:
        run: a run of one prompt, as `differentiable` lets it be.
    """
    parts = pipe.transformers.values()
    if any(_is_large(one) for one in parts):
        return False
    known: set[int] = set()
    held = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal held
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            held += storage.nbytes()
        if held * times > HELD:
            raise _Seen
        return tensor.detach()

    with differentiable(pipe, again=False), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        known.update(weight.untyped_storage().data_ptr() for one in parts for weight in one.parameters())
        with suppress(_Seen):
            run()
    return held * times <= HELD


def call(pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler, unwrapped: bool = False) -> Any:
    """What the pipeline's call gives; `unwrapped` is the function under its `torch.no_grad`."""
    pipeline = pipe.pipeline
    arguments = call_arguments(pipe, prompts, sampler)
    arguments["generator"] = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    function = inspect.unwrap(type(pipeline).__call__) if unwrapped else type(pipeline).__call__
    return function(pipeline, **arguments)


@contextmanager
def uncounted(pipe: Pipe) -> Iterator[None]:
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
    block_wise = [one for one in forwards if getattr(one, "_supports_gradient_checkpointing", False) and _is_large(one)]
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


def _is_large(transformer: Any) -> bool:
    return sum(weight.numel() for weight in transformer.parameters()) > LARGE


def _again(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
