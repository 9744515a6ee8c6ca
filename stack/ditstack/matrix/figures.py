"""Figures: the numbers of a matrix as they are read, each beside the plain model with all its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ditstack.matrix.broken import Line
from ditstack.matrix.schema import PLAIN, Cell, Estimate, Matrix, Unit

TO_LORA, TO_UNQUANTIZED = "to the same LoRA alone", "to the same stack, unquantized"


@dataclass(frozen=True)
class Figure:
    """A number as it is sorted, as it is read, and its interval."""

    value: str = ""
    text: str = ""
    interval: str = ""
    low: str = ""
    high: str = ""

    @classmethod
    def of(cls, given: Estimate | float | None, scale: float = 1.0, sign: bool = False) -> Figure:
        if given is None:
            return cls()
        if not isinstance(given, Estimate):
            return cls(_plain(given * scale), short(given * scale, sign))
        ends = [short(end * scale, sign) for end in (given.low, given.high)]
        middle = _plain(given.mean * scale), short(given.mean * scale, sign)
        if ends[0] == ends[1]:
            return cls(*middle)
        return cls(*middle, " to ".join(ends), _plain(given.low * scale), _plain(given.high * scale))


@dataclass(frozen=True)
class Column:
    """One measure in the table and on the plot.

    Attributes:
        detail: whether it is for the open cell alone, not for the table.
    """

    key: str
    title: str
    unit: str
    higher: bool
    note: str = ""
    detail: bool = False

    @classmethod
    def of(cls, group: str, unit: Unit, note: str = "", detail: bool = False) -> Column:
        """A measure; one part of it, such as "agreement.colour", is a detail."""
        part = "." in unit.name and not unit.name.endswith(".all")
        return cls(f"{group}.{unit.name}", unit.title, unit.unit, unit.higher_is_better, note, detail or part)

    @property
    def label(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        note = f" {self.note}" if self.note else ""
        return f"{self.title}{note}{unit}"


def columns(matrix: Matrix) -> list[Column]:
    """Every column that a matrix may have: quality and speed first, so that they are seen on a phone."""
    lead, rest = matrix.units[:1], matrix.units[1:]
    return [
        *(Column.of("to_baseline", unit) for unit in lead),
        Column("speedup", "speed-up", "x", True),
        Column("seconds", "seconds a picture", "s", False),
        Column("weights", "weights", "MB", False),
        Column("memory", "peak memory", "MB", False),
        Column("macs", "multiply-accumulates", "% of the plain model's", False),
        Column("control", "PSNR over the control", "dB", True, "of as many multiply-accumulates"),
        *_of_broken(matrix),
        *(Column.of("to_baseline", unit) for unit in rest),
        *(Column.of("own", unit) for unit in matrix.units),
        *(Column.of("to_lora", unit, TO_LORA, detail=True) for unit in matrix.units),
        *(Column.of("to_unquantized", unit, TO_UNQUANTIZED) for unit in matrix.units),
        Column("interaction", "interaction", "relative L2", False),
    ]


def _of_broken(matrix: Matrix) -> list[Column]:
    """How many pictures are broken, and what keeps the promise; nothing where no limit in dB is set."""
    if (line := Line.of(matrix)) is None:
        return []
    share = Column("broken", f"pictures under {line.psnr:g} dB", "%", False)
    kept = Column("kept", "multiply-accumulates", "% of the plain model's", False, f"that keep {line}")
    return [share, *([kept] if line.share else [])]


def figure(matrix: Matrix, cell: Cell, key: str) -> Figure:
    """The figure of a cell in a column; empty where it was not measured."""
    group, _, measure = key.partition(".")
    if measure:
        groups = {"to_baseline": to_plain(cell), "to_lora": _to_lora(cell), "own": cell.own}
        return Figure.of(groups.get(group, cell.to_unquantized).get(measure))
    if key in ("control", "interaction"):
        return Figure.of(cell.above_control if key == "control" else cell.interaction, sign=True)
    if key in ("broken", "kept"):
        return _broken(matrix, cell, key)
    if key == "speedup":
        return Figure.of(pace(matrix, cell))
    if key == "seconds":
        return Figure.of(_estimate(cell.seconds, cell.seconds_range))
    simple = {
        "macs": (macs(cell), 100.0),
        "weights": (cell.weight_bytes, 1e-6),
        "memory": (memory(matrix, cell), 1e-6),
    }
    return Figure.of(*simple[key])


def _broken(matrix: Matrix, cell: Cell, key: str) -> Figure:
    line = Line.of(matrix)
    if line is None:
        return Figure()
    return Figure.of(line.under(cell) if key == "broken" else line.kept_at(cell, macs(cell)), 100.0)


def to_plain(cell: Cell) -> dict[str, Estimate]:
    """Fidelity to the plain model with all its steps; nothing where a file is too old to know it."""
    if cell.to_plain:
        return cell.to_plain
    return {} if has_own_pictures(cell) else cell.to_baseline


def pace(matrix: Matrix, cell: Cell) -> Estimate | None:
    """Speed-up against the plain model with all its steps."""
    if cell.plain_macs_ratio is not None or not has_own_pictures(cell):
        return _estimate(cell.speedup, cell.speedup_range)
    whole = plain_cell(matrix)
    if whole is None or whole.seconds is None or cell.seconds is None:
        return None
    return _estimate(whole.seconds / cell.seconds, None)


def macs(cell: Cell) -> float | None:
    """Multiply-accumulates as a share of those of the plain model with all its steps."""
    known = cell.plain_macs_ratio is not None or has_own_pictures(cell)
    return cell.plain_macs_ratio if known else cell.macs_ratio


def memory(matrix: Matrix, cell: Cell) -> int | None:
    """Bytes at the highest point; nothing from a CPU, where it is that of the process and all that it ran before."""
    return None if matrix.machine.startswith("CPU") else cell.peak_memory


def plain_cell(matrix: Matrix, distill: str = PLAIN) -> Cell | None:
    """The cell that is its own baseline: the first whose pictures equal the baseline's, without a LoRA or on one."""
    for cell in matrix.cells:
        exact = "psnr" in cell.to_baseline and cell.to_baseline["psnr"].mean == math.inf
        if exact and cell.pictures and cell.status != "control" and cell.words.get("distill", PLAIN) == distill:
            return cell
    return None


