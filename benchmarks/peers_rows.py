"""Rows of peers.json compared: the best of ours, and what it gains over a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ditstack.quality import bootstrap


def best_of_ours(rows: Iterable[dict[str, Any]], count: int) -> dict[str, Any]:
    """Our best cache at a number of full steps, as chosen on seen prompts."""
    return max(
        (row for row in rows if row["asked"] == count and row["kind"] == "ours"), key=lambda row: row["psnr_on_seen"]
    )


def gain(best: dict[str, Any], row: dict[str, Any], measure: str) -> tuple[float, float, float]:
    """The best minus the row, paired over prompts, with its 95 % interval."""
    return bootstrap([a - b for a, b in zip(best[f"{measure}_each"], row[f"{measure}_each"], strict=True)])
