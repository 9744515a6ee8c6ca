"""Corrections: what a linear's low-rank factors make of the change of its input; a product serves all its readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# B batch, T tokens, I width in, O width out, R rank; C(.) the value at the last full step, or on the line through two


def project(x_BTI: Tensor, down_RI: Tensor) -> Tensor:
    """B x, in fp32 for half-precision x too: it is subtracted from another that is nearly equal."""
    if x_BTI.dtype.itemsize >= 4:
        return torch.nn.functional.linear(x_BTI, down_RI)
    if x_BTI.is_cuda:
        flat = torch.mm(x_BTI.flatten(0, -2), down_RI.mT, out_dtype=torch.float32)
        return flat.unflatten(0, x_BTI.shape[:-1])
    return torch.nn.functional.linear(x_BTI.float(), down_RI.float())


class _SharedInput:
    """One tensor that one or several linears read; their B's are stacked and multiplied once.

    What came of it is held until the last reader has taken it. A reader of another tensor gets its own.
    """

    def __init__(self, down_RI: Tensor, readers: int) -> None:
        self.down, self.readers = down_RI, readers
        self.forget()

    def base(self, x_BTI: Tensor, lean: bool) -> Tensor:
        """What is kept of x at a full step: B x, or x itself."""
        if not lean:
            return x_BTI
        if not self.holds(x_BTI):
            self._hold(x_BTI, project(x_BTI, self._down(x_BTI)))
        return self._taken()

    def change(self, x_BTI: Tensor, base: Tensor, lean: bool) -> Tensor:
        """B (x - C(x)), in the form in which x is."""
        if not self.holds(x_BTI):
            down_RI = self._down(x_BTI)
            change = project(x_BTI, down_RI).sub_(base) if lean else project(x_BTI - base, down_RI)
            self._hold(x_BTI, change.to(x_BTI.dtype))
        return self._taken()

    def _down(self, x_BTI: Tensor) -> Tensor:
        if self.down.dtype != x_BTI.dtype or self.down.device != x_BTI.device:
            self.down = self.down.to(x_BTI)
        return self.down

    def holds(self, x_BTI: Tensor) -> bool:
        """Whether the product of this very tensor is at hand."""
        return self._product is not None and x_BTI is self._seen

    def _hold(self, x_BTI: Tensor, product: Tensor) -> None:
        self._seen, self._product, self._left = x_BTI, product, self.readers

    def _taken(self) -> Tensor:
        product = self._product
        assert product is not None
        self._left -= 1
        if self._left == 0:
            self.forget()
        return product

    def forget(self) -> None:
        self._seen: Tensor | None = None
        self._product: Tensor | None = None
        self._left = 0


@dataclass
class Correction:
    """A of one linear, and which rows of the stacked B are its own."""

    source: _SharedInput
    up: Tensor
    start: int

    def correct(self, y_BTO: Tensor, change_BTR: Tensor) -> Tensor:
        if self.up.dtype != y_BTO.dtype or self.up.device != y_BTO.device:
            self.up = self.up.to(y_BTO)
        own = change_BTR.narrow(-1, self.start, self.up.shape[1])
        # y = C(y) + A (B x - B C(x))
        return torch.addmm(y_BTO.flatten(0, -2), own.flatten(0, -2), self.up.mT).view_as(y_BTO)


def read_corrections(tensors: Mapping[str, Tensor]) -> dict[str, Correction]:
    """Corrections by linear, from `<linear>[+<linear>...].down` (R, I) and `<linear>.up` (O, r).

    The rows of a B are its linears' own, one after another; or all of them serve each of its linears.
    """
    out = {}
    for key, down_RI in tensors.items():
        if not key.endswith(".down"):
            continue
        members = key.removesuffix(".down").split("+")
        source, start = _SharedInput(down_RI, len(members)), 0
        for member in members:
            up_OR = tensors[f"{member}.up"]
            out[member] = Correction(source, up_OR, start)
            start += up_OR.shape[1] if up_OR.shape[1] < len(down_RI) else 0
    return out
