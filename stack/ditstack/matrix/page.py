"""Page: a matrix as one HTML file that asks for nothing else: its table, its plot, its pictures, its recipes."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ditstack.errors import BadFile
from ditstack.files import write_atomically
from ditstack.matrix.schema import PLAIN, STATUSES, Cell, Estimate, FewSteps, Matrix, Peer, Unit

NAME = "matrix.html"
_FILES = Path(__file__).parent / "page_files"
_SIDE, _LOSSLESS_SIDE, _MOST_PICTURES = 320, 128, 800
_TO_BASELINE, _TO_UNQUANTIZED = "to the unaccelerated baseline", "to the same stack, unquantized"


def write(matrix: Matrix, folder: Path) -> Path:
    """Write the page of a matrix whose pictures lie below `folder`.

    Returns:
        The file written.

    Raises:
        BadFile: a picture that the matrix names is missing.
    """
    path = folder / NAME
    write_atomically(path, render(matrix, folder).encode())
    return path


def render(matrix: Matrix, folder: Path) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_FILES)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.policies["json.dumps_kwargs"] = {"sort_keys": False}
    view = View(matrix, folder)
    inlined = {name: (_FILES / f"matrix.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    return page.get_template("matrix.html").render(view=view, matrix=matrix, **inlined)


@dataclass(frozen=True)
class Figure:
    """A number as it is sorted, as it is read, and its interval."""

    value: str = ""
    text: str = ""
    interval: str = ""

    @classmethod
    def of(cls, given: Estimate | float | None, scale: float = 1.0, sign: bool = False) -> Figure:
        if given is None:
            return cls()
        if not isinstance(given, Estimate):
            return cls(_plain(given * scale), _short(given * scale, sign))
        ends = [_short(end * scale, sign) for end in (given.low, given.high)]
        interval = "" if ends[0] == ends[1] else " to ".join(ends)
        return cls(_plain(given.mean * scale), _short(given.mean * scale, sign), interval)


@dataclass(frozen=True)
class Column:
    """One measure in the table and on the plot."""

    key: str
    title: str
    unit: str
    higher: bool
    note: str = ""

    @property
    def detail(self) -> bool:
        """Whether it is one part of a measure, such as "agreement.colour": for the open cell, not for the table."""
        return self.key.count(".") == 2 and not self.key.endswith(".all")

    @property
    def label(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        note = f" {self.note}" if self.note else ""
        return f"{self.title}{note}{unit}"


@dataclass
class View:
    """What the template shows of a matrix."""

    matrix: Matrix
    folder: Path
    sources: list[str] = field(default_factory=list)
    """Pictures as data URIs, each once."""

    @cached_property
    def columns(self) -> list[Column]:
        """What was measured in at least one cell."""
        given = [
            Column("speedup", "speed-up", "x", True, "of denoising"),
            Column("macs", "multiply-accumulates", "% of the plain model's", False),
            Column("weights", "weights", "MB", False),
            Column("memory", "peak memory", "MB", False),
        ]
        for group, note in (("to_baseline", _TO_BASELINE), ("own", ""), ("to_unquantized", _TO_UNQUANTIZED)):
            given += [_column(group, unit, note) for unit in self.matrix.units]
        given.append(Column("control", "PSNR over the control", "dB", True, "of as many multiply-accumulates"))
        given.append(Column("interaction", "interaction", "relative L2", False))
        return [one for one in given if any(self.figure(cell, one.key).value for cell in self.matrix.cells)]

    def figure(self, cell: Cell, key: str) -> Figure:
        """The figure of a cell in a column."""
        group, _, measure = key.partition(".")
        if measure:
            return Figure.of(getattr(cell, group).get(measure))
        if key == "control":
            return Figure.of(cell.above_control, sign=True)
        if key == "interaction":
            return Figure.of(cell.interaction, sign=True)
        simple = {
            "speedup": (cell.speedup, 1.0),
            "macs": (cell.macs_ratio, 100.0),
            "weights": (cell.weight_bytes, 1e-6),
            "memory": (cell.peak_memory, 1e-6),
        }
        return Figure.of(*simple[key])

    @cached_property
    def counts(self) -> dict[str, int]:
        found = Counter(cell.status for cell in self.matrix.cells)
        return {status: found[status] for status in STATUSES}

    @cached_property
    def contradicted(self) -> list[Cell]:
        return [cell for cell in self.matrix.cells if cell.contradiction]

    @property
    def gate(self) -> str:
        """What a cell must keep to be ok, in words."""
        titles = {unit.name: (unit.title, unit.unit) for unit in self.matrix.units}
        sentences = []
        for key, value in self.matrix.gate.items():
            measure, _, end = key.rpartition("_")
            title, unit = titles.get(measure, (measure.replace("_", " "), ""))
            sentences.append(f"{title} at {'least' if end == 'min' else 'most'} {value:g} {unit}".strip())
        return ", ".join(sentences)

    @cached_property
    def shown(self) -> int:
        """How many pictures each cell shows, so that the page stays of a size to send."""
        pictured = [cell for cell in self.matrix.cells if cell.pictures]
        return min(len(self.matrix.pictured), max(1, _MOST_PICTURES // max(1, len(pictured))))

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "columns": {one.key: {"label": one.label, "unit": one.unit, "higher": one.higher} for one in self.columns},
            "pictured": self.matrix.pictured[: self.shown],
            "cells": {cell.name: self._cell(cell) for cell in self.matrix.cells},
            "sources": self.sources,
        }

    def title(self, cell: Cell) -> str:
        """The words of a cell that do something; of a control its name."""
        if cell.status == "control":
            return cell.name
        baseline = self.baselines.get(cell.words.get("distill", PLAIN))
        idle = {stage: word for stage, word in baseline.words.items() if stage != "distill"} if baseline else {}
        acting = [word for stage, word in cell.words.items() if word not in (PLAIN, idle.get(stage))]
        return " · ".join(acting) or "plain"

    @cached_property
    def baselines(self) -> dict[str, Cell]:
        """The plain cell of each LoRA: the first whose pictures equal the unaccelerated baseline's."""
        found: dict[str, Cell] = {}
        for cell in self.matrix.cells:
            if (
                cell.status != "control"
                and cell.pictures
                and "psnr" in cell.to_baseline
                and cell.to_baseline["psnr"].mean == math.inf
            ):
                found.setdefault(cell.words.get("distill", PLAIN), cell)
        return found

    def _cell(self, cell: Cell) -> dict[str, Any]:
        figures = {one.key: self.figure(cell, one.key) for one in self.columns}
        return {
            "title": self.title(cell),
            "words": cell.words,
            "status": cell.status,
            "reasons": cell.reasons,
            "contradiction": cell.contradiction,
            "recipe": cell.recipe,
            "steps": ", ".join(f"{count} {kind}" for kind, count in cell.steps.items()),
            "figures": {key: [one.value, one.text, one.interval] for key, one in figures.items() if one.value},
            "interaction": self._interaction(cell),
            "pictures": [self._source(file) for file in cell.pictures[: self.shown]],
            "baseline": baseline.name if (baseline := self.baselines.get(cell.words.get("distill", PLAIN))) else None,
        }

    def _interaction(self, cell: Cell) -> dict[str, Any] | None:
        """What the parts alone predict, and what came."""
        measured = cell.to_baseline.get("relative_l2")
        if cell.interaction is None or measured is None:
            return None
        known = {one.name: one for one in self.matrix.cells}
        parts = [known[name] for name in cell.parts if name in known]
        return {
            "parts": [
                [one.name, self.title(one), Figure.of(one.to_baseline.get("relative_l2")).text or "not measured"]
                for one in parts
            ],
            "predicted": _short(measured.mean - cell.interaction.mean),
            "measured": _short(measured.mean),
        }

    def _source(self, file: str) -> int:
        path = self.folder / file
        if not path.is_file():
            raise BadFile(
                f"the matrix names the picture {file}, which is not in {self.folder}; measure that cell again"
            )
        uri = _data_uri(path)
        if uri not in self._places:
            self._places[uri] = len(self.sources)
            self.sources.append(uri)
        return self._places[uri]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {}

    def few(self, one: FewSteps) -> dict[str, Figure]:
        return {
            "psnr": Figure.of(one.psnr),
            "fewer": Figure.of(one.fewer_psnr),
            "gain": Figure.of(one.gain, sign=True),
            "equal": Figure.of(one.equal_gain, sign=True),
        }

    def peer(self, one: Peer) -> dict[str, Figure]:
        return {
            "psnr": Figure.of(one.psnr),
            "ssim": Figure.of(one.ssim),
            "gain_psnr": Figure.of(one.gain_psnr, sign=True),
            "gain_ssim": Figure.of(one.gain_ssim, sign=True),
            "macs": Figure.of(one.macs_ratio, 100.0),
        }


def _column(group: str, unit: Unit, note: str) -> Column:
    return Column(f"{group}.{unit.name}", unit.title, unit.unit, unit.higher_is_better, note)


def _data_uri(path: Path) -> str:
    """A picture as WebP: as it is where it is small, scaled down where it is large."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    small.save(out, "WEBP", lossless=max(small.size) <= _LOSSLESS_SIDE, quality=90)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _plain(value: float) -> str:
    """For sorting, in a way that JavaScript's Number reads."""
    return "Infinity" if value == math.inf else repr(float(value))


def _short(value: float, sign: bool = False) -> str:
    """Three significant digits and no exponent."""
    if math.isinf(value):
        return "exact" if value > 0 else "-∞"
    rounded = abs(float(f"{value:.3g}"))
    digits = 0 if rounded == 0 else max(0, 2 - math.floor(math.log10(rounded)))
    text = f"{value:{'+' if sign else ''}.{min(digits, 4)}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("+-")
