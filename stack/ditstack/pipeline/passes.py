"""Passes: every call of a transformer while a picture is made: how it was to run, how it ran, and what it cost.

One PassRecord is written when a pass has ended. What a report says of steps and multiply-accumulates (MACs) is summed
from the records, so that it cannot differ from what ran.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ditstack.pipeline.clock import Clock
from ditstack.pipeline.macs import MacCounter, Stated
from ditstack.pipeline.policy import CALIBRATED, FULL, OFF, REUSED, UNDECIDED, StepPolicy

__all__ = ["CALIBRATED", "FULL", "OFF", "REUSED", "UNDECIDED", "Cost", "PassInputs", "PassRecord", "Passes"]


@dataclass(frozen=True)
class PassInputs:
    """What a transformer was called with."""

    transformer: str
    """Its name in the pipeline."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def hidden_states(self) -> Any:
        """The noisy picture: a tensor, or a list of them."""
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    @property
    def shapes(self) -> tuple[Hashable, ...]:
        """Of every tensor among the arguments: passes of one kind and of equal shapes cost the same."""
        return tuple(tuple(one.shape) for one in tree_leaves((self.args, self.kwargs)) if isinstance(one, Tensor))


@dataclass(frozen=True)
class Cost:
    """MACs of one pass: those counted as it ran, or as one like it did, and those that its attention kernels stated."""

    counted: int
    stated: tuple[Stated, ...] = ()

    @cached_property
    def macs(self) -> int:
        """All of them. Reading it waits for the device where a kernel stated its share as a tensor."""
        return self.counted + sum(one.macs for one in self.stated)


