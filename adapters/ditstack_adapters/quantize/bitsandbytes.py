"""bitsandbytes: the blocks' linears in 8 bits (LLM.int8, arXiv 2208.07339) or 4 bits (QLoRA, arXiv 2305.14314).

int8 rounds rows of weights and, as they come, rows of activations; nf4 and fp4 round weights in groups of 64. The
linears are swapped after loading, so no GPU is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ditstack.plugin import Capability

from ._compensated import Compensated

if TYPE_CHECKING:
    import torch

    from ditstack.plugin import Pipe


class BitsAndBytes(Compensated):
    """Weights can be read back from every scheme."""

    axis_field: ClassVar[str] = "scheme"
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    extra: ClassVar[str] = "bitsandbytes"

    scheme: Literal["int8", "nf4", "fp4"] = "nf4"
    """int8 rounds activations too, as they come; nf4 and fp4 round weights only, to four bits."""
    double_quant: bool = False
    """Round the scales of nf4 and fp4 too: 0.4 bits a weight less."""
    skip: Annotated[tuple[str, ...], Field(strict=False)] = ("norm", "embed", "proj_in", "adaln", "modulation", "_mod")
    """Linears whose name holds one of these stay as they are; so does everything outside the blocks."""

    compensate: Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=1)] | None = None
    """Rank of what takes rounding errors back beside each linear, or its share of the width; see `calibrate`."""

    @model_validator(mode="after")
    def _scales_to_round(self) -> BitsAndBytes:
        if self.double_quant and self.scheme == "int8":
            raise ValueError("double_quant is for nf4 and fp4; int8 has one scale per row")
        return self

    @property
    def needs(self) -> frozenset[Capability]:
        # its scales lie beside the weights' tensors and would stay behind
        return super().needs | {Capability.MOVED_WHOLE}

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import compensation

        _hush()
        with compensation.noting_errors(pipe, self.wants_factors):
            for block in pipe.arriving():
                self._swap_linears(block.module)

    def _swap_linears(self, block: torch.nn.Module) -> None:
        places = [
            (parent, name, child)
            for above, parent in block.named_modules()
            for name, child in parent.named_children()
            if self.takes(child, f"{above}.{name}")
        ]
        for parent, name, linear in places:
            setattr(parent, name, self._swapped(linear))

    def takes(self, module: torch.nn.Module, name: str) -> bool:
        """Whether this linear is rounded."""
        from torch.nn import Linear

        from ditstack.plugin import is_beside

        return type(module) is Linear and not is_beside(name) and self.rounds(name, module.in_features)

    def rounds(self, name: str, columns: int) -> bool:
        return not any(word in name for word in self.skip)

    def stored(self, rows: int, columns: int, item: int) -> float:
        # int8: a scale of 4 bytes a row; four bits: one of 4 bytes for 64 weights, or of 1 and a share of a second
        beside = self.beside(rows, columns, item)
        if self.scheme == "int8":
            return rows * columns + rows * 4 + beside
        scale = 1 + 4 / 256 if self.double_quant else 4
        return rows * columns * (0.5 + scale / 64) + beside

    def _swapped(self, linear: Any) -> torch.nn.Module:
        swapped = self._int8(linear) if self.scheme == "int8" else self._four_bits(linear)
        swapped.bias = linear.bias
        return swapped.train(linear.training)

    def _int8(self, linear: torch.nn.Linear) -> torch.nn.Module:
        from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

        width, device = (linear.in_features, linear.out_features), linear.weight.device
        swapped: Any = Linear8bitLt(*width, bias=False, has_fp16_weights=False, device="meta")
        # only a weight that comes from the CPU is rounded on its way
        form: dict[str, Any] = {"requires_grad": False, "has_fp16_weights": False}
        weight: Any = Int8Params(linear.weight.data.cpu(), **form)
        swapped.weight = weight.to(device)
        return swapped

    def _four_bits(self, linear: torch.nn.Linear) -> torch.nn.Module:
        from bitsandbytes.nn.modules import Linear4bit, Params4bit

        form: dict[str, Any] = {"compress_statistics": self.double_quant, "quant_type": self.scheme}
        swapped: Any = Linear4bit(linear.in_features, linear.out_features, bias=False, device="meta", **form)
        # on some CPUs the first call would pack the weights anew: rows in 32s only, scales cut to bf16
        swapped.support_avx512bf16_for_cpu = False
        form["module"] = swapped
        weight: Any = Params4bit(linear.weight.data.clone(), requires_grad=False, **form)
        swapped.weight = weight.to(linear.weight.device)
        return swapped


def _hush() -> None:
    """Its int8 product logs at every call that activations are rounded from fp16; the module's text says so once."""
    import logging

    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
