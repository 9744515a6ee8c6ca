"""Clock: which step, which guidance branch, which generation. The one place that knows.

It listens to the scheduler (`set_timesteps` begins a generation, `step` ends a step) and to the transformers (each
call is one guidance branch of the present step). It works for pipelines with and without `cache_context`, with two
passes per step or one batched pass, for img2img, second-order schedulers and interrupted generations.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager

from ditstack.pipeline.hooks import run_original

HOOK = "ditstack_clock"

_CLOCKS: WeakKeyDictionary[Any, ReferenceType[Clock]] = WeakKeyDictionary()
"""Which clock listens to which scheduler; a deep copy of a scheduler has none. A clock holds its pipeline, so that it
must not be held here."""


class Clock:
    """The time of one pipeline.

    Between generations, and when a transformer is called outside a pipeline, `running` is False and caches stand aside.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.running = False
        self.step = 0
        self.start = 0
        self.total = 0
        self.times: list[float] = []
        self.branch: Hashable = None
        self.latents: torch.Tensor | None = None
        self.began = self.first_pass = self.ended = 0.0
        self.around: Callable[..., AbstractContextManager[None]] = _alone
        """Entered around every call of a transformer, once step and branch are settled; told of module and inputs."""
        self.on_edge: list[Callable[[], None]] = []
        """Called when a generation begins and when it has ended: time to forget."""
        self.on_tick: list[Callable[[int, int], None]] = []
        """Called after every step with the steps done and all steps."""
        self._passes: dict[int, int] = {}
        self._scheduler: Any = None

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
        """Listen to a pipeline, for good."""
        self._pipeline = pipeline
        self.hear_scheduler()
        for transformer in transformers:
            HookRegistry.check_if_exists_or_initialize(transformer).register_hook(_Pass(self), HOOK)

    def hear_scheduler(self) -> bool:
        """Listen to the pipeline's present scheduler; True where it is a new one."""
        scheduler = self._pipeline.scheduler
        if scheduler is self._scheduler:
            return False
        self._scheduler, self.running = scheduler, False
        _listen(scheduler, self)
        return True

    def _begin(self) -> None:
        self.generation += 1
        self.times = noise_shares(self._scheduler)
        self.total = len(self._scheduler.timesteps)
        self.running, self.step, self.start = True, 0, -1
        self.first_pass, self._passes, self.latents = 0.0, {}, None
        self._edge()

    def enter(self, transformer: torch.nn.Module, context: Any, timestep: Any, rows: int) -> None:
        """A transformer is about to be called: settle the step and the branch."""
        if self.hear_scheduler() and self._scheduler.num_inference_steps:
            self._begin()  # the user swapped the scheduler, and its set_timesteps went unheard
        if not self.running:
            return
        if self.start < 0:
            self.start = self.step = self._first_step(timestep)
            self.first_pass = now()
        seen = self._passes[id(transformer)] = self._passes.get(id(transformer), -1) + 1
        name = getattr(context, "name", context)
        self.branch = (id(transformer), seen if name is None else name, rows)

    def _first_step(self, timestep: Any) -> int:
        """Where a generation starts: img2img skips the first timesteps."""
        begin = getattr(self._scheduler, "begin_index", None)
        if begin is not None or not isinstance(timestep, torch.Tensor):
            return begin or 0
        known = self._scheduler.timesteps.double().cpu()
        value = timestep.flatten()[0].double().cpu()
        gaps = torch.stack([(known - value).abs(), (known - 1000 * value).abs()]).amin(0)
        return int(gaps.argmin())

    def _tick(self, out: Any) -> None:
        if not self.running or self.start < 0:
            return
        self._passes = {}
        self.step += 1
        for tell in self.on_tick:
            tell(self.index, self.steps)
        if self.step >= self.total:
            self.latents = out[0] if isinstance(out, tuple) else out.prev_sample
            self.ended, self.running = now(), False
            self._edge()

    def _edge(self) -> None:
        for forget in self.on_edge:
            forget()


def _alone(*_: object) -> AbstractContextManager[None]:
    return nullcontext()


class _Pass(ModelHook):
    """Tells the clock of every call of a transformer, and the guidance branch's name if the pipeline gives one."""

    _is_stateful = True

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.context = _Context()

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.clock.enter(module, self.context._context, kwargs.get("timestep"), len(hidden))
        with self.clock.around(module, args, kwargs):
            return run_original(self, args, kwargs)

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


def _listener(scheduler: Any) -> Clock | None:
    found = _CLOCKS.get(scheduler)
    return found() if found is not None else None


def _listen(scheduler: Any, clock: Clock) -> None:
    """Let `clock` hear a scheduler. Its class is swapped for a subclass of the same name, so that copies stay whole."""
    _CLOCKS[scheduler] = ref(clock)
    kind = type(scheduler)
    if getattr(kind, "_heard", False):
        return

    @functools.wraps(kind.set_timesteps)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.set_timesteps(self, *args, **kwargs)
        if (listener := _listener(self)) is not None:
            listener._begin()

    @functools.wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = kind.step(self, *args, **kwargs)
        if (listener := _listener(self)) is not None:
            listener._tick(out)
        return out

    members = {"set_timesteps": set_timesteps, "step": step, "_heard": True, "__module__": kind.__module__}
    scheduler.__class__ = type(kind.__name__, (kind,), members)


def now() -> float:
    """Seconds, after the device has caught up."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
