"""torchao: weights of the blocks' linears in 8, 4 or 3 bits, rounded in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ditstack.plugin import Capability, Quantizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ditstack.plugin import Calibration, Pipe

Scheme = Literal["int8", "int8dq", "int4", "int3", "fp8", "fp8dq"]


class TorchAo(Quantizer):
    """int8, int4, int3 and fp8 round weights only; int8dq and fp8dq round activations too, as they come."""

    axis_field: ClassVar[str] = "scheme"
    packages: ClassVar[tuple[str, ...]] = ("torchao",)

    scheme: Scheme = "int8"
    """int8, int4, int3 and fp8 round weights only; int8dq and fp8dq round activations too, as they come."""
    group_size: Annotated[int, Field(ge=8)] = 32
    """Weights that share a scale, for int4 and int3."""
    skip: Annotated[tuple[str, ...], Field(strict=False)] = ("norm", "embed", "proj_in", "adaln", "modulation", "_mod")
    """Linears whose name holds one of these stay as they are; so does everything outside the blocks."""

    compensate: Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=1)] | None = None
    """Rank of what takes rounding errors back beside each linear, or its share of the width; see `calibrate`."""

    @property
    def wants_factors(self) -> bool:
        return self.compensate is not None

    @property
    def needs(self) -> frozenset[Capability]:
        return super().needs | {Capability.SM89} if self.scheme == "fp8dq" else super().needs

    def apply(self, pipe: Pipe) -> None:
        from torchao.quantization import quantize_

        from ditstack.plugin import compensation

        with compensation.noting_errors(pipe, self.wants_factors):
            for block in pipe.arriving():
                quantize_(block.module, self._config(), self.takes)

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        from ditstack.plugin import wrong_corrections

        return wrong_corrections(pipe, tensors)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """What takes each linear's rounding error back, where activations are."""
        from ditstack.plugin import compensation

        assert self.compensate is not None
        return compensation.fit_compensation(pipe, calibration, self.compensate)

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import compensation

        compensation.install(pipe, tensors)

    def takes(self, module: torch.nn.Module, name: str) -> bool:
        """Whether this linear is rounded."""
        from torch.nn import Linear

        from ditstack.plugin import is_beside

        return isinstance(module, Linear) and not is_beside(name) and self.rounds(name, module.in_features)

    def rounds(self, name: str, columns: int) -> bool:
        whole = self.scheme not in ("int4", "int3") or columns % self.group_size == 0
        return whole and not any(word in name for word in self.skip)

    def stored(self, rows: int, columns: int, item: int) -> float:
        # torchao keeps a byte for each weight of four or three bits too, a scale of 4 bytes a row, a zero point of 1
        scales = {"fp8": rows * 4, "fp8dq": rows * 4, "int8": rows * 5, "int8dq": rows * 5}
        each = rows * columns / self.group_size * (item + 1)
        return rows * columns + scales.get(self.scheme, each) + self._beside(rows, columns, item)

    def _beside(self, rows: int, columns: int, item: int) -> float:
        rank = self.compensate or 0
        return (rank if isinstance(rank, int) else round(rank * min(rows, columns))) * (rows + columns) * item

    def _config(self) -> Any:
        import torch
        from torchao import quantization as ao
        from torchao.quantization.granularity import PerGroup

        if self.scheme in ("int4", "int3"):
            bits = getattr(torch, self.scheme)
            return ao.IntxWeightOnlyConfig(weight_dtype=bits, granularity=PerGroup(self.group_size))
        return {
            "int8": ao.Int8WeightOnlyConfig,
            "int8dq": ao.Int8DynamicActivationInt8WeightConfig,
            "fp8": ao.Float8WeightOnlyConfig,
            "fp8dq": ao.Float8DynamicActivationFloat8WeightConfig,
        }[self.scheme]()
