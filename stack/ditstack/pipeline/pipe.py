"""Pipe: the anatomy of the user's pipeline: its transformers, their blocks, its clock, and what stands on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ditstack.errors import BadPipeline
from ditstack.pipeline.blocks import Block, find_blocks
from ditstack.pipeline.clock import Clock
from ditstack.pipeline.passes import Passes
from ditstack.pipeline.policy import CALIBRATED, FULL, OFF, REUSED, UNDECIDED, StepPolicy
from ditstack.pipeline.records import PassInputs

__all__ = ["CALIBRATED", "FULL", "OFF", "REUSED", "UNDECIDED", "Off", "Pipe", "execution_device", "transformers_of"]

TRANSFORMERS = ("transformer", "transformer_2")


class StepMemory(Protocol):
    """One thing that a cache keeps."""

    def tensors(self) -> list[Tensor]:
        """What it holds on to."""
        ...


class KeptBetweenSteps(Protocol):
    """A cache at work on a pipe."""

    @property
    def memories(self) -> Mapping[Hashable, StepMemory]:
        """What it keeps now, by site and guidance branch."""
        ...


class AttentionReplacement(Protocol):
    """A kernel at work in the blocks of a pipe."""

    kernel: Callable[..., Any]
    answer: Callable[..., Any]
    ran: Counter[str]
    """Of the present or last generation, how many calls the kernel took ("kernel") and declined, by reason."""
    asked: float | torch.Tensor
    made: float | torch.Tensor
    """Multiply-accumulates of all calls so far, dense and as they were made."""

    @property
    def thins(self) -> bool:
        """Whether the kernel is there to make fewer products, rather than faster ones."""
        ...


class Pipe:
    """What adapters change.

    Attributes:
        trunks: runs of blocks through which one stream of constant shape flows, by site.
        blocks: the blocks of every trunk of a transformer.
        passes: how each pass of a transformer runs, and the records of those that ran.
        caches: the caches that stand on it, in the order in which they were put up.
        attention: the kernel that answers attention in the blocks, if it was replaced.
        conditioning_modules: modules of a transformer whose output only its blocks read: a cache that skips every
            block lets them rest.
        fps: frames per second of its videos.
        budget: MACs that a calibrated step was fitted to take at most, as a share of a full one; None without a budget.
        compiled: pieces of code compiled in the present or last generation; None where nothing is compiled.
        on_weights: called once, when no later stage changes weights.
        notes: sentences that a report must show, such as that a kernel is emulated.
        unguided: which rows of a pass are the unconditional half of guidance, where both halves share it.
        scheduler: with which the stack samples; `own_scheduler` is the one that the pipeline came with.
        bound_for: the device that weights are moved to once they are rounded; None where they lie there already.
        undo: how what stands on it is taken off again, in the order in which it was put on.
    """

    fitted_under: Mapping[str, str] = MappingProxyType({})
    """The conditions that its stages' factors were fitted under."""
    fitted_for: frozenset[str] = frozenset()
    """Fields of the sampler that those factors cannot leave."""

    def __init__(
        self,
        pipeline: Any,
        guidance: str = "guidance_scale",
        stacks: tuple[str, ...] = (),
        call: Mapping[str, Any] = MappingProxyType({}),
        ask: Callable[[list[str]], dict[str, Any]] = lambda prompts: {"prompt": prompts},
        trunks: Mapping[str, Mapping[str, list[Block]]] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.guidance, self.call, self.ask = guidance, dict(call), ask
        self.transformers = transformers_of(pipeline)
        found = trunks or {name: {name: find_blocks(one, stacks)} for name, one in self.transformers.items()}
        self.trunks: dict[str, list[Block]] = {site: one for sites in found.values() for site, one in sites.items()}
        self.blocks: dict[str, list[Block]] = {name: [*chain(*sites.values())] for name, sites in found.items()}
        self.conditioning_modules: tuple[str, ...] = ()
        self.fps = 0
        self.one_picture = False
        self.unguided: Callable[[PassInputs], Sequence[bool]] = lambda inputs: [False] * len(inputs.hidden_states)
        _refuse_cached(self.transformers)
        self.clock = Clock()
        self.clock.watch(pipeline, list(self.transformers.values()))
        self.passes = Passes(self.clock, self.transformers)
        self.passes.counted_as_written = self.uncompiled
        self.passes.is_compiled = self._is_compiled
        self.clock.on_call.append(self._begin_call)
        self.caches: list[KeptBetweenSteps] = []
        self.attention: AttentionReplacement | None = None
        self.budget: float | None = None
        self.compiled: int | None = None
        self.on_weights: list[Callable[[], None]] = []
        self.undo: list[Callable[[], None]] = []
        self.bound_for: torch.device | None = None
        self.scheduler: Any = pipeline.scheduler
        self.own_scheduler: Any = pipeline.scheduler
        self.notes: list[str] = []
        self._as_written = False

    @property
    def device(self) -> torch.device:
        """Where it runs; offloaded weights may lie elsewhere."""
        return execution_device(self.pipeline)

    def arriving(self) -> Iterator[Block]:
        """Every block in turn, brought to where it will run if it waits elsewhere, so that it is rounded there alone.

        What is rounded while its turn lasts leaves room for the next: never is more than one block there as it was.
        """
        for blocks in self.blocks.values():
            for block in blocks:
                if self.bound_for is not None:
                    block.module.to(self.bound_for)
                yield block

    @property
    def policy(self) -> StepPolicy | None:
        """Says of each pass how it runs; None where there is no cache."""
        return self.passes.policy

    @policy.setter
    def policy(self, policy: StepPolicy) -> None:
        self.passes.policy = policy

    @property
    def as_written(self) -> bool:
        """Whether compiled parts run as they were written for now."""
        return self._as_written

    @contextmanager
    def without_cache(self) -> Iterator[None]:
        """Inside, the cache stands aside and every step runs in full."""
        before, self.passes.cache_on = self.passes.cache_on, False
        try:
            yield
        finally:
            self.passes.cache_on = before

    @contextmanager
    def sampled_by(self, scheduler: Any) -> Iterator[None]:
        """Inside, the pipeline samples with this scheduler."""
        before, self.pipeline.scheduler = self.pipeline.scheduler, scheduler
        try:
            yield
        finally:
            self.pipeline.scheduler = before

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Inside, what is compiled runs as it was written, so that one can listen to its parts."""
        before, self._as_written = self._as_written, True
        try:
            with torch.compiler.set_stance("force_eager") if self._compiled_by_its_owner() else nullcontext():
                yield
        finally:
            self._as_written = before

    def _is_compiled(self) -> bool:
        return self.compiled is not None or self._compiled_by_its_owner()

    def _compiled_by_its_owner(self) -> bool:
        """Whether a block or a transformer was compiled in place before or beside the stack."""
        blocks = (block.module for blocks in self.blocks.values() for block in blocks)
        return any(one._compiled_call_impl is not None for one in (*self.transformers.values(), *blocks))

    def _begin_call(self) -> None:
        """The pipeline's call begins."""
        if self.attention is not None:
            self.attention.ran.clear()
        self.compiled = None if self.compiled is None else 0


SWITCHED: WeakKeyDictionary[torch.nn.Module, Clock] = WeakKeyDictionary()
"""On which transformers a stack has put a cache of diffusers, and its clock: it acts while that runs alone."""


class Off:
    """The cache is off from the moment this is made; leaving the `with` block puts it back as it was."""

    def __init__(self, pipe: Pipe) -> None:
        self.passes, self.before = pipe.passes, pipe.passes.cache_on
        self.passes.cache_on = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.passes.cache_on = self.before


def execution_device(pipeline: Any) -> torch.device:
    """Where a pipeline runs, its weights being moved there or not."""
    return pipeline._execution_device


def transformers_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The transformers of a pipeline, by name.

    Raises:
        BadPipeline: it has none.
    """
    found = {name: one for name in TRANSFORMERS if (one := getattr(pipeline, name, None)) is not None}
    if not found:
        raise BadPipeline(f"{type(pipeline).__name__} has no transformer; ditstack works on Diffusion Transformers")
    return found


def _refuse_cached(transformers: Mapping[str, torch.nn.Module]) -> None:
    for one in transformers.values():
        if getattr(one, "is_cache_enabled", False) and one not in SWITCHED:
            raise BadPipeline("a cache of diffusers is switched on; call transformer.disable_cache() first")
