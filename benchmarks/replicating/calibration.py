"""What factors are fitted on, table 6: how many prompts, of which kind, at which guidance and size."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from ditstack.assembly.build import build
from ditstack.stack import Stack
from replicating.bench import FITTED, Bench, Case, Setting
from replicating.icc import FITS, WIDEST, cut, icc

COUNTS = (4, 16, 64, 256)
NAMES = ("rrr, anchor line", "cd")
RANK = 1 / 6
USUAL = 16
GROUP = "N=2, D/6"
SIZES = ("80x80", "128x64")
"""1.6 and 2 times the tokens of 64x64."""


def table_6() -> Iterator[tuple[Setting, Any]]:
    """Twin-dit at 20 steps; and twin-pixart at other sizes."""
    yield Setting("dit", 20, 4.0), of_classes
    for size in SIZES:
        yield Setting("pixart", size=size), of_sizes
    yield Setting("dit", 20, 4.0, 2000), lambda bench: of_classes(bench, NAMES[:1])


def of_classes(bench: Bench, names: tuple[str, ...] = NAMES) -> Iterator[Case]:
    """Numbers of prompts; classes of one shape alone; another guidance."""
    for name in names:
        usual = f"{name}: {USUAL} prompts"
        for count in (USUAL, *(one for one in COUNTS if one != USUAL)):
            prompts = bench.twin.prompts(count, FITTED)
            make = functools.partial(icc, bench, name, RANK, calibration=prompts)
            yield Case(GROUP, f"{name}: {count} prompts", make, usual)
        circles = [one for one in bench.twin.prompts(4 * USUAL, FITTED) if "circle" in one][:USUAL]
        make = functools.partial(icc, bench, name, RANK, calibration=circles)
        yield Case(GROUP, f"{name}: {USUAL} prompts of circles alone", make, usual)
        yield Case(
            GROUP,
            f"{name}: {USUAL} prompts at guidance 1.5",
            lambda name=name: _elsewhere(bench, name, guidance=1.5),
            usual,
        )


def of_sizes(bench: Bench) -> Iterator[Case]:
    """Factors that were fitted at this size, and those of 64x64."""
    for name in ("rrr", "rrr, anchor line"):
        usual = f"{name}: fitted at this size"
        yield Case(GROUP, usual, functools.partial(icc, bench, name, RANK))
        make = functools.partial(_elsewhere, bench, name, size="64x64")
        yield Case(GROUP, f"{name}: fitted at 64x64", make, usual)
    yield Case(GROUP, "reuse", lambda: bench.stack(cache={"method": "icc", "interval": 2, "rank": 0}), usual)


def _elsewhere(bench: Bench, name: str, **sampler: Any) -> Stack:
    """A stack with factors that were fitted with another sampler."""
    fit, used = FITS[name]
    cache = {"method": "icc", "interval": 2, "rank": WIDEST}
    fitted = bench.stack(cache={**cache, **FITS[fit][1]}, sampler=sampler).factors
    assert fitted is not None
    recipe = bench.base.with_(cache={**cache, **used, "rank": RANK})
    pipe = build(recipe)
    recipe.adapters["cache"].take(pipe, cut(fitted.of("cache"), RANK / WIDEST))
    return Stack(recipe, pipe, {})
