"""Clock: which step, which guidance branch, which generation. The one place that knows.

It is bound to the pipeline's call: it begins with it and ends with it, however it ends. Inside, `set_timesteps` of the
scheduler begins a generation, and `step` ends a step; each call of a transformer is one guidance branch of the present
step. It works for pipelines with and without `cache_context`, with two passes per step or one batched pass, for
img2img, second-order schedulers, and pipelines that call the scheduler several times a step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook, StateManager

from ditstack.pipeline import calls
from ditstack.pipeline.calls import enter_around_calls, hear_schedulers, leave_calls, running, running_as, sizes_of
from ditstack.pipeline.hooks import attach, run_original

HOOK = "ditstack_clock"


class Clock:
    """The time of one pipeline.

    Outside the pipeline's own call `calling` is False, whoever calls the transformer, and whatever stands on it stands
    aside. `running` is True from `set_timesteps` to the last step of that call: only then may caches act.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.calling = self.running = False
        self.step = self.start = self.total = 0
        self.times: list[float] = []
        self.branch: Hashable = None
        self.latents: torch.Tensor | None = None
        self.began = self.first_pass = self.ended = 0.0
        self.planned = self.done = 0
        """Of the present or last call: the steps that its schedulers have, and those that have ended."""
        self.passes_before = 0
        """Of the present or last call: passes of a transformer before any timesteps were set."""
        self.outside = 0
        """Passes of a transformer since the last call that no pipeline with a stack made."""
        self.whole = False
        """Whether the last call came to its end."""
        self.run: Callable[..., Any] = _alone
        """In place of every call of a transformer, once step and branch are settled; given the call, module, inputs."""
        self.before_call: list[Callable[[Mapping[str, Any]], None]] = []
        """Called with its arguments before the pipeline's call; they may call it themselves, or raise to refuse it."""
        self.on_call: list[Callable[[], None]] = []
        """Called when the pipeline's call begins."""
        self.on_return: list[Callable[[], None]] = []
        """Called when the pipeline's call has ended, however it ended."""
        self.on_outside: list[Callable[[], None]] = []
        """Called when a transformer is called outside the call of any pipeline with a stack."""
        self.on_edge: list[Callable[[], None]] = []
        """Called when a generation begins and when it has ended: time to forget."""
        self.on_tick: list[Callable[[int, int], None]] = []
        """Called after every step with the steps done and all steps."""
        self._passes: dict[int, int] = {}
        self._scheduler: Any = None
        self._settled = self._passed = False
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Clock:
        """That of a copied pipeline listens to nothing."""
        return Clock()

    @property
    def steps(self) -> int:
        """How many steps this generation takes (fewer than the scheduler's for img2img)."""
        return self.total - self.start

    @property
    def index(self) -> int:
        """The present step, from 0 to steps - 1."""
        return self.step - self.start

    def time(self, index: int | None = None) -> float:
        """The share of noise at a step (0 clean, 1 noise): the coordinate in which features are extrapolated."""
        at = self.step if index is None else self.start + index
        return self.times[at]

    def watch(self, pipeline: Any, transformers: list[torch.nn.Module]) -> None:
        """Listen to a pipeline."""
        self._pipeline = pipeline
        enter_around_calls(pipeline, self.call)
        if (scheduler := getattr(pipeline, "scheduler", None)) is not None:
            hear_schedulers(type(scheduler))
        for transformer in transformers:
            attach(transformer, _Pass(self), HOOK)

    def leave(self) -> None:
        """Listen to the pipeline no longer."""
        leave_calls(self._pipeline)

    @contextmanager
    def call(self, arguments: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
        """The pipeline's call, or a denoising loop of the user's own. A second thread waits for the first to end."""
        if running() is self:  # a class that overrides __call__ and calls the one above
            yield
            return
        with self.held():
            for prepare in self.before_call:
                prepare(arguments)
            with running_as(self), self._inside():
                yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no other thread calls the pipeline: what a call left here is still its own."""
        with self._lock:
            yield

    @contextmanager
    def _inside(self) -> Iterator[None]:
        try:
            self._begin_call()
            yield
            self.whole = True
        finally:
            self._end_call()

    def _begin_call(self) -> None:
        self._scheduler = getattr(self._pipeline, "scheduler", None)
        if self._scheduler is not None:
            hear_schedulers(type(self._scheduler))
        self.calling, self.running, self.whole = True, False, False
        self.planned = self.done = self.passes_before = self.outside = 0
        self.first_pass = self.ended = 0.0
        self.latents, self._passes = None, {}
        for begin in self.on_call:
            begin()

    def _end_call(self) -> None:
        if self.running:
            self._end()
        self.ended = self.ended or time.perf_counter()
        self.calling = False
        for end in self.on_return:
            end()

    def timesteps_set(self, scheduler: Any) -> None:
        """A generation begins, where it is the pipeline's own scheduler and not a copy of it."""
        if scheduler is not self._scheduler:
            return
        self.generation += 1
        self.times = noise_shares(scheduler)
        self.total = len(scheduler.timesteps)
        self.running, self.step, self.start = True, 0, -1
        self._settled = self._passed = False
        self._passes = {}
        self._edge()

    def enter(self, transformer: torch.nn.Module, context: Any, rows: int, sizes: Hashable = None) -> None:
        """A transformer is about to be called: settle the step and the branch.

        Args:
            sizes: of the picture or video. A pass over another number of tokens is no continuation of one before it.
        """
        if not self.first_pass:
            self.first_pass = now()
        if self.running and self.start < 0:
            self.start = self.step = self._supposed_start()
            self.planned += self.steps
        self.passes_before += self.generation == 0 or self.start < 0
        self._passed = True
        seen = self._passes[id(transformer)] = self._passes.get(id(transformer), -1) + 1
        name = getattr(context, "name", context)
        self.branch = ((id(transformer), sizes), seen if name is None else name, rows)

    def passed_outside(self) -> None:
        """A transformer is about to be called outside the call of any pipeline with a stack."""
        self.outside += 1
        for tell in self.on_outside:
            tell()

    def _supposed_start(self) -> int:
        """Where the generation starts, before the scheduler's first step tells it: img2img skips the first timesteps.

        A pipeline tells its scheduler (`set_begin_index`) or notes how many steps its loop takes (`_num_timesteps`).
        """
        begin = getattr(self._scheduler, "begin_index", None)
        if begin is not None:
            return min(int(begin), self.total - 1)
        return self.total - self._loops()

    def _loops(self) -> int:
        """How many steps the pipeline's loop takes, as far as it has noted that."""
        loops = getattr(self._pipeline, "_num_timesteps", None)
        return loops if isinstance(loops, int) and 0 < loops <= self.total else self.total

    def stepped(self, scheduler: Any, timestep: Any, out: Any) -> None:
        """A scheduler has stepped. Only the first step after a pass ends a step of the generation."""
        if scheduler is self._scheduler or self.latents is None:
            self.latents = calls.sample_of(out)
        if not self._passed:
            return
        self._passed, self._passes = False, {}
        self.done += 1
        if not self.running:
            return
        if not self._settled:
            self._settle(scheduler, timestep)
        self.step += 1
        for tell in self.on_tick:
            tell(self.index, self.steps)
        if self.step >= self.total:
            self.ended = now()
            self._end()

    def _settle(self, scheduler: Any, timestep: Any) -> None:
        """The scheduler's first step tells where the generation really started."""
        self._settled = True
        found = calls.place_of(scheduler, timestep, self.start)
        if found is not None and found < self.total and found != self.start:
            self.planned += self.start - found
            self.start = self.step = found
        unused = max(0, self.total - self.start - self._loops())  # SCMScheduler's last timestep is no step
        self.total, self.planned = self.total - unused, self.planned - unused

    def _end(self) -> None:
        self.running = False
        self._edge()

    def _edge(self) -> None:
        for forget in self.on_edge:
            forget()


def _alone(call: Callable[..., Any], _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return call(*args, **kwargs)


class _Pass(ModelHook):
    """Tells the clock of every call of a transformer, and the guidance branch's name if the pipeline gives one."""

    _is_stateful = True

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.context = _Context()

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if running() is not self.clock:
            if running() is None:
                self.clock.passed_outside()
            return run_original(self, args, kwargs)
        hidden: Any = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
        self.clock.enter(module, self.context._context, len(hidden), sizes_of(hidden))

        def call(*args: Any, **kwargs: Any) -> Any:
            return run_original(self, args, kwargs)

        return self.clock.run(call, module, args, kwargs)

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        """The clock resets itself when the next generation begins."""
        return module


class _Context(StateManager):
    """The seam through which diffusers' `cache_context` names the guidance branch."""

    def __init__(self) -> None:
        super().__init__(object)  # pyright: ignore[reportArgumentType]


def noise_shares(scheduler: Any) -> list[float]:
    """The share of noise at each timestep, in [0, 1]: sigma of a flow, sigma / (1 + sigma) of a diffusion process."""
    count = len(scheduler.timesteps)
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) >= count:
        values = torch.as_tensor(sigmas).double().cpu()[:count]
        flow = float(values.max()) <= 1.0 + 1e-6
        return (values if flow else values / (1 + values)).tolist()
    if hasattr(scheduler, "alphas_cumprod"):
        alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps.long().cpu()]
        values = ((1 - alphas) / alphas).sqrt()
        return (values / (1 + values)).tolist()
    return [1 - index / count for index in range(count)]


def now() -> float:
    """Seconds, after the device has caught up."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
