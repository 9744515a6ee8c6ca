"""Expectations: where what really ran differs from what the recipe planned, it is said: in the report and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ditstack.pipeline.pipe import CALIBRATED, FULL, UNDECIDED, Pipe

LOG = logging.getLogger("ditstack")
OVER_BUDGET = 0.02
"""How far, as a share of a full step, a calibrated one may go beyond its budget unsaid."""


class Expectations:
    """What the last call of a pipeline did not do as planned. Each sentence is logged once.

    Attributes:
        notes: of the last call.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.notes: list[str] = []
        self._logged: set[str] = set()
        pipe.clock.on_return.append(self._look)
        pipe.clock.on_outside.append(self._look_outside)

    def _look(self) -> None:
        """A call has ended; one that was interrupted or failed is held to nothing."""
        pipe = self.pipe
        whole = pipe.clock.whole and not getattr(pipe.pipeline, "_interrupt", False)
        self.notes = [*_of_steps(pipe), *_of_cache(pipe), *_of_budget(pipe), *_of_attention(pipe)] if whole else []
        self._log(self.notes)

    def _look_outside(self) -> None:
        """A transformer is called while no call of a pipeline with a stack runs: one pass is a look, two a loop."""
        if self.pipe.clock.outside < 2 or (self.pipe.policy is None and self.pipe.attention is None):
            return
        begins = "passes of the transformer ran outside the call of the"
        self.notes = [one for one in self.notes if begins not in one]
        note = (
            f"{begins} {type(self.pipe.pipeline).__name__}, where the stack was expected to accelerate them, and they "
            "ran without it; write `with stack.generation():` around set_timesteps and a denoising loop of your own, "
            "or `apply` to another pipeline that shares the transformer"
        )
        self._log([note])
        self.notes.append(f"{self.pipe.clock.outside} {note}")

    def _log(self, notes: list[str]) -> None:
        for note in notes:
            if note not in self._logged:
                LOG.warning(note)
        self._logged.update(notes)


def _of_steps(pipe: Pipe) -> Iterator[str]:
    clock, kind = pipe.clock, type(pipe.pipeline).__name__
    if clock.passes_before:
        yield (
            f"{clock.passes_before} passes of the transformer ran before the scheduler's set_timesteps, uncached: the "
            f"{kind} keeps its own time; a cache of ditstack cannot follow it"
        )
    elif clock.done != clock.planned:
        yield (
            f"the scheduler has {clock.planned} steps, and {clock.done} were counted: the {kind} does not step it once "
            "after each step's passes; steps beyond its own ran in full"
        )


def _of_cache(pipe: Pipe) -> Iterator[str]:
    policy, clock = pipe.policy, pipe.clock
    if policy is None or not pipe.passes.cache_on or not clock.planned or clock.passes_before:
        return
    if any("skipped nothing" in note for note in pipe.notes):  # diffusers' own caches say so themselves
        return
    planned = [kind for kind in policy.plan(clock.steps) if kind != FULL]
    if planned and set(pipe.passes.kinds) == {FULL}:
        why = "no pass had the name and the batch size of one before it"
        if UNDECIDED in planned:
            why = "every one was further from the last full step than the threshold allows, or had another batch size"
        yield (
            f"the cache planned to skip blocks on {len(planned)} of {clock.steps} steps, and every block ran on all of "
            f"them: {why}"
        )


def _of_budget(pipe: Pipe) -> Iterator[str]:
    took = pipe.passes.shares.get(CALIBRATED, 0.0)
    if pipe.budget is not None and took > pipe.budget + OVER_BUDGET:
        yield (
            f"calibrated steps took {took:.2f} of a full step's MACs, and the budget is {pipe.budget:.2f}: the factors "
            "were fitted at another size or prompt length; calibrate at this one to keep it"
        )


def _of_attention(pipe: Pipe) -> Iterator[str]:
    kernel: Any = pipe.attention
    if kernel is None or kernel.ran["kernel"] or not pipe.clock.done:
        return
    if not kernel.ran:
        yield (
            f"attention {kernel.name} was never called: the blocks' attention is not scaled_dot_product_attention, or "
            "its processors were replaced; PyTorch's own kernels ran"
        )
    else:
        why = max(kernel.ran, key=kernel.ran.get)
        yield f"attention {kernel.name} took none of {sum(kernel.ran.values())} calls, most because {why}"
