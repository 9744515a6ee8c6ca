"""torchao: weights of the blocks' linears in 8, 4 or 3 bits, rounded in place.

Uncompiled, a GPU spends more on rounding than it wins: FLUX.1-dev, 28 steps on an H100 (diffusers-torchao): bf16
6.57 s, int8 8.55, int8dq 130.5, fp8dq 8.62; compiled int8 4.62, int8dq 3.41, fp8dq 3.24.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ditstack.plugin import Capability

from ._compensated import Compensated

if TYPE_CHECKING:
    import torch

    from ditstack.plugin import Pipe

Scheme = Literal["int8", "int8dq", "int4", "int3", "fp8", "fp8dq", "fp8dq_tensor", "mxfp8", "nvfp4"]
DYNAMIC = ("int8dq", "fp8dq", "fp8dq_tensor", "mxfp8", "nvfp4")
MULTIPLES = {"fp8dq": 16, "fp8dq_tensor": 16, "mxfp8": 32, "nvfp4": 16}
"""Of what both widths of a linear must be multiples, for the products of a GPU."""


class TorchAo(Compensated):
    """Rounds weights, and with `dq`, `mxfp8` and `nvfp4` activations too."""

    axis_field: ClassVar[str] = "scheme"
    packages: ClassVar[tuple[str, ...]] = ("torchao",)

    scheme: Scheme = "int8"
    """int8, int4, int3 and fp8 round weights only. int8dq and fp8dq round activations too, as they come, with a scale
    for each row; fp8dq_tensor has one for the whole tensor. mxfp8 and nvfp4 share scales among 32 and 16 numbers."""
    group_size: Annotated[int, Field(ge=8)] = 32
    """Weights that share a scale, for int4 and int3."""
    skip: Annotated[tuple[str, ...], Field(strict=False)] = ("norm", "embed", "proj_in", "adaln", "modulation", "_mod")
    """Linears whose name holds one of these stay as they are; so does everything outside the blocks."""

    compensate: Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=1)] | None = None
    """Rank of what takes rounding errors back beside each linear, or its share of the width; see `calibrate`."""

    @property
    def needs(self) -> frozenset[Capability]:
        if self.scheme in ("mxfp8", "nvfp4"):
            return super().needs | {Capability.SM100}
        return super().needs | {Capability.SM89} if self.scheme.startswith("fp8dq") else super().needs

    @property
    def needs_later(self) -> frozenset[Capability]:
        return frozenset({Capability.FUSED}) if self.scheme in DYNAMIC else frozenset()

    def apply(self, pipe: Pipe) -> None:
        from torchao.quantization import quantize_

        from ditstack.plugin import compensation

        with compensation.noting_errors(pipe, self.wants_factors):
            for block in pipe.arriving():
                quantize_(block.module, self._config(), self.takes)
        if left := self._left_alone(pipe):
            pipe.notes.append(f"quantize torchao {self.scheme} left alone, of the blocks' linears: {', '.join(left)}")

    def _left_alone(self, pipe: Pipe) -> list[str]:
        """The linears that stay as they are, by their place in a block, with how many there are of each."""
        from torch.nn import Linear

        from ditstack.plugin import is_beside

        every = (pair for blocks in pipe.blocks.values() for block in blocks for pair in block.module.named_modules())
        linears = ((name, one) for name, one in every if isinstance(one, Linear) and not is_beside(name))
        found = Counter(name for name, one in linears if not self.takes(one, name))
        return [f"{name} ({count})" for name, count in found.items()]

    def takes(self, module: torch.nn.Module, name: str) -> bool:
        """Whether this linear is rounded."""
        from torch.nn import Linear

        from ditstack.plugin import is_beside

        if not isinstance(module, Linear) or is_beside(name) or module.out_features % MULTIPLES.get(self.scheme, 1):
            return False
        return self.rounds(name, module.in_features)

    def rounds(self, name: str, columns: int) -> bool:
        multiple = self.group_size if self.scheme in ("int4", "int3") else MULTIPLES.get(self.scheme, 1)
        whole = columns % multiple == 0
        return whole and not any(word in name for word in self.skip)

    def stored(self, rows: int, columns: int, item: int) -> float:
        if self.scheme == "nvfp4":
            return rows * columns * (1 / 2 + 1 / 16) + self.beside(rows, columns, item)
        # torchao keeps a byte for each weight of four or three bits too, a scale of 4 bytes a row, a zero point of 1
        scales = {"fp8": rows * 4, "fp8dq": rows * 4, "int8": rows * 5, "int8dq": rows * 5}
        scales |= {"fp8dq_tensor": 4, "mxfp8": rows * columns / 32}
        each = rows * columns / self.group_size * (item + 1)
        return rows * columns + scales.get(self.scheme, each) + self.beside(rows, columns, item)

    def _config(self) -> Any:
        import torch
        from torchao import quantization as ao
        from torchao.quantization.granularity import PerGroup, PerRow, PerTensor

        if self.scheme in ("int4", "int3"):
            bits = getattr(torch, self.scheme)
            return ao.IntxWeightOnlyConfig(weight_dtype=bits, granularity=PerGroup(self.group_size))
        if self.scheme in ("mxfp8", "nvfp4"):
            from torchao.prototype import mx_formats as mx

            if self.scheme == "mxfp8":
                return mx.MXDynamicActivationMXWeightConfig()
            # its own kernel for rounding wants a further package
            return mx.NVFP4DynamicActivationNVFP4WeightConfig(use_triton_kernel=False)
        if self.scheme.startswith("fp8dq"):
            granularity = PerRow() if self.scheme == "fp8dq" else PerTensor()
            return ao.Float8DynamicActivationFloat8WeightConfig(granularity=granularity)
        return {
            "int8": ao.Int8WeightOnlyConfig,
            "int8dq": ao.Int8DynamicActivationInt8WeightConfig,
            "fp8": ao.Float8WeightOnlyConfig,
        }[self.scheme]()
