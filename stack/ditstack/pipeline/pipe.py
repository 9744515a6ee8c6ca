"""Pipe: the one mutable object: a diffusers pipeline, its blocks, its clock, its factors, and what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ditstack.errors import BadPipeline
from ditstack.pipeline.blocks import Block, find_blocks
from ditstack.pipeline.clock import Clock
from ditstack.pipeline.macs import MacCounter

if TYPE_CHECKING:
    from ditstack.factors import Factors
    from ditstack.pipeline.policy import StepPolicy

TRANSFORMERS = ("transformer", "transformer_2")
FULL, CALIBRATED, REUSED, OFF = "full", "calibrated", "reused", "off"


class Pipe:
    """What adapters change.

    `kind` is what the present pass of a transformer is: "full" (run and remembered), another word of the cache's
    ("forecast", "reused", "calibrated"), or "off" (run as if there were no cache).
    """

    kind = OFF
    cache_on = True
    policy: StepPolicy | None = None
    store: Any = None
    witness: Witness | None = None
    attention: Any = None
    """The kernel that answers attention in the blocks, with the calls that it took."""
    factors: Factors | None = None
    fitted_under: Mapping[str, str] = MappingProxyType({})
    """The conditions that its stages' factors were fitted under."""
    fitted_for: frozenset[str] = frozenset()
    """Fields of the sampler that those factors cannot leave."""
    departures: tuple[str, ...] = ()
    """Where the last call left what they were fitted at, a sentence each."""
    compiled: int | None = None
    """Pieces of code compiled in the present or last generation; None where nothing is compiled."""
    as_written = False
    """Whether compiled parts run as they were written for now."""
    extra = 0
    """Multiply-accumulates of the present pass that only a cache makes, for its later steps."""
    fps = 0
    """Frames per second of its videos."""
    conditioning_modules: tuple[str, ...] = ()
    """Modules of a transformer whose output only its blocks read: a cache that skips every block lets them rest."""

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
        """Runs of blocks through which one stream of constant shape flows, by site."""
        self.blocks: dict[str, list[Block]] = {name: [*chain(*sites.values())] for name, sites in found.items()}
        """The blocks of every trunk of a transformer."""
        _refuse_cached(self.transformers)
        self.clock = Clock()
        self.clock.watch(pipeline, list(self.transformers.values()))
        self.clock.around = self._pass
        self.clock.on_edge.append(self._edge)
        self.listeners: list[Callable[[str, torch.Tensor], None]] = []
        """Told of every feature that a cache keeps: its site and the feature."""
        self.on_pass: list[Callable[[], None]] = []
        """Called when a pass begins, its branch and kind being settled."""
        self.on_weights: list[Callable[[], None]] = []
        """Called once, when no later stage changes weights."""
        self.notes: list[str] = []
        """Sentences that a report must show, such as that a kernel is emulated."""
        self.tally: Counter[str] = Counter()
        """Passes of a transformer by kind, of the present or last generation."""
        self.step_kinds: dict[int, str] = {}
        self.macs: dict[tuple[int, str, int], int] = {}
        self.spent = self.would_spend = 0
        """Multiply-accumulates of the present or last generation, and what they would be if nothing were cached."""

    @property
    def device(self) -> torch.device:
        """Where it runs; offloaded weights may lie elsewhere."""
        return execution_device(self.pipeline)

    @contextmanager
    def without_cache(self) -> Iterator[None]:
        """Inside, the cache stands aside and every step runs in full."""
        before, self.cache_on = self.cache_on, False
        try:
            yield
        finally:
            self.cache_on = before

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Inside, what is compiled runs as it was written, so that one can listen to its parts."""
        before, self.as_written = self.as_written, True
        try:
            yield
        finally:
            self.as_written = before

    def steps_by_kind(self) -> dict[str, int]:
        """How many steps of the last generation ran in each way; a step is full if any of its branches was."""
        return dict(Counter(self.step_kinds.values()))

    def _edge(self) -> None:
        if self.policy is not None:
            self.policy.forget()
        if self.clock.running:
            self.tally, self.step_kinds = Counter(), {}
            if self.attention is not None:
                self.attention.ran.clear()
            self.spent = self.would_spend = 0
            self.compiled = None if self.compiled is None else 0

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """Around every call of a transformer: decide its kind, count it, and remember that it ran."""
        caching = self.clock.running and self.cache_on
        self.kind = self.policy.kind() if caching and self.policy is not None else OFF
        for begin in self.on_pass:
            begin()
        if self.witness is not None:
            self.witness.begin()
        try:
            with self._count_macs():
                yield
        finally:
            ran, self.kind = self.kind, OFF
        if self.clock.running:
            counted = self._counted(ran)
            self.tally[counted] += 1
            if self.step_kinds.get(self.clock.index) != FULL:
                self.step_kinds[self.clock.index] = counted
        if ran == FULL and self.policy is not None:
            self.policy.ran_in_full()

    def _counted(self, kind: str) -> str:
        """How a pass is counted: by what a witness saw, else by its kind; without a cache every pass is full."""
        if self.witness is not None:
            return self.witness.saw()
        return FULL if kind == OFF else kind

    @contextmanager
    def _count_macs(self) -> Iterator[None]:
        """Count the multiplications of the first pass of each kind and batch; later ones cost the same."""
        branch: Any = self.clock.branch or (0, None, 0)
        transformer, _, rows = branch
        if not self.clock.running:
            yield
            return
        self.extra = 0
        kinds = (FULL, self.witness.skipped) if self.witness else (self.kind,)
        if all((transformer, kind, rows) in self.macs for kind in kinds):
            yield
            key = (transformer, self._counted(self.kind) if self.witness else self.kind, rows)
        else:
            with self.uncompiled(), MacCounter() as counter:
                yield
            key = (transformer, self._counted(self.kind) if self.witness else self.kind, rows)
            self.macs[key] = counter.total
            if key[1] == FULL:
                self.macs.setdefault((transformer, OFF, rows), counter.total - self.extra)
        self.spent += self.macs[key]
        self.would_spend += self.macs.get((transformer, OFF, rows), self.macs[key])


class Witness(Protocol):
    """Tells how a pass ran where a cache decides for itself what to skip."""

    skipped: str
    """The word for a pass that did not run in full."""

    def begin(self) -> None:
        """A pass begins."""
        ...

    def saw(self) -> str:
        """How the pass that has just ended ran."""
        ...


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
        if getattr(one, "is_cache_enabled", False):
            raise BadPipeline("a cache of diffusers is switched on; call transformer.disable_cache() first")
