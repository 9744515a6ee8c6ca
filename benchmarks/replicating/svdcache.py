"""SVD-Cache beside its controls, table 3: twin-flux2 at N = 5, 7, 8 and twin-hunyuanvideo at N = 5, 6, of 50 steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ditstack.caching.feature_cache import FeatureCache
from ditstack.maths.lowrank import gram, principal
from ditstack.maths.schedule import graded, paper
from ditstack.measure.bench import race
from ditstack.stack import Stack, load
from replicating.bench import Bench, Case, Row, Setting

STEPS, ENERGY, GAP = 50, 0.85, 5
WATCHED = 6
"""Prompts whose features are looked at."""
PAIRS = 3
"""Pairs of runs whose median is a ratio of times."""
GROUPS = ((0, 4), (4, 16), (16, 64), (64, 128))
"""Directions from the strongest on."""
READ: dict[str, dict[str, Any]] = {
    "plain reuse": {"predictor": "reuse"},
    "SVD-Cache as we read it": {"predictor": "ema", "beta": 0.1, "energy": ENERGY, "granularity": "block"},
    "SVD-Cache to the letter": {"predictor": "ema", "beta": 0.9, "energy": ENERGY, "granularity": "block"},
    "first order of the principal part": {"energy": ENERGY},
    "first order of the whole space": {},
}
OURS = "graded, first order (our default)"


def table_3() -> Iterator[tuple[Setting, Any]]:
    """Settings and the rows of each."""
    yield Setting("hunyuanvideo", STEPS, calibration=8), lambda bench: rows(bench, (5, 6), first=1)
    yield Setting("flux2", STEPS, calibration=8), lambda bench: rows(bench, (5, 7, 8), first=3)
    yield Setting("hunyuanvideo", STEPS, seed=2000, calibration=8), lambda bench: rows(bench, (5, 6), first=1)
    yield Setting("flux2", STEPS, seed=2000, part=0.5, calibration=8), lambda bench: rows(bench, (5, 8), first=3)


def rows(bench: Bench, intervals: tuple[int, ...], first: int) -> Iterator[Case]:
    """On the paper's schedule every reading of it; on ours the default; and as many steps without a cache."""
    yield Case("features", "no cache", lambda: load(bench.base), more=lambda stack: directions(bench))
    for interval in intervals:
        group, full = f"N={interval}", list(paper(bench.steps, interval, first))
        offline = {"calibrate": "auto"}
        for name, fields in READ.items():
            cache = {"method": "svdcache", "schedule": full, **fields, **(offline if "energy" in fields else {})}
            yield Case(
                group,
                f"{group}: {name}",
                lambda cache=cache: bench.stack(cache=cache),
                more=lambda stack: _pace(bench, stack),
            )
        cache = {"method": "svdcache", "schedule": list(graded(bench.steps, len(full)))}
        title = f"{group}: {OURS}"
        yield Case(
            group,
            title,
            lambda cache=cache: bench.stack(cache=cache),
            f"{group}: {next(iter(READ))}",
            lambda stack: _pace(bench, stack),
        )
        yield from bench.fewer_steps(group, title, group, len(full))


def _pace(bench: Bench, stack: Stack) -> Row:
    """How many times faster a picture is denoised on this machine."""
    pace = race(stack, load(bench.base), bench.prompts, pairs=PAIRS).speedup
    return {"speedup": [round(one, 3) for one in (pace.mean, pace.low, pace.high)]}


def directions(bench: Bench) -> Row:
    """The features that a cache of the trunk keeps, at every step of an uncached run, by principal direction.

    Of each group of directions: its share of the energy; how much of it changes over GAP steps; and what first order
    over that gap leaves of the change that reuse would miss (below 1 it pays).
    """
    cache = {"method": "svdcache", "schedule": list(range(bench.steps))}
    stack = bench.stack(cache=cache)
    seen: dict[str, list[Tensor]] = {}
    FeatureCache.on(stack.pipe).listeners.append(lambda site, one: seen.setdefault(site, []).append(one.float().cpu()))
    watched = bench.prompts[:WATCHED]
    stack.sample(watched, [bench.setting.seed + place for place in range(len(watched))])
    site = min(seen, key=len)  # the stream of pictures; one of text, where there is one, has a longer name
    return analysed(torch.stack(seen[site]).unflatten(0, (bench.steps, -1)))


def analysed(features_SPBTD: Tensor) -> Row:
    """Of the features of S steps, P passes each, B prompts, T tokens."""
    by_prompt = torch.stack([gram(one.flatten(0, 2)) for one in features_SPBTD.unbind(2)])
    width = features_SPBTD.shape[-1]
    basis_DD = principal(by_prompt.sum(0), width, None)
    z = features_SPBTD @ basis_DD
    before, now, after = z[: -2 * GAP], z[GAP:-GAP], z[2 * GAP :]
    energy, change, missed = (
        one.double().square().flatten(0, -2).sum(0) for one in (z, after - now, after - 2 * now + before)
    )
    held = int((energy.cumsum(0) / energy.sum() < ENERGY).sum()) + 1
    groups = [("principal", 0, held), ("residual", held, width), *((f"{a + 1} to {b}", a, b) for a, b in GROUPS)]
    told = [
        {
            "directions": name,
            "energy": float(energy[a:b].sum() / energy.sum()),
            "change": float(change[a:b].sum() / energy[a:b].sum() * len(z) / len(now)),
            "missed": float(missed[a:b].sum() / change[a:b].sum()),
        }
        for name, a, b in groups
        if a < min(b, width)
    ]
    same = {}
    for rank in sorted({held, 4, 16}):
        bases = [principal(one, rank, None) for one in by_prompt]
        pairs = [(a, b) for place, a in enumerate(bases) for b in bases[:place]]
        same[str(rank)] = sum(float((a.mT @ b).square().sum() / rank) for a, b in pairs) / max(1, len(pairs))
    return {"features": {"rank": held, "width": width, "groups": told, "same_basis": same}}