@dataclass(frozen=True)
class PassRecord:
    """One pass of a transformer, written when it has ended.

    Attributes:
        step: of the pipeline's call, from 0.
        branch: the guidance branch, as the clock names it.
        rows: pictures (or videos) in the batch.
        planned: its kind by the step policy when it began; "undecided" where the pass itself has to tell.
        ran: its kind in the end; a pass without a cache is "full".
        cost: what it took, with what a cache computes for later steps.
        full_cost: what it would take in full and without a cache.
        members: the places of its rows in the batch that the transformer was called with.
        batch: how many rows that batch has.
    """

    step: int
    transformer: str
    branch: Hashable
    rows: int
    planned: str
    ran: str
    cost: Cost
    full_cost: Cost
    members: Sequence[int] = ()
    batch: int = 0

    def macs_of(self, picture: int, pictures: int) -> int | None:
        """What it took for one picture of a generation; None where it ran for others.

        Halves of guidance that share a batch lie one behind the other, each with all pictures in their order. The
        shares of all rows add up to the whole.
        """
        if self.batch % pictures:
            own, count = [picture], pictures  # rows and pictures have nothing to do with each other
        else:
            own, count = [at for at, row in enumerate(self.members) if row % pictures == picture], self.rows
        total = self.cost.macs
        return sum(total * (at + 1) // count - total * at // count for at in own) if own else None


class Passes:
    """The passes of the pipeline's present or last call, and the state of the one that is running.

    Attributes:
        kind: what the present pass is: "full" (run and remembered), a word of the cache ("forecast", "reused",
            "calibrated"), "undecided" until the pass itself has told, or "off" (run as if there were no cache).
        due: which rows of the present pass must run in full, (B,); None where all rows are treated alike.
        on_begin: called when a pass begins, its branch and kind being settled.
        is_compiled: whether compiled code runs, which hides its products; asked when a call begins. A pass is then
            counted once and for all for each kind and for equal shapes of what it is given; else once in each call and
            guidance branch.
        counted_as_written: entered around a pass that is counted: inside, compiled code runs as it was written.
    """

    def __init__(self, clock: Clock, transformers: dict[str, torch.nn.Module]) -> None:
        self.clock = clock
        self.kind, self.cache_on = OFF, True
        self.policy: StepPolicy | None = None
        self.due: Tensor | None = None
        self.on_begin: list[Callable[[], None]] = []
        self.records: list[PassRecord] = []
        self.is_compiled: Callable[[], bool] = lambda: False
        self.counted_as_written: Callable[[], AbstractContextManager[None]] = nullcontext
        self._compiled = False
        self._names = {id(one): name for name, one in transformers.items()}
        self._stated: list[Stated] = []
        self._counted: dict[Hashable, int] = {}
        self._full_stated: dict[Hashable, tuple[Stated, ...]] = {}
        clock.around = self._around
        clock.on_call.append(self._begin_call)
        clock.on_edge.append(self._edge)

    @property
    def macs(self) -> int:
        """Of all passes."""
        return sum(record.cost.macs for record in self.records)

    @property
    def full_macs(self) -> int:
        """What all passes would take in full and without a cache."""
        return sum(record.full_cost.macs for record in self.records)

    @property
    def macs_ratio(self) -> float:
        """MACs as a share of running every pass in full; 1 before the first call."""
        return self.macs / self.full_macs if self.full_macs else 1.0

    @property
    def kinds(self) -> Counter[str]:
        """How many passes ran in each way."""
        return Counter(record.ran for record in self.records)

    @property
    def by_step(self) -> dict[int, str]:
        """How each step ran; where its passes ran differently, all their kinds: "full+reused"."""
        return _by_step((record.step, record.ran) for record in self.records)

    @property
    def steps(self) -> dict[str, int]:
        """How many steps ran in each way."""
        return dict(Counter(self.by_step.values()))

    def of_picture(self, picture: int, pictures: int) -> tuple[dict[str, int], int]:
        """How many steps ran in each way for one picture of the last call, and the MACs that they took."""
        took = [(record, record.macs_of(picture, pictures)) for record in self.records]
        own = [(record, macs) for record, macs in took if macs is not None]
        steps = _by_step((record.step, record.ran) for record, _ in own)
        return dict(Counter(steps.values())), sum(macs for _, macs in own)

    @property
    def shares(self) -> dict[str, float]:
        """By kind, what its passes took as a share of what they would take in full and without a cache."""
        found = {}
        for kind in self.kinds:
            records = [record for record in self.records if record.ran == kind]
            found[kind] = sum(one.cost.macs for one in records) / max(1, sum(one.full_cost.macs for one in records))
        return found

    @property
    def rests(self) -> bool:
        """Whether the present pass skips something, so that what was kept at the last full one serves."""
        return self.kind not in (OFF, FULL, UNDECIDED)

    def settle(self, due: Tensor) -> None:
        """Decide an undecided pass: full if any row is due, else reused.

        Args:
            due: (B,), whether each row must run in full; a row that need not keeps what it reuses all the same.
        """
        assert self.kind == UNDECIDED
        asked = due.tolist()
        self.kind = FULL if any(asked) else REUSED
        self.due = None if all(asked) or not any(asked) else due

    def state(self, stated: Stated) -> None:
        """A kernel says what it has multiplied in the present pass, since no torch function shows it."""
        self._stated.append(stated)

    def recount(self) -> None:
        """What passes cost is counted anew: weights, factors or hooks have changed."""
        self._counted.clear()

    def _begin_call(self) -> None:
        self.records, self._compiled = [], self.is_compiled()
        if not self._compiled:
            self.recount()

    def _edge(self) -> None:
        """A generation begins or has ended."""
        if self.policy is not None:
            self.policy.forget()
        self._full_stated.clear()

    @contextmanager
    def _around(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """Around every call of a transformer."""
        inputs = PassInputs(self._names[id(module)], args, kwargs)
        policy = self.policy if self.clock.running and self.cache_on else None
        planned = self.kind = OFF if policy is None else policy.begin(inputs)
        alike = self._alike(inputs, policy)
        self.due, self._stated = None, []
        for begin in self.on_begin:
            begin()
        outcomes = (planned,) if policy is None else policy.outcomes(planned)
        try:
            with self._counting(alike, outcomes) as counter:
                yield
            ran = self.kind if policy is None else policy.end(self.kind)
        finally:
            self.kind, self.due = OFF, None
        if self.clock.calling:
            self._remember(alike, ran, counter)
            self.records.append(self._record(inputs, alike, planned, ran))

    @contextmanager
    def _counting(self, alike: Hashable, outcomes: tuple[str, ...]) -> Iterator[MacCounter | None]:
        """Count a pass unless one alike has been counted for each kind that it may turn out to be."""
        if not self.clock.calling or all((alike, kind) in self._counted for kind in outcomes):
            yield None
            return
        with self.counted_as_written(), MacCounter() as counter:
            yield counter

    def _alike(self, inputs: PassInputs, policy: StepPolicy | None) -> tuple[Hashable, bool]:
        """What passes have in common whose kinds cost the same, and whether it is the first full one of its branch."""
        if self._compiled:
            return (inputs.transformer, inputs.shapes), False
        return (inputs.transformer, inputs.shapes, self.clock.branch), policy is not None and policy.first

    def _remember(self, alike: tuple[Hashable, bool], ran: str, counter: MacCounter | None) -> None:
        """What passes like the one that has ended cost, and what they would cost without a cache."""
        if ran in (FULL, OFF):
            self._full_stated[self.clock.branch] = tuple(self._stated)
        if counter is None:
            return
        products = counter.total - sum(one.macs for one in self._stated)
        self._counted[alike, ran] = products
        if ran in (FULL, OFF):
            self._counted[(alike[0], False), OFF] = products - counter.kept_for_later

    def _record(self, inputs: PassInputs, alike: tuple[Hashable, bool], planned: str, ran: str) -> PassRecord:
        branch, stated = self.clock.branch, tuple(self._stated)
        cost = self._counted[alike, ran]
        full = Cost(self._counted.get(((alike[0], False), OFF), cost), self._full_stated.get(branch, stated))
        planned, ran = (FULL if kind == OFF else kind for kind in (planned, ran))
        rows = len(inputs.hidden_states)
        return PassRecord(
            self.clock.done, inputs.transformer, branch, rows, planned, ran, Cost(cost, stated), full, range(rows), rows
        )


def _by_step(ran: Iterable[tuple[int, str]]) -> dict[int, str]:
    """How each step ran, from steps and kinds; several kinds are joined, the full one first."""
    kinds: dict[int, set[str]] = {}
    for step, kind in ran:
        kinds.setdefault(step, set()).add(kind)
    return {step: "+".join(sorted(found, key=lambda kind: (kind != FULL, kind))) for step, found in kinds.items()}
