"""Rows with a PSNR for every prompt: what is told of them, and what one gains over another."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from functools import cache
from typing import Any

from ditstack.maths import fidelity
from ditstack.maths.fidelity import Statistic, paired

Row = dict[str, Any]
DEFAULT = "svdcache (default)"
UNCACHED, CONVERGED = "psnr_each", "converged_each"
"""PSNR to the user's own uncached pictures, and to the converged ones."""
STATISTICS: dict[str, Statistic] = {
    "mean": fidelity.mean,
    "5th percentile": fidelity.low_end,
    "PSNR of the mean squared error": fidelity.of_mean_square,
    "worst": fidelity.worst,
}
GATE = 30.0
"""Below it a picture counts as broken."""


def told(row: Row, to: str, name: str) -> float | None:
    """One figure of a row; None where it was not measured."""
    if to not in row:
        return None
    value, _, _ = fidelity.bootstrap(row[to], draws=1, of=STATISTICS[name])
    return value


def broken(row: Row, to: str = UNCACHED) -> float:
    """The share of pictures below the gate."""
    return statistics.fmean(value < GATE for value in row[to])


def gain(one: Row, other: Row, to: str, name: str) -> tuple[float, float, float] | None:
    """By how much one row is above another, prompts drawn together, with its 95 % interval."""
    if to not in one or to not in other:
        return None
    return _paired(tuple(one[to]), tuple(other[to]), name)


@cache  # several tables ask for the same
def _paired(values: tuple[float, ...], others: tuple[float, ...], name: str) -> tuple[float, float, float]:
    return paired(values, others, STATISTICS[name])


def ours(rows: Iterable[Row], count: int) -> Row:
    """Our default at a number of full steps."""
    return next(row for row in rows if (row["name"], row["asked"]) == (DEFAULT, count))


def chosen_control(rows: Iterable[Row], count: int) -> Row:
    """The control that was best on other prompts."""
    found = [row for row in rows if row["kind"] == "control" and row["asked"] == count]
    return max(found, key=lambda row: row["psnr_on_seen"])
