"""Which pipeline classes really skip what a recipe plans."""

from __future__ import annotations

from typing import Any

from lines import head, line
from results import latest

LEAST = 0.6
"""Of the planned share, below which a cell that says nothing is silent."""


def pipelines() -> str:
    """A line for each class, a column for each recipe."""
    rows = sorted(latest("pipelines")["rows"], key=lambda row: row["name"])
    columns = list(rows[0]["cells"])
    notes: list[str] = []
    body = [
        line([f"{row['name']}", row["method"], *(_cell(row["cells"][column], notes) for column in columns)])
        for row in rows
    ]
    told = [f"{place}. {_short(note)}" for place, note in enumerate(notes, 1)]
    return "\n".join([*head(["pipeline", "model", *columns]), *body, "", *told])


def pipelines_counted() -> str:
    """How many of each kind of cell."""
    rows = latest("pipelines")["rows"]
    cells = [cell["verdict"] for row in rows for cell in row["cells"].values()]
    counted = ", ".join(f"{cells.count(one)} {one}" for one in sorted(set(cells), key=lambda one: -cells.count(one)))
    silent = f"{cells.count('silent')} silent, {cells.count('traceback')} tracebacks"
    return f"{len(rows)} pipelines, {len(cells)} cells: {counted}. Of these {silent}. {_meaning()}"


def _meaning() -> str:
    """What the words above stand for."""
    return (
        f"A cell works where at least {100 * LEAST:.0f} % of the share that the schedule plans to skip was really "
        "skipped; less is noted where the report says so, and silent where it does not. Lists of refiners (Lumina's, "
        "Z-Image's) are not counted, neither in what runs nor in the plan: they prepare what the blocks read, and "
        "every step runs them."
    )


def _cell(cell: dict[str, Any], notes: list[str]) -> str:
    """The share that was skipped, of the share that was planned; else the sentence by its number."""
    told = ", ".join(str(_number(note, notes)) for note in cell["told"][:2])
    marks = f" [{told}]" if told else ""  # [1] [2] would be a link
    if "planned" not in cell:
        return f"{cell['verdict']}{marks}"
    said = "" if cell["verdict"] in ("works", "noted") else f" **{cell['verdict']}**"
    return f"{100 * cell['skipped']:.0f} % of {100 * cell['planned']:.0f} %{said}{marks}"


def _number(note: str, notes: list[str]) -> int:
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def _short(note: str) -> str:
    text = " ".join(note.split())
    return text if len(text) <= 400 else f"{text[:397]}..."
