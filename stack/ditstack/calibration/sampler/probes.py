"""Probes: Gauss-Newton on the sampler's loss, without backpropagation: each number is moved a little, and the rest run.

With J_p the change of item p's picture r_p (less what it aims at) by the method's numbers, the loss
sum_p w_p log |r_p|^2 has the slope 2 sum_p w_p J_p^T r_p / |r_p|^2 and, near where the r_p are small, the curvature
2 sum_p w_p J_p^T J_p / |r_p|^2; a step solves with it, damped as Levenberg and Marquardt do. What is evaluated before a
moved number is not run again, so that all of J costs about N / 2 runs for every number that an evaluation has. Nothing
is held but pictures: it serves any weights, kernel and size of model that can paint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.calibration.sampler.gradient import copied, part
from ditstack.calibration.sampler.loss import TINY, loss_of, shares_of
from ditstack.calibration.sampler.tape import Tape
from ditstack.maths.multistep import Method, Parameters
from ditstack.pipeline.pipe import Pipe

if TYPE_CHECKING:
    from ditstack.calibration.sampler.fit import SamplerFit

# P items, Q numbers of the method that are probed, F free numbers, D entries of an item's picture

ITERATIONS, PROBED, REMEMBERED = 4, 48, 3
"""How often it linearises, on how many prompts, and for how many iterations what was found of a prompt counts."""
BAND = 4
"""Coefficients of a step that are fitted, newest first; those further back stay as they began."""
TIME, NODE, COEFFICIENT = 2.0, -3e-3, 3e-3
"""Sizes of probes: in the model's timesteps; as a share of the step that begins at a node; of a coefficient."""
DAMPING, EASED, RAISED, TRIES = 1e-2, 0.25, 6.0, 5
LEAST, FLOOR = 1e-4, 1e-4
"""The damping that it begins with, what it is multiplied by after a step that was good or bad, and how often; the least
damping, and what is added to every curvature so that numbers without a say stay."""


@dataclass(frozen=True)
class Number:
    """One of a method's numbers.

    Attributes:
        of: the tensor that holds it.
        again: how many evaluations do not depend on it.
        size: of its probe.
    """

    of: str
    place: tuple[int, ...]
    again: int
    size: float

    def read(self, method: Method) -> Tensor:
        return method.tensors()[self.of][self.place]

    def moved(self, method: Method) -> Method:
        tensors = {name: one.detach().clone() for name, one in method.tensors().items()}
        tensors[self.of][self.place] += self.size
        return Method(**tensors)


def numbers_of(method: Method) -> list[Number]:
    """What is probed: the times that are told, the nodes between the ends, the newest coefficients of each step."""
    count, gaps = len(method), (method.nodes[:-1] - method.nodes[1:]).tolist()
    found = [Number("times", (at,), at, TIME) for at in range(count)]
    found += [Number("nodes", (at,), at, NODE * gaps[at]) for at in range(1, count)]
    return found + [
        Number("coefficients", (at, back), at + 1, COEFFICIENT)
        for at in range(count)
        for back in range(min(at + 1, BAND))
    ]


