"""A matrix as Markdown: every cell a row, then what is red, what caches are worth on few steps, and what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ditstack.matrix import figures
from ditstack.matrix.broken import Line
from ditstack.matrix.schema import STATUSES, Cell, Estimate, Matrix

LEAD = ("psnr", "psnr_p5", "ssim", "frechet", "agreement.all")
"""Measures that have a column; matrix.json has them all."""


def render(matrix: Matrix) -> str:
    """The whole file."""
    counts = Counter(cell.status for cell in matrix.cells)
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    gate = ", ".join(f"{name} {limit:g}" for name, limit in matrix.gate.items())
    lines = [
        f"# {_plain(matrix.model)}: {' x '.join(matrix.axes)}",
        "",
        f"{len(matrix.cells) - counts['control']} cells on {len(matrix.prompts)} prompts, {matrix.machine}: {told}. "
        f"Gate: {gate}.",
        "Fidelity is to the unaccelerated baseline at the same seeds, and to the same stack unquantized; in brackets "
        "the 95 % interval over prompts. A cell is ok if it keeps the gate and is surely above its control: the plain "
        "model with as many multiply-accumulates in fewer evaluations, by the solver that was best on other prompts. "
        "It is idle if a stage of it did nothing. MACs and speed-ups are against the plain model with all its steps.",
        *([_plain(said)] if (said := figures.fitted_said(matrix)) else []),
        "",
        f"Interaction: {matrix.interaction_model}.",
        "",
        *_cells(matrix),
        *_list("Red: what is declared and what was measured disagree", _red(matrix)),
        *_list("Refused, failed", _unmeasured(matrix)),
        *_few_steps(matrix),
        *_list("Left out", matrix.left_out),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _cells(matrix: Matrix) -> Iterator[str]:
    shown = [unit for name in LEAD for unit in matrix.units if unit.name == name]
    titles = [f"{unit.title}{f' ({unit.unit})' if unit.unit else ''}" for unit in shown]
    line = Line.of(matrix)
    broken = [] if line is None else [f"under {line.psnr:g} dB", f"MACs that keep {line}"]
    heads = [
        *matrix.axes,
        "status",
        "speed-up",
        "MACs",
        "weights",
        *titles,
        *broken,
        "over the control",
        "PSNR to unquantized",
        "interaction",
    ]
    yield from _table(heads, [_row(matrix, cell, [unit.name for unit in shown]) for cell in matrix.cells])


def _row(matrix: Matrix, cell: Cell, names: list[str]) -> list[str]:
    pace, ratio = figures.pace(matrix, cell), figures.macs(cell)
    speed = "" if pace is None else f"{pace.mean:.2f}x"
    macs = "" if ratio is None else f"{ratio:.2f}"
    weights = "" if cell.weight_bytes is None else f"{cell.weight_bytes / 1e6:.1f} MB"
    measures = [_figure(cell.to_baseline.get(name) or cell.own.get(name)) for name in names]
    status = f"**{cell.status}**" if cell.contradiction else cell.status
    unquantized = _figure(cell.to_unquantized.get("psnr"))
    words = [cell.name, *[""] * (len(cell.words) - 1)] if cell.status == "control" else cell.words.values()
    above = f"{_figure(cell.above_control)} {cell.control}".strip()
    broken = _broken(matrix, cell)
    return [*words, status, speed, macs, weights, *measures, *broken, above, unquantized, _figure(cell.interaction)]


def _broken(matrix: Matrix, cell: Cell) -> list[str]:
    """How many pictures are under the gate, and the multiply-accumulates where that proves the promise."""
    if (line := Line.of(matrix)) is None:
        return []
    kept = line.kept_at(cell, figures.macs(cell))
    share = f"{line.broken(cell)} of {len(cell.psnr_each)}" if cell.psnr_each else ""
    return [share, "" if kept is None else f"{kept:.2f}"]


def _red(matrix: Matrix) -> list[str]:
    return [f"{cell.name}: {cell.contradiction}" for cell in matrix.cells if cell.contradiction]


def _unmeasured(matrix: Matrix) -> list[str]:
    wanted = [cell for cell in matrix.cells if cell.status in ("refused", "failed")]
    return [f"{cell.name} {cell.status}: {'; '.join(cell.reasons)}" for cell in wanted]


def _few_steps(matrix: Matrix) -> Iterator[str]:
    if not matrix.few_steps:
        return
    yield from (
        "## Few steps",
        "",
        "PSNR to the whole schedule without a cache. A cache wins where it is surely better than one step fewer, at no "
        "more work; beside it, as many uncached steps as cost the same.",
        "",
    )
    heads = ["LoRA", "steps", "cache", "full", "MACs", "PSNR", "one step fewer", "gain", "same work", "gain", "wins"]
    rows = []
    for row in matrix.few_steps:
        equal = f"{row.equal_steps} steps: {_figure(row.equal_psnr)}"
        own = [row.distill, str(row.steps), row.cache, str(row.full_steps), f"{row.macs_ratio:.2f}", _figure(row.psnr)]
        controls = [_figure(row.fewer_psnr), _figure(row.gain), equal, _figure(row.equal_gain)]
        rows.append([*own, *controls, "yes" if row.wins else "no"])
    yield from _table(heads, rows)


def _figure(found: Estimate | None) -> str:
    if found is None:
        return ""
    if found.low == found.high:
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} ({found.low:.4g} to {found.high:.4g})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_plain, heads))} |"
    yield f"|{' --- |' * len(heads)}"
    yield from (f"| {' | '.join(map(_plain, row))} |" for row in rows)
    yield ""


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from (f"## {title}", "", *(f"- {_plain(line)}" for line in lines), "")


def _plain(text: str) -> str:
    """Words that stay words: no tag, link, cell or line of their own; what is bold here is bold."""
    inner = text.removeprefix("**").removesuffix("**")
    bold = "**" if text == f"**{inner}**" else ""
    inner = " ".join(inner.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return bold + re.sub(r"([\\|\[\]`])", r"\\\1", inner) + bold
