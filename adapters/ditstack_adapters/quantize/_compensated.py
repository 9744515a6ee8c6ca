"""What quantizers share whose rounding errors are taken back at low rank beside each linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ditstack.plugin import Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Calibration, Pipe


class Compensated(Quantizer):
    """Its field `compensate` is the rank, or its share of a linear's smaller width; None compensates nothing."""

    if TYPE_CHECKING:
        compensate: Any

    @property
    def wants_factors(self) -> bool:
        return self.compensate is not None

    def beside(self, rows: int, columns: int, item: int) -> float:
        """Bytes of what stands beside a rounded weight, `item` of one number."""
        rank = self.compensate or 0
        return (rank if isinstance(rank, int) else round(rank * min(rows, columns))) * (rows + columns) * item

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        from ditstack.plugin import wrong_corrections

        return wrong_corrections(pipe, tensors)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """What takes each linear's rounding error back, where activations are."""
        from ditstack.plugin import compensation

        return compensation.fit_compensation(pipe, calibration, self.compensate)

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import compensation

        compensation.install(pipe, tensors)
