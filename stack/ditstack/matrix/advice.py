"""Advice: what a matrix answers to "what should I use?", by the worse end of every interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ditstack.matrix import figures
from ditstack.matrix.schema import Cell, Matrix
from ditstack.measure.check import Verdict

TWICE = 2.0
MEASURED = ("ok", "degraded", "control")
"""Idle cells are left out: a stage of theirs did nothing, so that the same cell without it says as much."""


@dataclass(frozen=True)
class Advice:
    """The answer to one reader.

    Attributes:
        wish: what the reader wants, as the start of a sentence.
        cell: the combination or control to use; None where none will do.
        says: its figures, or why there is none.
    """

    wish: str
    cell: Cell | None
    says: str


def advice(matrix: Matrix) -> list[Advice]:
    """Answers to who wants speed above the gate, quality at twice the speed, and little memory."""
    if not any(cell.status in MEASURED for cell in matrix.cells):
        return []
    measured = [cell for cell in matrix.cells if cell.status in MEASURED and cell.recipe]
    kept = [cell for cell in measured if keeps_gate(matrix, cell)]
    twice = [cell for cell in measured if _least_pace(matrix, cell) >= TWICE and _least_psnr(cell) > -math.inf]
    held, what = _held(matrix)
    small = [(held(cell), cell) for cell in kept]
    least = sorted(((size, cell) for size, cell in small if size), key=lambda one: (one[0], -_pace(matrix, one[1])))
    none = "no combination measured here surely keeps the gate"
    found = [
        _answer(matrix, "Fastest above the gate", _best(kept, lambda one: _least_pace(matrix, one)), none),
        _answer(
            matrix,
            f"Best quality at {TWICE:g}x",
            _best(twice, lambda one: (_least_psnr(one), _pace(matrix, one))),
            f"no combination measured here is surely {TWICE:g} times as fast as the plain model",
        ),
        _answer(
            matrix,
            f"Least memory above the gate, by {what}",
            least[0][1] if least else None,
            none,
            held,
        ),
    ]
    return [*found, *_other_pictures(matrix, found[0])]


def keeps_gate(matrix: Matrix, cell: Cell) -> bool:
    """Whether the worse end of every interval keeps the gate, against the plain model with all its steps."""
    known = {**figures.to_plain(cell), **cell.own}
    pace = figures.pace(matrix, cell)
    known |= {"speedup": pace} if pace else {}
    for gate, wanted in matrix.gate.items():
        measure = gate.removesuffix("_min").removesuffix("_max")
        if measure not in known:  # such as a drop of agreement, which a cell keeps no figures of
            if cell.status != "ok" or figures.has_own_pictures(cell):
                return False
        elif not Verdict(gate=gate, wanted=wanted, found=known[measure]).ok:
            return False
    return True


def _other_pictures(matrix: Matrix, fastest: Advice) -> list[Advice]:
    """A LoRA makes pictures of its own: the fastest that is ok beside them, where it is faster than the answer."""
    fine = [cell for cell in matrix.cells if cell.status == "ok" and figures.has_own_pictures(cell) and cell.recipe]
    best = _best(fine, lambda one: _least_pace(matrix, one))
    least = 1.0 if fastest.cell is None else _least_pace(matrix, fastest.cell)
    if best is None or best is fastest.cell or _least_pace(matrix, best) <= least:
        return []
    return [_answer(matrix, "If other pictures than the plain model's will do: fastest on a few-step LoRA", best, "")]


def _answer(
    matrix: Matrix, wish: str, cell: Cell | None, why: str, held: Callable[[Cell], int | None] = lambda _: None
) -> Advice:
    if cell is None:
        return Advice(wish, None, f"{why}.")
    size, pace = held(cell), figures.Figure.of(figures.pace(matrix, cell))
    psnr = figures.Figure.of(figures.to_plain(cell).get("psnr"))
    said = [f"{size / 1e6:,.1f} MB"] if size else []
    if pace.text:
        said.append(f"{pace.text} times as fast as the plain model" + (f" ({pace.interval})" if pace.interval else ""))
    if psnr.text == "exact":
        said.append("its very pictures")
    elif psnr.text:
        said.append(f"PSNR {psnr.text} dB" + (f" ({psnr.interval})" if psnr.interval else ""))
    if figures.has_own_pictures(cell) and (own := figures.Figure.of(cell.to_baseline.get("psnr"))).text:
        said.append("the LoRA's own pictures" if own.text == "exact" else f"{own.text} dB to the same LoRA alone")
    return Advice(wish, cell, ", ".join(said) + ".")


def _held(matrix: Matrix) -> tuple[Callable[[Cell], int | None], str]:
    """How much memory a cell takes, and of what: the whole peak where it is known, else the weights."""
    if any(figures.memory(matrix, cell) for cell in matrix.cells):
        return lambda cell: figures.memory(matrix, cell), "the GPU's peak"
    return lambda cell: cell.weight_bytes, "the weights as they run"


def _best(cells: Iterable[Cell], worth: Callable[[Cell], object]) -> Cell | None:
    return max(cells, key=worth, default=None)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _pace(matrix: Matrix, cell: Cell) -> float:
    found = figures.pace(matrix, cell)
    return found.mean if found else 0.0


def _least_pace(matrix: Matrix, cell: Cell) -> float:
    found = figures.pace(matrix, cell)
    return found.low if found else 0.0


def _least_psnr(cell: Cell) -> float:
    found = figures.to_plain(cell).get("psnr")
    return found.low if found else -math.inf
