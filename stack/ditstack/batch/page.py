"""Page: a batch as one HTML file that asks for nothing else: its certificate, and of every row what was decided.

Rows that a reader should look at come first: those made in full, then those whose last forecast was farthest off. It is
written when a run ends; a page that others changed is left alone.
"""

from __future__ import annotations

import base64
import heapq
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ditstack.batch.report import BatchReport
from ditstack.batch.spec import BatchSpec
from ditstack.batch.store.folder import write as write_file
from ditstack.batch.store.lines import Entry
from ditstack.batch.store.place import is_url
from ditstack.calibration.certificate import said
from ditstack.calibration.promised import CERTIFIED, LATE
from ditstack.errors import BadFile
from ditstack.marks import is_signed_html, signed_html

NAME = "batch.html"
ROWS, THUMBNAILS, FAILURES = 500, 200, 50
"""The most rows, pictures and failures that it shows; the manifest has them all."""
_FILES = Path(__file__).parent / "page_files"
_SIDE = 128


def write(spec: BatchSpec, report: BatchReport) -> str:
    """Write the page of a batch into its folder.

    Returns:
        Why it was not written, in a sentence; else nothing.
    """
    if (there := spec.folder.read(NAME)) is not None and not is_signed_html(there):
        return f"{NAME} was changed by somebody else and is left alone; move it, and the same command writes a new one"
    write_file(spec.folder, NAME, signed_html(render(spec, report)).encode("utf-8", "backslashreplace"))
    return ""


def render(spec: BatchSpec, report: BatchReport) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_FILES)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    css = (_FILES / "batch.css").read_text(encoding="utf-8")
    return page.get_template("batch.html").render(view=View(spec, report), report=report, css=css)


@dataclass(frozen=True)
class Shown:
    """One row as it is read."""

    id: str
    prompt: str
    seed: int
    steps: str
    macs: str
    decision: str
    scores: dict[str, str]
    rank: str
    """Of its late forecast error among those of calibration, in words."""
    picture: str
    """A data URI; empty where it is not shown."""

    @property
    def kind(self) -> str:
        """A word for its colour."""
        return "certified" if self.decision == CERTIFIED else "full" if self.decision else ""


@dataclass
class View:
    """What the template shows."""

    spec: BatchSpec
    report: BatchReport

    @cached_property
    def tested(self) -> list[str]:
        """Every setting that the certificate tested, in words."""
        return [] if self.spec.certificate is None else [str(one) for one in self.spec.certificate.tested]

    @property
    def setting(self) -> str:
        return "" if self.spec.certificate is None else said(self.spec.certificate.changes)

    @cached_property
    def rows(self) -> list[Shown]:
        """Those to look at first."""
        doubled = heapq.nsmallest(2 * ROWS, self.spec.ledger.entries(), key=_urgency)  # a picture may have two lines
        chosen = list({entry["number"]: entry for entry in doubled}.values())[:ROWS]
        return [self._shown(one, place < THUMBNAILS) for place, one in enumerate(chosen)]

    @property
    def left_out(self) -> int:
        """Rows that the page does not show."""
        return max(0, self.report.pictures - len(self.rows))

    @cached_property
    def failures(self) -> list[dict[str, Any]]:
        """The first rows that failed."""
        found: list[dict[str, Any]] = []
        for line in self.spec.folder.lines("errors.jsonl"):
            with suppress(ValueError, RecursionError):
                found += [one] if isinstance(one := json.loads(line), dict) else []
            if len(found) >= FAILURES:
                break
        return found

    @cached_property
    def names(self) -> list[str]:
        """Of the scores, the one that tells most first."""
        found = dict.fromkeys(name for row in self.rows for name in row.scores)
        return sorted(found, key=lambda name: name != LATE)

    def _shown(self, entry: Entry, picture: bool) -> Shown:
        told = entry.get("promise", {})
        kinds = told.get("steps") or {"steps": entry.get("steps", 0)}
        scores = told.get("scores", {})
        copy = f" ({entry['copy']})" if entry.get("copy") else ""
        return Shown(
            id=f"{entry.get('id', entry['number'])}{copy}",
            prompt=str(entry.get("prompt", "")),
            seed=entry.get("seed", 0),
            steps=", ".join(f"{count} {kind}" for kind, count in kinds.items()),
            macs=f"{told['macs'] / 1e9:.3g}" if told.get("macs") else "",
            decision=str(told.get("decision", "")),
            scores={name: f"{value:.3g}" for name, value in scores.items()},
            rank=self._rank(scores.get(LATE)),
            picture=self._picture(entry) if picture else "",
        )

    def _rank(self, late: float | None) -> str:
        known = self.spec.certificate.scores.get(LATE, []) if self.spec.certificate is not None else []
        if late is None or not known:
            return ""
        above = sum(one >= late for one in known) / len(known)
        return "above all of calibration" if not above else f"top {100 * above:.3g} % of calibration"

    def _picture(self, entry: Entry) -> str:
        """A small picture as a data URI; none of a video, of one that cannot be read, or from a bucket."""
        if is_url(self.spec.folder.name):
            return ""
        with (
            suppress(BadFile, OSError, ValueError, SyntaxError),
            self.spec.folder.local(entry["file"]).open("rb") as file,
        ):
            file.seek(entry.get("offset", 0))
            return _data_uri(file.read(entry["bytes"]))
        return ""


def _urgency(entry: Mapping[str, Any]) -> tuple[bool, float, int]:
    told = entry.get("promise", {})
    covered = told.get("decision", CERTIFIED) == CERTIFIED
    return covered, -told.get("scores", {}).get(LATE, 0.0), entry["number"]


def _data_uri(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
