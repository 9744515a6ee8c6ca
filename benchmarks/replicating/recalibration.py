"""Recalibration on rounded weights, table 7: what compensation and a refit of ICC bring on each twin."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from ditstack.assembly.build import build
from ditstack.calibration.calibrate import provide_factors
from ditstack.stack import Stack
from replicating.bench import Bench, Case, Setting

ROUNDED: dict[str, dict[str, Any]] = {
    "int4": {"method": "torchao", "scheme": "int4"},
    "nf4": {"method": "bitsandbytes", "scheme": "nf4"},
}
COMPENSATED = {"compensate": 0.125}
CACHE = {"method": "icc", "interval": 2, "rank": 0.125, "anchor": "line"}
NAIVE = "naive: ICC of the unquantized weights"


def table_7() -> Iterator[tuple[Setting, Any]]:
    """At 20 steps, of which every other one is full."""
    yield Setting("dit", 20, 4.0), rows
    yield Setting("pixart", 20, 4.5), rows
    yield Setting("dit", 20, 4.0, 2000), rows


def rows(bench: Bench) -> Iterator[Case]:
    """What each part contributes, for each way of rounding."""
    yield Case("unquantized", "unquantized: ICC", lambda: bench.stack(cache=CACHE))
    for scheme, plain in ROUNDED.items():
        better = {**plain, **COMPENSATED}
        group, rounded, naive = scheme, f"{scheme}: rounded, no cache", f"{scheme}: {NAIVE}"
        yield Case(group, rounded, lambda plain=plain: bench.stack(quantize=plain))
        yield Case(group, f"{scheme}: compensated, no cache", lambda q=better: bench.stack(quantize=q), rounded)
        yield Case(group, naive, functools.partial(_naive, bench, plain))
        refitted = functools.partial(bench.stack, cache=CACHE, quantize=plain)
        yield Case(group, f"{scheme}: ICC refitted", refitted, naive)
        yield Case(group, f"{scheme}: compensated", functools.partial(_naive, bench, better), naive)
        whole = functools.partial(bench.stack, cache=CACHE, quantize=better)
        yield Case(group, f"{scheme}: compensated, ICC refitted", whole, naive)


def _naive(bench: Bench, quantize: dict[str, Any]) -> Stack:
    """Rounded weights whose cache has the factors of the unquantized model; what compensates is fitted."""
    fitted = bench.stack(cache=CACHE).factors
    assert fitted is not None
    recipe = bench.base.with_(None, cache=CACHE, quantize=quantize)
    pipe = build(recipe)
    provide_factors(bench.base.with_("uncached", quantize=quantize), pipe)
    recipe.adapters["cache"].take(pipe, fitted.of("cache"))
    return Stack(recipe, pipe, {})
