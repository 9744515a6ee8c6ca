"""Where benchmarks write: benchmarks/results/<machine>_<date>/<case>.json."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from ditstack.facts import describe_machine
from ditstack.files import write_atomically
from ditstack.report import versions

RESULTS = Path(__file__).parent / "results"


def write(case: str, data: dict[str, Any]) -> Path:
    """Write one case's figures, with the machine and the versions that they were measured on."""
    machine = re.sub(r"[^a-z0-9]+", "-", describe_machine().lower()).strip("-")
    path = RESULTS / f"{machine}_{date.today().isoformat()}" / f"{case}.json"
    full = {"case": case, "machine": describe_machine(), "versions": versions(), **data}
    write_atomically(path, (json.dumps(full, indent=1) + "\n").encode())
    print(f"wrote {path}")
    return path


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
