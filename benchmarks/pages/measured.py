"""What was measured of a method by itself: its cells of the committed matrix, and a cache beside controls and peers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from ditstack.matrix import figures
from ditstack.matrix.schema import PLAIN, Cell, Matrix, read
from ditstack.recipe.axes import schemes
from lines import head, line, signed
from peers_rows import CONVERGED, UNCACHED, Row, chosen_control, gain, told
from results import latest, matrix_file

IN_THE_PEERS_TABLE = {
    "svdcache": ("svdcache (default)", "svdcache, even", "svdcache, fitted gains"),
    "mixed": ("mixed, searched",),
    "reuse": ("reuse (FORA)",),
    "taylorseer": ("diffusers TaylorSeer", "diffusers TaylorSeer lite"),
    "fbcache": ("diffusers FirstBlockCache",),
    "magcache": ("diffusers MagCache",),
}
SMALL = (
    "On the embedded model, a small one (3.4 M parameters): the mechanism, not a promise for FLUX. PSNR is to the "
    "plain model's pictures, with 95 % intervals over prompts."
)


def of(stage: str, method: str) -> list[str]:
    """The section of its figures; nothing where it was never measured by itself."""
    parts = [*_alone(stage, method), *_beside_controls(method)] if stage != "model" else []
    if not parts:
        return []
    return ["## Measured", "", SMALL, "", *parts]


def _alone(stage: str, method: str) -> Iterator[str]:
    """Cells of the matrix in which no other stage acts."""
    matrix, words = _matrix(), {method, *schemes(stage, method)}
    cells = [
        cell
        for cell in matrix.cells
        if ((word := cell.words.get(stage, PLAIN)) in words or word.startswith(f"{method}."))
        and _is_alone(matrix, cell, stage)
    ]
    if not cells:
        return
    yield from head([stage, "PSNR, dB", "speed-up", "multiply-accumulates", "weights", "status"])
    for cell in cells:
        keys = ("to_baseline.psnr", "speedup", "macs", "weights")
        found = [figures.figure(matrix, cell, key) for key in keys]
        cells_ = [f"{one.text} ({one.interval})" if one.interval else one.text for one in found]
        units = ["", "x", " %", " MB"]
        yield line([cell.words[stage], *(c + u if c else "" for c, u in zip(cells_, units, strict=True)), cell.status])
    yield from (
        "",
        f"{len(matrix.prompts)} prompts, {matrix.machine}; every combination: [the matrix](../../results.md).",
        "",
    )


def _is_alone(matrix: Matrix, cell: Cell, stage: str) -> bool:
    plain = figures.plain_cell(matrix)
    rest = {other: word for other, word in cell.words.items() if other != stage}
    return (
        plain is not None
        and cell.status != "control"
        and all(word in (PLAIN, plain.words[other]) for other, word in rest.items())
    )


def _beside_controls(method: str) -> Iterator[str]:
    """Rows of the peers' table, each less the best plain solver with as many evaluations."""
    data = latest("peers")
    rows: list[Row] = [row for row in data["rows"] if row["name"] in IN_THE_PEERS_TABLE.get(method, ())]
    if not rows:
        return
    title = f"of {data['steps']} steps in full"
    yield from head(
        [title, "", "PSNR, mean / 5 %", "over the best control", "to converged, mean", "over the best control"]
    )
    for row in sorted(rows, key=lambda one: (-one["asked"], one["name"])):
        control = chosen_control(data["rows"], row["asked"])
        low, mean = told(row, UNCACHED, "5th percentile"), told(row, UNCACHED, "mean")
        far = told(row, CONVERGED, "mean")
        gains = [gain(row, control, to, "mean") for to in (UNCACHED, CONVERGED)]
        texts = ["" if one is None else f"{signed(one)}: {_word(one)}" for one in gains]
        yield line(
            [
                str(row["asked"]),
                row["name"],
                f"{mean:.1f} / {low:.1f}",
                texts[0],
                "" if far is None else f"{far:.1f}",
                texts[1],
            ]
        )
    yield from (
        "",
        f"{data['prompts']} unseen prompts; a control is the plain model in as many passes of the network by the "
        "solver that was best on other prompts. More in [peers](../../peers.md).",
        "",
    )


def _word(found: tuple[float, float, float]) -> str:
    """What an interval says."""
    _, low, high = found
    return "wins" if low > 0 else "loses" if high < 0 else "no difference shown"


@cache
def _matrix() -> Matrix:
    return read(matrix_file())
