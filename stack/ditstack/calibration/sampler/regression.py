"""Regression: the coefficients of a sampler whose times are given, by least squares, step by step in closed loop.

Each step's coefficients are those with which what the model has said so far comes nearest to where the unaccelerated
model stands at the next time; then the step is taken with them, and the model asked there. What a step leaves wrong the
next ones see and make up for, be it their own coarseness or rounded weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.calibration.sampler.loss import loss_of, shares_of
from ditstack.calibration.sampler.tape import Tape
from ditstack.calibration.trajectories import stepped
from ditstack.maths.multistep import Method
from ditstack.pipeline.fitted_scheduler import in_coordinates

if TYPE_CHECKING:
    from ditstack.calibration.sampler.fit import SamplerFit

# P items, N evaluations, K outputs of the model that a step reads, newest first

MEMORY = 3
"""K. (On the embedded model four and more are no better on other prompts.)"""
REWEIGHTED = 3
"""How often the items are weighted anew by what they are off, so that the logarithm of each counts."""
RIDGE = 1e-5


@dataclass(frozen=True)
class Moments:
    """What P items say of one step's coefficients.

    Attributes:
        gram: (P, K, K) of the outputs, times the step.
        slope: (P, K) of the outputs and the way to go.
        length: (P,) of that way, squared.
    """

    gram: Tensor
    slope: Tensor
    length: Tensor

    @classmethod
    def of(cls, outputs: Sequence[Tensor], way: Tensor) -> Moments:
        outputs_PKD = torch.stack([one.flatten(1) for one in outputs], 1).double()
        way_PD = way.flatten(1).double()
        gram = torch.einsum("pkd,pld->pkl", outputs_PKD, outputs_PKD)
        return cls(gram, torch.einsum("pkd,pd->pk", outputs_PKD, way_PD), way_PD.square().sum(1))

    @classmethod
    def all(cls, parts: Sequence[Moments]) -> Moments:
        return cls(*(torch.cat([getattr(one, name) for one in parts]) for name in ("gram", "slope", "length")))

    def solve(self) -> Tensor:
        """(K,) the coefficients that make the mean logarithm of what the items are off least."""
        off = self.length
        row = torch.zeros(self.slope.shape[1], dtype=torch.double)
        for _ in range(REWEIGHTED):
            weights = shares_of(off) / off.clamp_min(1e-12 * float(self.length.mean()))
            gram = torch.einsum("p,pkl->kl", weights, self.gram)
            ridge = torch.diag(RIDGE * gram.diagonal())
            row = torch.linalg.solve(gram + ridge, torch.einsum("p,pk->k", weights, self.slope))
            bent = torch.einsum("k,pkl,l->p", row, self.gram, row)
            off = (self.length - 2 * self.slope @ row + bent).clamp_min(1e-12 * self.length)
        return row


class Regression:
    """Samplers of given times, on some of the prompts that are fitted to."""

    def __init__(self, fit: SamplerFit, places: Sequence[int]) -> None:
        self.fit, self.batches = fit, fit.batches(places)

    def method(self, times: Tensor) -> tuple[Method, float]:
        """The method of (N,) timesteps, and its loss on the pictures that it was made on."""
        fit, count = self.fit, len(times)
        nodes = torch.cat([fit.grid.process.at(times), times.new_full((1,), fit.grid.end)])
        rows = torch.zeros(count, count, dtype=torch.double)
        rows[:, 0] = 1  # Euler's, until each is solved for
        tapes = [Tape(fit.pipe) for _ in self.batches]

        def found() -> Method:
            return Method(times.float(), nodes.float(), rows.float())

        for at in range(count):
            parts = [self._moments(found(), at, *one) for one in zip(tapes, self.batches, strict=True)]
            row = Moments.all(parts).solve()
            rows[at, : len(row)] = row
        images = [self._images(found(), *one) for one in zip(tapes, self.batches, strict=True)]
        places = [place for batch in self.batches for place in batch]
        return found(), float(loss_of(torch.cat(images), fit.aims[places]))

    def _moments(self, method: Method, at: int, tape: Tape, places: list[int]) -> Moments:
        """Of the step after evaluation `at`, of one batch."""
        fit, last = self.fit, at + 1 == len(method)
        here, there = method.nodes[at], method.nodes[at + 1]
        aim = fit.trajectory.at(0.0 if last else float(method.times[at + 1]), places)
        scheduler, kept = fit.grid.scheduler(method), []

        def hear(done: int, before: Tensor, _: Tensor) -> None:
            if done == at + 1:
                outputs = [(there - here) * one[: len(places)].cpu() for one in scheduler.derivatives[:MEMORY]]
                stands = in_coordinates(before.float().cpu(), here, fit.grid.kind)
                way = in_coordinates(aim, there, fit.grid.kind) - stands
                kept.append(Moments.of(outputs, way))

        tape.extend()
        sampler = fit.calibration.sampler.changed(steps=len(method))
        with tape.running():
            stepped(fit.pipe, scheduler, *fit.of(places), sampler, hear, at + 1)
        return kept[0]

    def _images(self, method: Method, tape: Tape, places: list[int]) -> Tensor:
        tape.replay(len(method))
        with tape.running():
            return self.fit.run(method, places)
