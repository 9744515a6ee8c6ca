"""The front of the committed matrix: of what was measured, what nothing else beats in work and in fidelity."""

from __future__ import annotations

import math

from ditstack.matrix import figures
from ditstack.matrix.schema import PLAIN, Cell, Matrix, read
from lines import head, line
from results import matrix_file

GATES = (30, 35, 40, 45, 50)
MEASURED = ("ok", "degraded", "control")
KINDS = ("fitted sampler", "cache", "cache over a fitted sampler", "LoRA", "fewer steps")


def matrix_front() -> str:
    """From the least work to the plain model, each nearer to its pictures than everything of less work."""
    matrix = read(matrix_file())
    rows = head(["on the front", "multiply-adds", "PSNR to the plain model's pictures", "5 %", "times as fast"])
    for cell in _front(matrix):
        psnr, low, pace = _psnr(cell, "psnr"), _psnr(cell, "psnr_p5"), figures.pace(matrix, cell)
        assert psnr is not None
        assert low is not None
        assert pace is not None
        if math.isinf(psnr.mean):
            told, lowest = "the same", "the same"
        else:
            told, lowest = f"{psnr.mean:.1f} ({psnr.low:.1f} to {psnr.high:.1f})", f"{low.mean:.1f}"
        rows.append(line([_title(cell), _share(cell), told, lowest, f"{pace.mean:.1f}"]))
    return "\n".join([*rows, "", _made(matrix)])


def matrix_gates() -> str:
    """For each gate the cell of the least work whose low end keeps it, of all and of each kind."""
    matrix = read(matrix_file())
    cells = _measured(matrix)
    rows = head(["mean PSNR, at least", "the cheapest of all", *KINDS])
    for gate in GATES:
        kept = [cell for cell in cells if (psnr := _psnr(cell, "psnr")) is not None and psnr.low >= gate]
        best = [_cheapest([cell for cell in kept if _kind(cell) == kind]) for kind in KINDS]
        told = ["-" if cell is None else f"{_title(cell)}: {_share(cell)}" for cell in (_cheapest(kept), *best)]
        rows.append(line([f"{gate} dB", *told]))
    return "\n".join([*rows, "", f"By the low end of the 95 % interval; - where none keeps it. {_made(matrix)}"])


def _measured(matrix: Matrix) -> list[Cell]:
    return [cell for cell in matrix.cells if cell.status in MEASURED and _psnr(cell, "psnr") is not None]


def _front(matrix: Matrix) -> list[Cell]:
    """By work; of as much work the nearest, and of equals the first."""
    found: list[Cell] = []
    for cell in sorted(_measured(matrix), key=lambda one: (_macs(one), -_mean(one))):
        if not found or _mean(cell) > max(map(_mean, found)):
            found.append(cell)
    return found


def _cheapest(cells: list[Cell]) -> Cell | None:
    return min(cells, key=lambda one: (_macs(one), -_mean(one)), default=None)


def _kind(cell: Cell) -> str:
    """What makes it cheap, beside rounding and a kernel."""
    if figures.has_own_pictures(cell):
        return "LoRA"
    if cell.status == "control":
        return "fewer steps"
    fitted, cached = (cell.words.get(stage, PLAIN) != PLAIN for stage in ("distill", "cache"))
    return {(True, False): KINDS[0], (False, True): KINDS[1], (True, True): KINDS[2]}.get((fitted, cached), "")


def _title(cell: Cell) -> str:
    if cell.status == "control":
        return cell.name
    words = [word for word in cell.words.values() if word not in (PLAIN, "native")]
    return " + ".join(words) or "the plain model"


def _share(cell: Cell) -> str:
    return f"{_macs(cell):.3f}"


def _macs(cell: Cell) -> float:
    found = figures.macs(cell)
    assert found is not None
    return round(found, 3)


def _mean(cell: Cell) -> float:
    psnr = _psnr(cell, "psnr")
    return -math.inf if psnr is None else psnr.mean


def _psnr(cell: Cell, name: str) -> figures.Estimate | None:
    return figures.to_plain(cell).get(name)


def _made(matrix: Matrix) -> str:
    whole = figures.plain_cell(matrix)
    steps = sum(whole.steps.values()) if whole else 0
    return f"({len(matrix.prompts)} prompts, the plain model's {steps} steps, {matrix.machine})."
