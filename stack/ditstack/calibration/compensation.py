"""Compensation: beside a rounded linear, A B x takes back what rounding lost where activations are.

With E = W - W_q: U = top eigenvectors of E E[x x^T] E^T, A = U, B = U^T E (EoRA, arXiv 2410.21271; LQER, 2402.02446).
A and B are buffers of the linear, so that they move, and are fingerprinted, with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ditstack.caching.linears import find_linears
from ditstack.calibration.moments import Moments
from ditstack.calibration.statistics import Grams, seeing
from ditstack.errors import BadFile
from ditstack.maths.lowrank import regress
from ditstack.pipeline.hooks import InnerHook
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import NO_PROMPTS
from ditstack.weights.dense import dense

if TYPE_CHECKING:
    from ditstack.recipe.calibration import Calibration

HOOK = "ditstack_compensation"
UP, DOWN = "compensation_up", "compensation_down"

# I width in, O width out, R rank


def running_weight(linear: torch.nn.Module) -> Tensor:
    """The matrix (O, I) that a linear really multiplies by, what compensates its rounding included."""
    weight = dense(linear)
    up: Any = getattr(linear, UP, None)
    return weight if up is None else weight + up.to(weight) @ getattr(linear, DOWN).to(weight)


@contextmanager
def noting_errors(pipe: Pipe, wanted: bool = True) -> Iterator[None]:
    """Inside, linears of the blocks are rounded; afterwards each knows its rounding error, until `install`."""
    if not wanted:
        yield
        return
    before = {name: dense(linear).detach().cpu().clone() for name, linear in find_linears(pipe).items()}
    yield
    for name, linear in find_linears(pipe).items():
        plain = before.pop(name)
        error = (plain - dense(linear).detach().cpu()).to(plain.dtype)
        if error.any():
            setattr(linear, HOOK, _Beside(linear, error))


def fit_compensation(pipe: Pipe, calibration: Calibration, rank: int | float) -> dict[str, Tensor]:
    """A and B of every rounded linear, `<linear>.up` and `<linear>.down`, from what it reads without a cache.

    Args:
        rank: of every linear, or its share of the linear's smaller width.
    """
    if not calibration.prompts:
        raise BadFile(NO_PROMPTS)
    linears = {name: one for name, one in find_linears(pipe).items() if _hook(one) is not None}
    errors = {name: _hook(one).error for name, one in linears.items()}
    wide = {name: error.shape[1] > error.shape[0] for name, error in errors.items()}

    def wanted(name: str, x: Tensor, _y: Tensor) -> tuple[Tensor, Tensor]:
        # E x where that is narrower than x
        seen = x @ errors[name].to(x).mT if wide[name] else x
        return seen, seen

    sums: dict[str, Tensor] = {}
    moments = Moments(sums)

    def run(place: range) -> None:
        with seeing(linears, Grams(wanted, moments)):
            calibration.uncached_latents(place)
        moments.settle()

    calibration.gather("rounding errors", sums, run)
    out, back = {}, []
    for name, gram in sums.items():
        gram = gram.to(pipe.device)
        error = errors[name].to(gram)
        size = rank if isinstance(rank, int) else max(1, round(rank * min(error.shape)))
        pair = regress(error, gram)
        back.append(float(pair.energy[:size].sum() / pair.energy.sum().clamp_min(1e-30)))
        out |= {f"{name}.up": pair.up[:, :size], f"{name}.down": pair.down[:size]}
    share = sum(back) / max(1, len(back))
    calibration.tell(f"rounding errors: {share:.0%} of their energy is compensated, over {len(back)} linears")
    return {name: one.to(errors[name.rpartition(".")[0]].dtype).contiguous().cpu() for name, one in out.items()}


def install(pipe: Pipe, tensors: Mapping[str, Tensor]) -> None:
    """Put fitted factors beside the linears, and let go of the errors."""
    pipe.passes.recount()
    for name, linear in find_linears(pipe).items():
        if (hook := _hook(linear)) is None:
            continue
        hook.error = torch.empty(0)
        if f"{name}.up" in tensors:
            place = next(linear.parameters()).device
            linear.register_buffer(UP, tensors[f"{name}.up"].to(place))
            linear.register_buffer(DOWN, tensors[f"{name}.down"].to(place))


def _hook(linear: torch.nn.Module) -> Any:
    return getattr(linear, HOOK, None)


class _Beside(InnerHook):
    """One rounded linear and what is added to it. Until something is fitted, nothing is."""

    def __init__(self, module: torch.nn.Module, error_OI: Tensor) -> None:
        super().__init__(module)
        self.error = error_OI

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        y, up = self.under(*args, **kwargs), getattr(self.module, UP, None)
        if up is None:
            return y
        # y = W_q x + A B x
        inner = torch.nn.functional.linear(args[0], getattr(self.module, DOWN))
        return torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), up.mT).view_as(y)
