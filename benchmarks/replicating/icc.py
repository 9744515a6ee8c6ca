"""ICC beside what its work buys otherwise: table 1, twin-dit under DDIM, and 2, twin-pixart under DPM-Solver++."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ditstack.assembly.build import build
from ditstack.stack import Stack
from replicating.bench import Bench, Case, Setting, share

WIDEST = 0.5
"""Factors are fitted at this rank; the first components of them are what a fit at a lower rank gives."""
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "svd": ("svd", {"factors_by": "svd"}),
    "ca": ("ca", {"factors_by": "ca"}),
    "cd": ("cd", {"factors_by": "cd"}),
    "rrr": ("rrr", {"factors_by": "rrr"}),
    "cd, anchor line": ("cd", {"factors_by": "cd", "anchor": "line"}),
    "rrr, anchor line": ("rrr, anchor line", {"factors_by": "rrr", "anchor": "line"}),
}
"""What is fitted and how it is used: the channels' scales of `cd` do not depend on the anchor."""
MAIN = ("svd", "cd", "rrr", "rrr, anchor line")
REUSED = "reuse of every linear"
EIGHTEENTH, NINTH, SIXTH, QUARTER, HALF = 1 / 18, 1 / 9, 1 / 6, 1 / 4, 1 / 2
LEFT_OUT = (1, 16)
"""Components of every linear that are left out by turns, counted from the strongest."""
PAPERS = 35
"""DDIM steps that the paper sets ICC's 30 beside."""
GROUP = "N=2"


def table_1() -> Iterator[tuple[Setting, Any]]:
    """Settings of twin-dit and the rows of each."""
    yield Setting("dit", 50, 4.0), lambda bench: _widely(bench)
    for steps, guidance, seed in ((50, 4.0, 2000), (30, 4.0, 1000), (50, 1.5, 1000)):
        yield Setting("dit", steps, guidance, seed, part=HALF), lambda bench: _again(bench)


def table_2() -> Iterator[tuple[Setting, Any]]:
    """The same of twin-pixart."""
    main = ("svd", "ca", "rrr", "rrr, anchor line")
    yield Setting("pixart", 20, 4.5), lambda bench: _start(bench, _at(bench, NINTH, main), _at(bench, EIGHTEENTH, main))
    yield Setting("pixart", 20, 4.5, 2000), lambda bench: _start(bench, _at(bench, NINTH, main, briefly=True))


def _start(bench: Bench, *parts: Iterator[Case]) -> Iterator[Case]:
    yield bench.uncached(GROUP)
    yield Case(GROUP, REUSED, lambda: bench.stack(cache={"method": "icc", "interval": 2, "rank": 0}))
    for part in parts:
        yield from part


def _widely(bench: Bench) -> Iterator[Case]:
    """One full step in two: every kind of factors at D/6; other ranks; and D/6 without single components."""
    yield from _start(bench, _at(bench, SIXTH, tuple(FITS)))
    for place, name in itertools.product(LEFT_OUT, ("svd", "rrr")):
        make = functools.partial(icc, bench, name, SIXTH, place)
        yield Case(GROUP, f"D/6: {name} without component {place}", make, f"D/6: {name}")
    for rank in (NINTH, QUARTER):
        yield from _at(bench, rank, MAIN[1:], briefly=True)
    for name in MAIN[2:]:
        yield Case(GROUP, f"D/2: {name}", functools.partial(icc, bench, name, HALF), "D/2: rrr")


def _again(bench: Bench) -> Iterator[Case]:
    """The main rows at another setting, and the paper's comparison where it is one of fewer steps."""
    yield from _start(bench, _at(bench, SIXTH, MAIN, briefly=True))
    if bench.steps < PAPERS:
        yield Case(GROUP, f"no cache, {PAPERS} steps", lambda: bench.sampled(PAPERS))


def _at(bench: Bench, rank: float, fits: tuple[str, ...], briefly: bool = False) -> Iterator[Case]:
    """Kinds of factors at a rank, and what the work of `rrr` buys otherwise."""
    label = share(rank)
    for name in fits:
        against = f"{label}: {fits[0]}" if name != fits[0] else REUSED
        yield Case(GROUP, f"{label}: {name}", functools.partial(icc, bench, name, rank), against)
    yield from bench.as_costly(GROUP, f"{label}: rrr", label, briefly)


def icc(bench: Bench, name: str, rank: float, without: int = 0, calibration: list[str] | None = None) -> Stack:
    """A stack whose corrections are the first components of the widest fit, perhaps without one of them."""
    fit, used = FITS[name]
    cache = {"method": "icc", "interval": 2, "rank": WIDEST}
    fitted = bench.stack(calibration, cache={**cache, **FITS[fit][1]}).factors
    assert fitted is not None
    recipe = bench.base.with_(cache={**cache, **used, "rank": rank})
    pipe = build(recipe)
    recipe.adapters["cache"].take(pipe, cut(fitted.of("cache"), rank / WIDEST, without))
    return Stack(recipe, pipe, {})


def cut(tensors: dict[str, Tensor], part: float, without: int = 0) -> dict[str, Tensor]:
    """The first components of every A and B, a share of them; one of them, counted from 1, is left out."""
    found: dict[str, Tensor] = {}
    for key, down_RI in tensors.items():
        if key.endswith(".down"):
            members = key.removesuffix(".down").split("+")
            ups = [tensors[f"{one}.up"] for one in members]
            rank = int(ups[0].shape[1] * part + 1e-9)
            downs = down_RI.split([up.shape[1] for up in ups])
            found[key] = torch.cat([one[:rank] for one in downs])
            for member, up in zip(members, ups, strict=True):
                found[f"{member}.up"] = up[:, :rank].clone()
                if without:
                    found[f"{member}.up"][:, without - 1] = 0
    return found
