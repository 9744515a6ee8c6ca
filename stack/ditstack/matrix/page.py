"""Page: a matrix as one HTML file that asks for nothing else: its table, its plot, its pictures, its recipes."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ditstack.errors import BadFile
from ditstack.files import write_atomically
from ditstack.matrix import figures
from ditstack.matrix.advice import Advice, advice
from ditstack.matrix.figures import Column, Figure, short
from ditstack.matrix.schema import PLAIN, STATUSES, Cell, FewSteps, Matrix, Peer

NAME = "matrix.html"
_FILES = Path(__file__).parent / "page_files"
_SIDE, _LOSSLESS_SIDE, _MOST_PICTURES = 320, 128, 800


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
        given = figures.columns(self.matrix)
        return [one for one in given if any(self.figure(cell, one.key).value for cell in self.matrix.cells)]

    @cached_property
    def heads(self) -> list[Column]:
        """Those of the table."""
        return [column for column in self.columns if not column.detail]

    def figure(self, cell: Cell, key: str) -> Figure:
        """The figure of a cell in a column."""
        return figures.figure(self.matrix, cell, key)

    @cached_property
    def advice(self) -> list[Advice]:
        """What to use, for readers who want different things."""
        return advice(self.matrix)

    @property
    def plain_steps(self) -> str:
        """Of the plain model, in words."""
        plain = figures.plain_cell(self.matrix)
        return f"{sum(plain.steps.values())} steps" if plain and plain.steps else "steps"

    @property
    def fitted_said(self) -> str:
        return figures.fitted_said(self.matrix)

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
        baseline = figures.plain_cell(self.matrix, cell.words.get("distill", PLAIN)) or figures.plain_cell(self.matrix)
        idle = {stage: word for stage, word in baseline.words.items() if stage != "distill"} if baseline else {}
        acting = [word for stage, word in cell.words.items() if word not in (PLAIN, idle.get(stage))]
        return " · ".join(acting) or "plain"

    def _cell(self, cell: Cell) -> dict[str, Any]:
        found = {one.key: self.figure(cell, one.key) for one in self.columns}
        baseline = figures.plain_cell(self.matrix) or figures.plain_cell(self.matrix, cell.words.get("distill", PLAIN))
        return {
            "title": self.title(cell),
            "words": cell.words,
            "status": cell.status,
            "reasons": cell.reasons,
            "contradiction": cell.contradiction,
            "recipe": cell.recipe,
            "steps": ", ".join(f"{count} {kind}" for kind, count in cell.steps.items()),
            "figures": {
                key: [one.value, one.text, one.interval, one.low, one.high] for key, one in found.items() if one.value
            },
            "interaction": self._interaction(cell),
            "pictures": [self._source(file) for file in cell.pictures[: self.shown]],
            "baseline": baseline.name if baseline else None,
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
            "predicted": short(measured.mean - cell.interaction.mean),
            "measured": short(measured.mean),
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


def _data_uri(path: Path) -> str:
    """A picture as WebP: as it is where it is small, scaled down where it is large."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    small.save(out, "WEBP", lossless=max(small.size) <= _LOSSLESS_SIDE, quality=90)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
