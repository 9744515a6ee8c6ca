"""The matrix of a twin beside the embedded model's: where the same combination fares otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lines import head, line
from results import RESULTS, matrix_file

Cell = dict[str, Any]


def matrix_dit() -> str:
    """What is the same on twin-dit and on the embedded model, and what is not."""
    file = _file()
    if file is None:
        return "Not measured yet."
    ours, known = json.loads(file.read_text()), _known()
    cells, both, others = _compared(ours, known)
    lines = head(["combination", "on the embedded model", "on twin-dit"])
    lines += [line([_name(cell), _told(known[_name(cell)]), _told(cell)]) for cell in others]
    return "\n".join([*lines, "", _note(file, ours, cells, both, others)])


def matrix_dit_short() -> str:
    """The same in a sentence, for the first page."""
    file = _file()
    if file is None:
        return "Not measured yet."
    _, both, others = _compared(json.loads(file.read_text()), _known())
    return (
        f"On twin-dit, a model of another family that nothing was tuned on, {len(others)} of {len(both)} of these "
        "combinations fare otherwise, in the gate or beside the control: "
        "[which ones](docs/replication.md#the-matrix-of-twin-dit)."
    )


def _compared(data: dict[str, Any], known: dict[str, Cell]) -> tuple[list[Cell], list[Cell], list[Cell]]:
    """All combinations, those that both models have, and those of them with another verdict."""
    cells = [cell for cell in data["cells"] if cell["status"] != "control"]
    both = [cell for cell in cells if _name(cell) in known]
    return cells, both, [cell for cell in both if _verdict(cell) != _verdict(known[_name(cell)])]


def _file() -> Path | None:
    """The newest that is committed."""
    found = sorted(RESULTS.glob("*/matrix_dit/matrix.json"), key=lambda path: path.parts[-3].rpartition("_")[2])
    return found[-1] if found else None


def _known() -> dict[str, Cell]:
    """The embedded model's combinations, by name."""
    data = json.loads(matrix_file().read_text())
    return {_name(cell): cell for cell in data["cells"] if cell["status"] != "control"}


def _note(file: Path, data: Cell, cells: list[Cell], both: list[Cell], others: list[Cell]) -> str:
    states = ", ".join(
        f"{sum(cell['status'] == word for cell in cells)} {word}"
        for word in dict.fromkeys(cell["status"] for cell in cells)
    )
    where = file.with_suffix(".md").relative_to(RESULTS.parents[1])
    return (
        f"Of the [{len(cells)} combinations](../{where}) on twin-dit ({len(data['prompts'])} prompts; {states}) "
        f"{len(both)} are in the embedded model's matrix too; {len(both) - len(others)} fare alike there, in the gate "
        f"and beside the control, and the {len(others)} above do not. In brackets the gain over the control."
    )


def _name(cell: Cell) -> str:
    return " + ".join(word for stage, word in cell["words"].items() if (stage, word) != ("distill", "none"))


def _verdict(cell: Cell) -> tuple[str, str]:
    """Whether the gate is kept, and on which side of the control it is."""
    if cell["status"] not in ("ok", "degraded"):
        return cell["status"], ""
    missed = any(reason.startswith("psnr_p5_min") for reason in cell["reasons"])
    over = cell["above_control"]
    side = "" if over is None else "above" if over["low"] > 0 else "below" if over["high"] < 0 else "level with"
    return ("gate missed" if missed else "gate kept"), side


def _told(cell: Cell) -> str:
    state, side = _verdict(cell)
    over = cell["above_control"]
    beside = f", {side} the control ({over['low']:+.1f} to {over['high']:+.1f} dB)" if over and side else ""
    psnr = cell["to_baseline"].get("psnr") if cell["to_baseline"] else None
    return f"{state}{beside}" + (f"; {float(psnr['mean']):.1f} dB" if psnr else "")
