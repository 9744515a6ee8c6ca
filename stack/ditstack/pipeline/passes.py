"""Passes: every call of a transformer while a picture is made: how it was to run, how it ran, and what it cost.

One PassRecord is written when a pass has ended. What a report says of steps and multiply-accumulates (MACs) is summed
from the records, so that it cannot differ from what ran.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ditstack.pipeline.blocks import parameters_of
from ditstack.pipeline.clock import Clock
from ditstack.pipeline.macs import MacCounter, Stated
from ditstack.pipeline.policy import CALIBRATED, COPIED, FULL, OFF, REUSED, UNDECIDED, StepPolicy
from ditstack.pipeline.records import Cost, PassInputs, PassRecord
from ditstack.pipeline.rows import put_together, rows_of

__all__ = ["CALIBRATED", "FULL", "OFF", "REUSED", "UNDECIDED", "Cost", "PassInputs", "PassRecord", "Passes"]


class Passes:
    """The passes of the pipeline's present or last call, and the state of the one that is running.

    Attributes:
        kind: what the present pass is: "full" (run and remembered), a word of the cache ("forecast", "reused",
            "calibrated"), "undecided" until the pass itself has told, or "off" (run as if there were no cache).
        due: which rows of the present pass must run in full, (B,); None where all rows are treated alike.
        cut: by transformer, the arguments that have a row for each of the batch; without any it is never cut.
        rows: how many the running pass has.
        members: of the running pass, the places of its rows in the batch; None where it has all of them.
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
        self.cut: Sequence[str] = ()
        self.rows = 0
        self.members: Sequence[int] | None = None
        self.on_begin: list[Callable[[], None]] = []
        self.records: list[PassRecord] = []
        self.is_compiled: Callable[[], bool] = lambda: False
        self.counted_as_written: Callable[[], AbstractContextManager[None]] = nullcontext
        self._compiled = False
        self._names = {id(one): name for name, one in transformers.items()}
        self._parameters = {id(one): parameters_of(one) for one in transformers.values()}
        self._again: list[int] = []
        self._answer: Any = None
        self._stated: list[Stated] = []
        self._counted: dict[Hashable, int] = {}
        self._full_stated: dict[Hashable, tuple[Stated, ...]] = {}
        clock.run = self._run
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
        settled = {(record.step, record.branch) for record, _ in own if record.again}
        steps = _by_step(
            (record.step, record.ran)
            for record, _ in own
            if record.again or (record.step, record.branch) not in settled
        )
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

    @property
    def by_row(self) -> bool:
        """Whether rows of one batch may run differently, each remembered by itself."""
        return self.policy is not None and self.policy.by_row and bool(self.cut)

    def places(self, rows: int) -> Sequence[int]:
        """Of the rows of the running pass, their places in the batch."""
        return range(rows) if self.members is None else self.members

    def settle(self, due: Tensor) -> None:
        """Decide an undecided pass: full if all rows are due, else reused, and those that are due run again in full.

        Where the batch cannot be cut, one that is due makes all of them run.

        Args:
            due: (B,), whether each row must run in full; a row that need not keeps what it reuses all the same.
        """
        assert self.kind == UNDECIDED
        asked = due.tolist()
        if self.by_row:
            self.kind = FULL if all(asked) else REUSED
            self._again = [] if all(asked) else [place for place, one in enumerate(asked) if one]
            return
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

    def _run(self, call: Callable[..., Any], module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        """In place of every call of a transformer."""
        inputs = PassInputs(self._names[id(module)], args, kwargs, self._parameters[id(module)])
        policy = self.policy if self.clock.running and self.cache_on else None
        kinds = policy.rows(inputs) if policy is not None and self.by_row else None
        if kinds is not None and (len({*kinds}) > 1 or COPIED in kinds):
            return self._run_rows(call, inputs, policy, kinds)
        planned = OFF if policy is None else policy.begin(inputs) if kinds is None else kinds[0]
        with self._pass(inputs, policy, planned):
            answer = call(*args, **kwargs)
        if self._again:
            answer = self._run_again(call, inputs, policy, answer)
        self._answer = answer
        return answer

    def _run_rows(self, call: Callable[..., Any], inputs: PassInputs, policy: Any, kinds: Sequence[str]) -> Any:
        """Rows that run alike together, those in full first; copied ones take what their partner's answer is."""
        batch, parts = len(kinds), []
        for kind in sorted({*kinds} - {COPIED}, key=lambda one: (one != FULL, one)):
            rows = [place for place, one in enumerate(kinds) if one == kind]
            part = inputs.of_rows(self.cut, rows)
            with self._pass(part, policy, kind, rows, inputs):
                parts.append((rows, call(*part.args, **part.kwargs)))
        if copied := [place for place, one in enumerate(kinds) if one == COPIED]:
            self._record_copied(inputs, copied)
            whole = put_together(parts, batch) if parts else self._answer
            parts.append((copied, rows_of(whole, [policy.partner(place, batch) for place in copied])))
        return put_together(parts, batch)

    def _record_copied(self, inputs: PassInputs, rows: Sequence[int]) -> None:
        """Of rows that were not run: what they would have cost is known from the first step, which runs every row."""
        alike, nothing = self._alike(inputs, self.policy)[0], Cost(0)
        full = Cost(self._counted.get(((alike, False), OFF), 0))
        clock, batch = self.clock, len(inputs.hidden_states)
        record = PassRecord(
            clock.done, inputs.transformer, clock.branch, len(rows), COPIED, COPIED, nothing, full, rows, batch
        )
        self.records.append(replace(record, full_cost=full.share(len(rows), batch)))

    def _run_again(self, call: Callable[..., Any], inputs: PassInputs, policy: Any, answer: Any) -> Any:
        """Rows that a pass has found to be due, in full."""
        rows, self._again = self._again, []
        part = inputs.of_rows(self.cut, rows)
        with self._pass(part, policy, FULL, rows, inputs, again=True):
            made = call(*part.args, **part.kwargs)
        batch = len(inputs.hidden_states)
        return put_together([(range(batch), answer), (rows, made)], batch)

    @contextmanager
    def _pass(
        self,
        inputs: PassInputs,
        policy: StepPolicy | None,
        planned: str,
        members: Sequence[int] | None = None,
        whole: PassInputs | None = None,
        again: bool = False,
    ) -> Iterator[None]:
        """Around one run of a transformer, on all rows of its batch or on `members` of the `whole`."""
        self.kind = planned
        alike = self._alike(inputs, policy)
        self.due, self._stated, self.members = None, [], members
        self.rows = len(inputs.hidden_states)
        for begin in self.on_begin:
            begin()
        outcomes = (planned,) if policy is None else policy.outcomes(planned)
        try:
            with self._counting(alike, outcomes) as counter:
                yield
            ran = self.kind if policy is None else policy.end(self.kind)
        finally:
            self.kind, self.due, self.members = OFF, None, None
        if self.clock.calling:
            self._remember(alike, ran, counter)
            record = self._record(inputs, alike, planned, ran)
            self.records.append(record if whole is None else self._of_rows(record, members, whole, again))

    def _of_rows(self, record: PassRecord, members: Any, whole: PassInputs, again: bool) -> PassRecord:
        """The record of a part of a batch; in full it costs what its share of the whole batch would."""
        batch = len(whole.hidden_states)
        full = self._counted.get(((self._alike(whole, self.policy)[0], False), OFF))
        cost = Cost(0) if again else record.full_cost if full is None else Cost(full).share(len(members), batch)
        return replace(record, full_cost=cost, members=members, batch=batch, again=again)

    @contextmanager
    def _counting(self, alike: Hashable, outcomes: tuple[str, ...]) -> Iterator[MacCounter | None]:
        """Count a pass unless one alike has been counted for each kind that it may turn out to be."""
        if not self.clock.calling or all((alike, kind) in self._counted for kind in outcomes):
            yield None
            return
        with self.counted_as_written(), MacCounter() as counter:
            yield counter

    def _alike(self, inputs: PassInputs, policy: StepPolicy | None) -> tuple[Hashable, Hashable]:
        """What passes have in common that cost the same in full, and what tells those of one kind apart."""
        if self._compiled:
            return (inputs.transformer, inputs.shapes), False
        return (inputs.transformer, inputs.shapes, self.clock.branch), policy is not None and policy.variant

    def _remember(self, alike: tuple[Hashable, Hashable], ran: str, counter: MacCounter | None) -> None:
        """What passes like the one that has ended cost, and what they would cost without a cache."""
        if ran in (FULL, OFF):
            self._full_stated[self.clock.branch] = tuple(self._stated)
        if counter is None:
            return
        products = counter.total - sum(one.macs for one in self._stated)
        self._counted[alike, ran] = products
        if ran in (FULL, OFF):
            self._counted[(alike[0], False), OFF] = products - counter.kept_for_later

    def _record(self, inputs: PassInputs, alike: tuple[Hashable, Hashable], planned: str, ran: str) -> PassRecord:
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
