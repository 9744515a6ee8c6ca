"""The matrices of twins beside the embedded model's: where the same combination fares otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lines import head, line
from results import RESULTS, matrix_file

Cell = dict[str, Any]
TWINS = ("dit", "flux2")


def matrix_twins() -> str:
    """What is the same on the twins and on the embedded model, and what is not."""
    known, found = _known(), _found()
    names = [name for name in known if any(name in cells and _differs(cells[name], known[name]) for cells in found)]
    twins = [f"on twin-{twin}" for twin, cells in zip(TWINS, found, strict=True) if cells]
    lines = head(["combination", "on the embedded model", *twins])
    for name in names:
        told = [_told(cells[name]) if name in cells else "not measured" for cells in found if cells]
        lines.append(line([name, _told(known[name]), *told]))
    notes = [_note(twin, cells, known) for twin, cells in zip(TWINS, found, strict=True) if cells]
    return "\n".join([*lines, "", " ".join([*notes, "In brackets the gain over the control."])])


def matrix_twins_short() -> str:
    """The same in a sentence, for the first page."""
    known, parts = _known(), []
    for twin, cells in zip(TWINS, _found(), strict=True):
        both = [name for name in cells if name in known]
        others = sum(_differs(cells[name], known[name]) for name in both)
        parts += [f"{others} of {len(both)} on twin-{twin}"] if cells else []
    return (
        "On models of other families and sizes that nothing was tuned on, many of these combinations fare otherwise, "
        f"in the gate or beside the control: {', '.join(parts)} "
        "([which ones](docs/replication.md#the-matrices-of-the-twins))."
    )


def _found() -> list[dict[str, Cell]]:
    """The combinations of each twin, by name."""
    return [{} if (file := _file(twin)) is None else _cells(file) for twin in TWINS]


def _file(twin: str) -> Path | None:
    """The newest that is committed."""
    found = sorted(RESULTS.glob(f"*/matrix_{twin}/matrix.json"), key=lambda path: path.parts[-3].rpartition("_")[2])
    return found[-1] if found else None


def _known() -> dict[str, Cell]:
    """The embedded model's combinations, by name."""
    return _cells(matrix_file())


def _cells(file: Path) -> dict[str, Cell]:
    return {_name(cell): cell for cell in json.loads(file.read_text())["cells"] if cell["status"] != "control"}


def _note(twin: str, cells: dict[str, Cell], known: dict[str, Cell]) -> str:
    states = [cell["status"] for cell in cells.values()]
    counted = ", ".join(f"{states.count(word)} {word}" for word in dict.fromkeys(states))
    file = _file(twin)
    assert file is not None
    where, asked = file.with_suffix(".md").relative_to(RESULTS.parents[1]), len(json.loads(file.read_text())["prompts"])
    both = [name for name in cells if name in known]
    others = sum(_differs(cells[name], known[name]) for name in both)
    return (
        f"Of the [{len(cells)} combinations](../{where}) on twin-{twin} ({asked} prompts; {counted}) "
        f"{len(both)} are in the embedded model's matrix too; {len(both) - others} fare alike there, in the gate "
        f"and beside the control, and {others} do not."
    )


def _name(cell: Cell) -> str:
    return " + ".join(word for stage, word in cell["words"].items() if (stage, word) != ("distill", "none"))


def _differs(one: Cell, other: Cell) -> bool:
    return _verdict(one) != _verdict(other)


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
    shown = "" if psnr is None or psnr["mean"] in ("inf", float("inf")) else f"; {float(psnr['mean']):.1f} dB"
    return f"{state}{beside}{shown}"
