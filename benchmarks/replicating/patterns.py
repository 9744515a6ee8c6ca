"""Patterns, table 5: layers and steps learned, a fixed period, a threshold and a mixture, for the same work."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

from ditstack.maths.schedule import even
from ditstack.stack import Stack
from replicating.bench import KEPT, Bench, Case, Row, Setting

INTERVAL, RANK = 2, 1 / 6
LABEL = "N=2"
CORRECTED: dict[str, dict[str, Any]] = {
    "rrr, anchor line": {"rank": RANK, "anchor": "line"},
    "cd": {"rank": RANK, "factors_by": "cd"},
    "reuse": {"rank": 0},
}
"""What stands in for a linear between its full runs; `cd` is the published form."""
LIKE = f"{LABEL}: rrr, anchor line, fixed period"
"""Whose work all others take."""
THRESHOLDS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5)
MIXTURES = ("FCFS", "FCFC", "FSFC", "FCCS", "FSCF")
TRIED = 4
"""Prompts that the threshold and the mixture are chosen on."""


def table_5() -> Iterator[tuple[Setting, Any]]:
    """Twin-dit and twin-pixart, and twin-dit again from other noise."""
    yield Setting("dit", 30, 4.0, part=0.5), rows
    yield Setting("dit", 30, 4.0, 2000, part=0.5), rows
    yield Setting("pixart", 20, 4.5, part=0.5), rows


def rows(bench: Bench) -> Iterator[Case]:
    """Each correction with the period and with a pattern learned with it; then what else the work buys."""
    yield bench.uncached(LABEL)
    for name, fields in CORRECTED.items():
        period = f"{LABEL}: {name}, fixed period"
        yield Case(LABEL, period, functools.partial(_icc, bench, fields), LIKE if period != LIKE else None)
        make = functools.partial(_icc, bench, {**fields, "pattern": "learned"})
        yield Case(LABEL, f"{LABEL}: {name}, learned pattern", make, period, _learned)
    yield from _reuse_for_the_same_work(bench)
    yield from bench.as_costly(LABEL, LIKE, LABEL)
    row = bench.row(LABEL, LIKE)
    if row is not None:
        yield Case(LABEL, f"{LABEL}: firstblock, a threshold", lambda: _threshold(bench, row["macs_ratio"]), LIKE)
        yield Case(LABEL, f"{LABEL}: mixed", lambda: _mixture(bench, row["macs_ratio"]), LIKE)


def _reuse_for_the_same_work(bench: Bench) -> Iterator[Case]:
    """What stands in for a linear costs nothing here, so that more layers can run in full."""
    corrected, reused = (bench.row(LABEL, one) for one in (LIKE, f"{LABEL}: reuse, fixed period"))
    if corrected is None or reused is None:
        return
    anew = 2 * reused["macs_ratio"] - 1  # of a full step, in one that reuses; half of all are full
    share = (corrected["macs_ratio"] - anew) / (1 - anew)
    count = math.floor(share * bench.steps)
    file = KEPT / f"even-{count}-of-{bench.steps}.yaml"
    file.write_text(f'"*": {"".join("CF"[step in even(bench.steps, count)] for step in range(bench.steps))}\n')
    fixed = f"{LABEL}: reuse for the same work, fixed, {count} full"
    fields = {"method": "icc", "rank": 0}
    yield Case(LABEL, fixed, lambda: bench.stack(cache={**fields, "pattern": str(file)}), LIKE)
    learned = {**fields, "pattern": "learned", "full_share": round(share, 3)}
    yield Case(LABEL, f"{LABEL}: reuse for the same work, learned", lambda: bench.stack(cache=learned), fixed, _learned)


def _icc(bench: Bench, fields: dict[str, Any]) -> Stack:
    return bench.stack(cache={"method": "icc", "interval": INTERVAL, **fields})


def _learned(stack: Stack) -> Row:
    """What calibration said of its pattern."""
    return {"said": next((note for note in stack.notes if note.startswith("pattern: ")), "")}


def _threshold(bench: Bench, macs: float) -> Stack:
    """The lowest threshold that takes no more work on other prompts."""

    def spends_more(threshold: float) -> bool:
        stack = bench.stack(cache={"method": "firstblock", "threshold": threshold})
        bench.elsewhere(stack, TRIED)
        return stack.pipe.passes.macs_ratio > macs

    found = next(one for one in THRESHOLDS if not spends_more(one))
    return bench.stack(cache={"method": "firstblock", "threshold": found})


def _mixture(bench: Bench, macs: float) -> Stack:
    """The mixture of full, calibrated and forecast steps that is best on other prompts, of those that take no more."""
    best: tuple[float, Stack] | None = None
    for word in MIXTURES:
        stack = bench.stack(cache={"method": "mixed", "schedule": f"F ({word})...", "rank": RANK})
        score = bench.elsewhere(stack, TRIED)
        if stack.pipe.passes.macs_ratio > macs:
            continue
        best = max(best or (score, stack), (score, stack), key=lambda one: one[0])
    assert best is not None, "no mixture is as cheap"
    return best[1]