@dataclass
class Normal:
    """P items' pictures as linear functions of the numbers, each around where the numbers were when it was probed.

    Attributes:
        gram: (P, Q, Q) J_p J_p^T, of means over the entries of a picture, as is what follows.
        slope: (P, Q) J_p r_p.
        distance: (P,) |r_p|^2.
        around: (P, Q) the numbers.
        place: (P,) which prompt it is.
        age: (P,) the iteration that probed it.
    """

    gram: Tensor
    slope: Tensor
    distance: Tensor
    around: Tensor
    place: Tensor
    age: Tensor

    @classmethod
    def of(
        cls,
        pipe: Pipe,
        run: Callable[[Method, list[int]], Tensor],
        aims: Tensor,
        method: Method,
        places: list[int],
        age: int,
    ) -> Normal:
        tape, columns, numbers = Tape(pipe), [], numbers_of(method)
        with tape.running():
            before = run(method, places).flatten(1).float()
            for number in numbers:
                tape.replay(number.again)
                columns.append((run(number.moved(method), places).flatten(1).float() - before) / number.size)
        off, j_QPD = before - aims.to(before.device).flatten(1).float(), torch.stack(columns)
        width, count = off.shape[1], len(places)
        return cls(
            (torch.einsum("qpd,rpd->pqr", j_QPD, j_QPD) / width).double().cpu(),
            (torch.einsum("qpd,pd->pq", j_QPD, off) / width).double().cpu(),
            (off.square().mean(1) + TINY).double().cpu(),
            read(method, numbers).expand(count, -1).clone(),
            torch.tensor(places),
            torch.full((count,), age),
        )

    def tensors(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def __add__(self, other: Normal) -> Normal:
        """Both; of a prompt that is in both the other's."""
        old = [at for at, place in enumerate(self.place.tolist()) if place not in other.place.tolist()]
        mine, theirs = self.tensors(), other.tensors()
        return Normal(**{name: torch.cat([mine[name][old], theirs[name]]) for name in mine})

    def since(self, age: int) -> Normal:
        return Normal(**{name: one[self.age >= age] for name, one in self.tensors().items()})

    def step(self, now_Q: Tensor, chain_QF: Tensor, damping: float) -> Tensor:
        """(F,) the move of the free numbers, from where the numbers are now."""
        gone = now_Q - self.around
        bent = torch.einsum("pqr,pr->pq", self.gram, gone)
        slopes = self.slope + bent
        distance = (self.distance + ((self.slope + slopes) * gone).sum(1)).clamp_min(0.1 * self.distance)
        weights = shares_of(distance) / distance
        curve = chain_QF.T @ torch.einsum("pqr,p->qr", self.gram, weights) @ chain_QF
        slope = chain_QF.T @ (slopes.T @ weights)
        return -torch.linalg.solve(curve + torch.diag(damping * curve.diagonal() + FLOOR), slope)


def read(method: Method, numbers: list[Number]) -> Tensor:
    """(Q,) the numbers of a method."""
    return torch.stack([number.read(method).detach() for number in numbers]).double().cpu()


def chain(parameters: Parameters, numbers: list[Number]) -> Tensor:
    """(Q, F) how the method's numbers follow the free ones."""
    method, free = parameters.method(), list(parameters.parameters())
    rows = []
    for number in numbers:
        found = torch.autograd.grad(number.read(method), free, retain_graph=True, allow_unused=True)
        slopes = [torch.zeros_like(one) if slope is None else slope for slope, one in zip(found, free, strict=True)]
        rows.append(torch.cat([slope.flatten() for slope in slopes]))
    return torch.stack(rows).double()


class ByProbes:
    """Gauss-Newton on some of the fitted prompts at a time; what does best on the others is the result."""

    def __init__(self, fit: SamplerFit) -> None:
        self.fit, self.damping = fit, DAMPING
        known = fit.calibration.partial.of("probes")
        self.known = Normal(**known) if known else None

    def descend(self, parameters: Parameters, before: list[float]) -> Method:
        """The best method on the prompts that are not fitted to. A killed fit goes on.

        Args:
            before: what they score where it starts.
        """
        fit, partial = self.fit, self.fit.calibration.partial
        iterations, known = fit.wish.iterations or ITERATIONS, partial.of("sampler")
        begun, best = 0, (sum(before) / len(before), copied(parameters))
        if known:
            begun, best = int(known["done"]), (float(known["score"]), part(known, "best"))
            self.damping = float(known["damping"])
            parameters.load_state_dict(part(known, "now"))
        for at in range(begun, iterations):
            self._move(parameters, at, iterations)
            score = sum(fit.score(parameters.method())) / len(fit.kept)
            best = (score, copied(parameters)) if score > best[0] else best
            state = {f"now.{name}": one for name, one in copied(parameters).items()}
            state |= {f"best.{name}": one for name, one in best[1].items()}
            numbers = {"done": at + 1, "score": best[0], "damping": self.damping}
            partial.keep("sampler", {**state, **{name: torch.tensor(one) for name, one in numbers.items()}}, True)
        parameters.load_state_dict(best[1])
        return parameters.method()

    def _move(self, parameters: Parameters, at: int, iterations: int) -> None:
        """One step, if any lowers the loss of the prompts that it was made of."""
        method = parameters.method()
        found = self._normal(method, at, iterations)
        places, numbers = found.place.tolist(), numbers_of(method)
        loss, now, follows = self._loss(method, places), read(method, numbers), chain(parameters, numbers)
        flat = torch.nn.utils.parameters_to_vector(parameters.parameters()).detach()
        for _ in range(TRIES):
            move = found.step(now, follows, self.damping).to(flat)
            torch.nn.utils.vector_to_parameters(flat + move, parameters.parameters())
            if self._loss(parameters.method(), places) < loss:
                self.damping = max(EASED * self.damping, LEAST)
                return
            self.damping *= RAISED
        torch.nn.utils.vector_to_parameters(flat, parameters.parameters())

    def _normal(self, method: Method, at: int, iterations: int) -> Normal:
        """What is known of the prompts after those of this iteration were probed, a batch at a time."""
        fit, partial = self.fit, self.fit.calibration.partial
        places = fit.turn(at, PROBED)
        found = self.known.since(at - REMEMBERED + 1) if self.known else None
        done = int((found.age == at).sum()) if found else 0
        for start in range(done, len(places), fit.wish.batch):
            here = places[start : start + fit.wish.batch]
            one = Normal.of(fit.pipe, fit.run, fit.aims[here], method, here, at)
            found = self.known = found + one if found else one
            partial.keep("probes", found.tensors())
            fit.calibration.bar("sampler", at * len(places) + start + len(here), iterations * len(places))
        assert found is not None
        return found

    def _loss(self, method: Method, places: list[int]) -> float:
        fit = self.fit
        with torch.no_grad():
            parts = [places[start : start + fit.wish.batch] for start in range(0, len(places), fit.wish.batch)]
            images = torch.cat([fit.run(method, here) for here in parts])
        return float(loss_of(images, fit.aims[places]))
