"""A cache of diffusers' own on a pipe. It decides what to skip; ditstack switches, resets and watches it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook

from ditstack.errors import BadPipeline
from ditstack.pipeline.hooks import tidy, to_undo
from ditstack.pipeline.passes import PassInputs
from ditstack.pipeline.pipe import FULL, SWITCHED, UNDECIDED, Pipe
from ditstack.pipeline.policy import StepPolicy

Configure = Callable[[str, torch.nn.Module], Any]
"""The configuration of diffusers for a transformer of that name."""


SKIPPED = "skipped"


class DiffusersCache(StepPolicy):
    """The hooks of a diffusers cache, each behind a switch, and as a step policy the word for what they did.

    A pass is undecided until it has ended; one in which a hooked module did not run was skipped.
    """

    def __init__(self, pipe: Pipe, name: str, configure: Configure) -> None:
        super().__init__(pipe.clock, lambda steps: (UNDECIDED,) * steps)
        self.pipe, self.name = pipe, name
        self.met = self.ran = 0
        _refuse(pipe, name)
        for stage, transformer in pipe.transformers.items():
            before = {id(hook) for hook in _hooks(transformer)}
            try:
                transformer.enable_cache(configure(stage, transformer))  # pyright: ignore[reportCallIssue]
            except ValueError as error:
                raise BadPipeline(f"diffusers' {name} cannot run on a {type(transformer).__name__}: {error}") from error
            added = [hook for hook in _hooks(transformer) if id(hook) not in before]
            if not added:
                raise BadPipeline(f"diffusers' {name} finds nothing to cache in a {type(transformer).__name__}")
            SWITCHED[transformer] = pipe.clock
            to_undo(functools.partial(_disable, transformer))
            for hook in added:
                self._seize(hook)
        pipe.policy = self
        pipe.clock.on_edge.append(self._edge)

    def begin(self, inputs: PassInputs) -> str:
        """A pass begins: nothing has run yet."""
        self.met = self.ran = 0
        return UNDECIDED

    def outcomes(self, planned: str) -> tuple[str, ...]:
        """The kinds that a pass may turn out to be."""
        return FULL, SKIPPED

    def end(self, kind: str) -> str:
        """How the pass that has just ended ran."""
        return FULL if self.ran == self.met else SKIPPED

    def _seize(self, hook: ModelHook) -> None:
        """Put a hook behind the switch, and count the calls that it gets and those that reach its module."""
        reference: Any = hook.fn_ref
        theirs, original = reference.forward, reference.original_forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not (self.pipe.clock.running and self.pipe.passes.cache_on):
                return original(*args, **kwargs)
            self.met += 1
            return theirs(*args, **kwargs)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.ran += 1
            return original(*args, **kwargs)

        reference.forward, reference.original_forward = forward, counted

        def undo() -> None:
            reference.forward, reference.original_forward = theirs, original

        to_undo(undo)

    def _edge(self) -> None:
        """Between generations: forget, and say so if nothing was skipped."""
        for transformer in self.pipe.transformers.values():
            HookRegistry.check_if_exists_or_initialize(transformer).reset_stateful_hooks()
        note = f"{self.name} skipped nothing in the last generation; its settings or so few steps leave it no room"
        if note in self.pipe.notes:
            self.pipe.notes.remove(note)
        passes = self.pipe.passes
        if not self.pipe.clock.running and passes.cache_on and not passes.kinds[SKIPPED]:
            self.pipe.notes.append(note)


def _disable(transformer: Any) -> None:
    SWITCHED.pop(transformer, None)
    transformer.disable_cache()
    for module in transformer.modules():
        tidy(module)


def _hooks(transformer: torch.nn.Module) -> list[ModelHook]:
    registries = (getattr(module, "_diffusers_hook", None) for module in transformer.modules())
    return [hook for registry in registries if registry is not None for hook in registry.hooks.values()]


def _refuse(pipe: Pipe, name: str) -> None:
    """Refuse where diffusers' caches cannot work.

    Raises:
        BadPipeline: with the reason.
    """
    for transformer in pipe.transformers.values():
        if not hasattr(transformer, "enable_cache"):
            raise BadPipeline(f"diffusers' {name} cannot run on a {type(transformer).__name__}: it takes no cache")
    kind = type(pipe.pipeline)
    calls = [vars(one)["__call__"] for one in kind.__mro__ if "__call__" in vars(one)]
    if not any("cache_context" in inspect.getsource(call) for call in calls):
        raise BadPipeline(f"diffusers' {name} cannot run in a {kind.__name__}: it never names its guidance passes")