def has_own_pictures(cell: Cell) -> bool:
    """Whether a cell stands on a LoRA, which makes other pictures than the plain model: a baseline of its own.

    A sampler that is fitted to the model has none: its fidelity is to the plain model with all its steps.
    """
    return bool(cell.to_plain) or (cell.plain_macs_ratio is None and cell.words.get("distill", PLAIN) != PLAIN)


def aiming_at_plain(matrix: Matrix) -> list[str]:
    """The words at distill that make the plain model's own pictures, in fewer evaluations."""
    measured = (cell for cell in matrix.cells if cell.status != "control" and cell.to_baseline)
    words = (cell.words.get("distill", PLAIN) for cell in measured if not has_own_pictures(cell))
    return [word for word in dict.fromkeys(words) if word != PLAIN]


def fitted_said(matrix: Matrix) -> str:
    """What such words are held to, as a LoRA is not; empty where there are none."""
    words = ", ".join(aiming_at_plain(matrix))
    return words and (
        f"{words} at distill aim at the plain model's own pictures: their fidelity, gate and control are those of a "
        "cache. A LoRA makes pictures of its own, and keeps the gate on those."
    )


def short(value: float, sign: bool = False) -> str:
    """Three significant digits and no exponent."""
    if math.isinf(value):
        return "exact" if value > 0 else "-∞"
    rounded = abs(float(f"{value:.3g}"))
    digits = 0 if rounded == 0 else max(0, 2 - math.floor(math.log10(rounded)))
    text = f"{value:{'+' if sign else ''}.{min(digits, 4)}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("+-")


def _to_lora(cell: Cell) -> dict[str, Estimate]:
    return cell.to_baseline if to_plain(cell) is not cell.to_baseline else {}


def _estimate(value: float | None, ends: tuple[float, float] | None) -> Estimate | None:
    if value is None:
        return None
    low, high = ends or (value, value)
    return Estimate(mean=value, low=low, high=high)


def _plain(value: float) -> str:
    """For sorting, in a way that JavaScript's Number reads."""
    return "Infinity" if value == math.inf else repr(float(value))
