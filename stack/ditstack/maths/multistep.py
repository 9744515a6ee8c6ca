"""Multistep: an explicit linear multistep method for the sampling ODE, with times and coefficients that can be fitted.

x_(i+1) = x_i + (s_(i+1) - s_i) sum_k c_ik d_(i-k), d the derivative by s: the velocity of a flow (s = sigma), the noise
of a diffusion process in x / alpha (s = sigma / alpha). Euler is c = (1, 0, 0); Adams-Bashforth of order 2 has
c = (1 + r/2, -r/2, 0) with r = h_i / h_(i-1) on uneven steps h (Hairer, Norsett, Wanner, III.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# N evaluations, K outputs of the model that a step reads, newest first


@dataclass(frozen=True)
class Method:
    """A method's numbers.

    Attributes:
        times: (N,) what the model is told, in its own timesteps.
        nodes: (N + 1,) where it stands, in s, from noise to the picture.
        coefficients: (N, K).
    """

    times: Tensor
    nodes: Tensor
    coefficients: Tensor

    def __len__(self) -> int:
        return len(self.times)

    def tensors(self) -> dict[str, Tensor]:
        return {"times": self.times, "nodes": self.nodes, "coefficients": self.coefficients}


def adams_bashforth(nodes: Tensor, order: int, memory: int = 2) -> Tensor:
    """(N, K) coefficients of Adams-Bashforth of order 1 or 2 on uneven nodes (N + 1,); the first step is Euler's."""
    steps = nodes.diff()
    half = torch.cat([steps.new_zeros(1), steps[1:] / steps[:-1] / 2]) if order == 2 else torch.zeros_like(steps)
    return widened(torch.stack([1 + half, -half], 1), memory)


def widened(coefficients: Tensor, memory: int) -> Tensor:
    """(N, K) coefficients as (N, memory): nothing of what lies further back."""
    return torch.nn.functional.pad(coefficients, (0, memory - coefficients.shape[1]))


def advance(derivatives: list[Tensor], row: Tensor) -> Tensor:
    """sum_k c_k d_k, newest first; a coefficient of 0 is left out, and one of 1 changes no bit."""
    chosen = [(c, d) for c, d in zip(row, derivatives, strict=False) if c.requires_grad or c != 0]
    total = chosen[0][1] if not chosen[0][0].requires_grad and chosen[0][0] == 1 else chosen[0][0] * chosen[0][1]
    for c, d in chosen[1:]:
        total = total + c * d
    return total


class Process:
    """How a model's timestep t and the ODE's coordinate s go together.

    Args:
        table: (T,) s at the timesteps 0 to T - 1 of a diffusion process; None for a flow, where s = t / scale.
    """

    def __init__(self, scale: float = 1000.0, table: Tensor | None = None) -> None:
        self.scale = scale
        self.logarithms = None if table is None else table.double().log()

    def at(self, t: Tensor) -> Tensor:
        """s at (also fractional) timesteps: linear in log s between those of training."""
        if self.logarithms is None:
            return t / self.scale
        table = self.logarithms.to(t)
        place = t.clamp(0, len(table) - 1)
        low = place.detach().floor().long().clamp_max(len(table) - 2)
        return (table[low] + (place - low) * (table[low + 1] - table[low])).exp()

    def of(self, s: Tensor) -> Tensor:
        """The timesteps at which s is so much: the inverse of `at`."""
        if self.logarithms is None:
            return s * self.scale
        table, wanted = self.logarithms.to(s), s.log()
        low = (torch.searchsorted(table, wanted) - 1).clamp(0, len(table) - 2)
        return low + (wanted - table[low]) / (table[low + 1] - table[low])


def gaps_of(times: Tensor) -> Tensor:
    """(N,) logarithms of the gaps between (N,) falling times, the last of them down to 0."""
    times = times.double()
    gaps = -torch.cat([times, times.new_zeros(1)]).diff()
    return gaps.clamp_min(1e-3 * float(times[0])).log()


def times_of(gaps: Tensor, first: float) -> Tensor:
    """(N,) times from the first on, whose gaps have these logarithms but for one sum: the inverse of `gaps_of`."""
    left = gaps.softmax(0).cumsum(0)[:-1]
    return first * torch.cat([left.new_ones(1), 1 - left])


class Parameters(torch.nn.Module):
    """A method as a function of free numbers: gaps between times, changes of coefficients, offsets of the model's time.

    A step reads every output there is: a corrector, such as UniPC's, reaches back to the first.

    Args:
        times: (N,) where a known grid of the model's scheduler has its timesteps.
        end: s after the last step.
        order: of the Adams-Bashforth method that it starts as.
    """

    def __init__(self, process: Process, times: Tensor, end: float, order: int = 2) -> None:
        super().__init__()
        self.process, self.end, self.order = process, end, order
        self.first = float(times[0])
        self.gaps = torch.nn.Parameter(gaps_of(times))
        self.changes = torch.nn.Parameter(torch.zeros(len(times), len(times), dtype=torch.double))
        self.offsets = torch.nn.Parameter(torch.zeros(len(times), dtype=torch.double))

    @torch.no_grad()
    def start_from(self, method: Method) -> None:
        """Become a known method of as many evaluations, such as one that was fitted to other weights."""
        times = self.process.of(method.nodes[:-1].double())
        self.first = float(times[0])
        self.gaps.copy_(gaps_of(times))
        self.offsets.copy_((method.times.double() - times) / self.process.scale)
        count = len(times)
        started = adams_bashforth(method.nodes.double(), self.order, count)
        self.changes.copy_(widened(method.coefficients.double(), count) - started)

    def method(self) -> Method:
        """The numbers, differentiable."""
        times = times_of(self.gaps, self.first)
        nodes = torch.cat([self.process.at(times), times.new_full((1,), self.end)])
        reach = torch.ones_like(self.changes).tril()  # a step reads only what has been evaluated
        coefficients = adams_bashforth(nodes, self.order, len(times)) + self.changes * reach
        told = times + self.offsets * self.process.scale
        return Method(*(one.float() for one in (told, nodes, coefficients)))
