"""auto: the attention kernel that measures fastest for the model's shapes on this device.

When shapes are first met every kernel that can stand answers that very call, and is timed; the fastest goes on. On
Hopper PyTorch's own may be cuDNN's already, and faster than int8 products; on Ada it is the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ditstack.plugin import Attention, Capability

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class Auto(Attention):
    """Each choice, with what the others took, is a note of the report; `ditstack explain` shows it."""

    neutral: ClassVar[dict[str, Any] | None] = {}
    rounds_activations: ClassVar[bool] = True

    kernels: Annotated[
        tuple[Literal["native", "cudnn", "flash", "fa3", "flex", "sage"], ...], Field(min_length=1, strict=False)
    ] = ("native", "cudnn", "fa3", "flex", "sage")
    """Which may be taken, where they are installed; PyTorch's own choice, `native`, is always among them."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """How far, relatively, a kernel's output may lie from PyTorch's own."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Where no block is known attention is left to PyTorch, one of its choices, and the report says so."""
        return frozenset({Capability.FREE_ATTENTION})

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import Fastest, replace_attention, rivals

        found = rivals(self.kernels, pipe.device.type)
        replace_attention(pipe, "auto", Fastest(found, self.tolerance, pipe.notes.append), closed=True)
