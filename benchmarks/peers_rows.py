"""Rows of peers.json compared: our default, and what it gains over a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ditstack.maths.fidelity import paired

DEFAULT = "svdcache (default)"


def ours(rows: Iterable[dict[str, Any]], count: int) -> dict[str, Any]:
    """Our default at a number of full steps."""
    return next(row for row in rows if (row["name"], row["asked"]) == (DEFAULT, count))


def gain(default: dict[str, Any], row: dict[str, Any], measure: str) -> tuple[float, float, float]:
    """The default minus the row, paired over prompts, with its 95 % interval."""
    return paired(default[f"{measure}_each"], row[f"{measure}_each"])
