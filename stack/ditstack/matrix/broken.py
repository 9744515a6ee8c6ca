"""Broken pictures of a matrix: how many of a cell's are under the gate, and whether they prove that few are."""

from __future__ import annotations

from dataclasses import dataclass

from ditstack.maths import conformal
from ditstack.matrix.schema import Cell, Matrix
from ditstack.report import Estimate

GATES = ("psnr_worst_min", "psnr_p5_min", "psnr_min")
"""The limit in dB that a picture is held to where nothing is promised: the first that the gate has."""
SHARES = (0.98, 0.95, 0.9, 0.8, 0.5)
CONFIDENCE, MIDDLE = 0.95, 0.975


@dataclass(frozen=True)
class Line:
    """What a picture is held to, and of how many it can be proved here.

    Attributes:
        psnr: in dB; a picture under it is broken.
        share: of all pictures, as much as so few prompts can prove; 0 where they prove nothing.
    """

    psnr: float
    share: float
    confidence: float

    @classmethod
    def of(cls, matrix: Matrix) -> Line | None:
        """That of the promise, else of the gate; None where neither speaks of PSNR."""
        promise, count = matrix.promise, len(matrix.prompts)
        psnr = next((matrix.gate[name] for name in GATES if name in matrix.gate), None)
        psnr, confidence = (promise.psnr, promise.confidence) if promise else (psnr, CONFIDENCE)
        if psnr is None:
            return None
        wanted = (promise.share, *(one for one in SHARES if one < promise.share)) if promise else SHARES
        proved = (one for one in wanted if conformal.most_broken(count, one, confidence) >= 0)
        return cls(psnr, next(proved, 0.0), confidence)

    def broken(self, cell: Cell) -> int:
        """How many of the cell's pictures are under it."""
        return sum(one < self.psnr for one in cell.psnr_each)

    def under(self, cell: Cell) -> Estimate | None:
        """Their share, with Clopper and Pearson's 95 % interval; None where a cell tells of no picture by itself."""
        if not (count := len(cell.psnr_each)):
            return None
        broken = self.broken(cell)
        most, least = 1 - conformal.proved(broken, count, MIDDLE), conformal.proved(count - broken, count, MIDDLE)
        return Estimate(mean=broken / count, low=least, high=most)

    def kept_at(self, cell: Cell, macs: float | None) -> float | None:
        """The multiply-accumulates of a cell whose pictures prove the share; None where they do not."""
        if not cell.psnr_each or not self.share:
            return None
        most = conformal.most_broken(len(cell.psnr_each), self.share, self.confidence)
        return macs if self.broken(cell) <= most else None

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of all pictures at {self.psnr:g} dB, with confidence {self.confidence:g}"
