"""Where benchmarks write: benchmarks/results/<machine>_<date>/<case>.json."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock

from ditstack.files import write_atomically
from ditstack.recipe.capabilities import describe_machine
from ditstack.report import versions

RESULTS = Path(__file__).parent / "results"
AGAIN = "rows of --resume whose name holds one of these words are measured again"


def write(case: str, data: dict[str, Any], folder: Path | None = None) -> Path:
    """Write one case's figures, with the machine and the versions that they were measured on.

    Args:
        folder: None takes the day's folder of this machine.
    """
    path = place_of(case) if folder is None else folder / f"{case}.json"
    full = {"case": case, "machine": describe_machine(), "versions": versions(), **data}
    write_atomically(path, (json.dumps(full, indent=1) + "\n").encode())
    print(f"wrote {path}")
    return path


def add_row(case: str, told: dict[str, Any], row: dict[str, Any], key: Sequence[str], path: Path | None = None) -> None:
    """Write one more row of a case at once, in the place of one that has the same `key`; several processes may.

    Args:
        path: of the file that goes on; None takes today's.
    """
    path = path or place_of(case)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / f".{case}.lock"):
        known = json.loads(path.read_text())["rows"] if path.is_file() else []
        others = [one for one in known if any(one[name] != row[name] for name in key)]
        write(case, {**told, "rows": [*others, row]}, path.parent)


def place_of(case: str) -> Path:
    """Where the figures of a case measured today on this machine lie."""
    machine = re.sub(r"[^a-z0-9]+", "-", describe_machine().lower()).strip("-")
    return RESULTS / f"{machine}_{date.today().isoformat()}" / f"{case}.json"


def newest_place(case: str) -> Path:
    """The newest figures of a case on this machine, that a run of several days goes on in; today's where none are."""
    today = place_of(case)
    machine = today.parent.name.rpartition("_")[0]
    found = sorted(RESULTS.glob(f"{machine}_*/{case}.json"), key=lambda path: path.parent.name.rpartition("_")[2])
    return found[-1] if found else today


def kept_rows(file: Path | None, again: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of an earlier results file, without those whose name holds one of some words; none without a file."""
    rows = json.loads(file.read_text())["rows"] if file else []
    return [row for row in rows if not any(word in row["name"] for word in again)]


def latest(case: str) -> dict[str, Any]:
    """The newest figures of a case."""
    found = newest(case)
    if found is None:
        raise SystemExit(f"no results of {case} under {RESULTS}; run benchmarks/{case}.py")
    return found


def matrix_file() -> Path:
    """The newest committed matrix.json."""
    return max(RESULTS.glob("*/matrix/matrix.json"), key=lambda path: path.parts[-3].rpartition("_")[2])


def newest(case: str) -> dict[str, Any] | None:
    """The same, or None where it was never measured."""
    found = sorted(RESULTS.glob(f"*/{case}.json"), key=lambda path: path.parent.name.rpartition("_")[2])
    return json.loads(found[-1].read_text()) if found else None
