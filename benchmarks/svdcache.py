"""SVD-Cache on the embedded model: every predictor and schedule beside every control, to two references.

    python benchmarks/svdcache.py [--prompts 64] [--steps 50] [--full 12 9 7] [--read | --solvers] [--later]

Pictures are compared with the uncached run of the same prompts and seeds, and with the converged one (see sampled.py).
Calibration uses other prompts. Each row is added to benchmarks/results/<machine>_<date>/svdcache.json at once. With
--read, what equation 11 of the paper may mean: both readings of its moving average, a basis from the first step of each
picture or from calibration, one site for the whole trunk or one for every branch; into svdcache_read.json. With
--solvers, the default cache over several solvers at several numbers of steps, beside the same solvers without a cache;
into svdcache_solvers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ditstack.compat import hush, hush_loading
from ditstack.maths.schedule import even, graded, paper
from ditstack.measure.controls import controls
from ditstack.pipeline import samplers
from ditstack.recipe.recipe import Recipe
from ditstack_adapters.model.embedded import shapes
from results import add_row, place_of
from sampled import References, painted

TRIALS = 16
"""Prompts of training on which the best control is chosen."""
UNDER, UNDER_STEPS = ("euler", "dpm", "unipc"), (16, 20, 28, 50)
"""Solvers and their steps that the cache is set over."""
Case = tuple[str, str, Recipe]
"""A name, its kind ("control", "ours" or "paper"), and what is run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--full", type=int, nargs="+", default=[12, 9, 7])
    parser.add_argument("--read", action="store_true", help="measure the readings of the paper")
    parser.add_argument("--solvers", action="store_true", help="measure the default over other solvers")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these words")
    parser.add_argument("--later", action="store_true", help="do without the converged pictures while they are made")
    parser.add_argument("--again", action="store_true", help="take the figures of kept pictures again")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    base = Recipe.read("tiny", [f"sampler.steps={wanted.steps}"]).resolved()
    references = References.of(base, shapes.unseen_prompts(wanted.prompts, 7), later=wanted.later)
    seen = References.of(base, shapes.seen_prompts(TRIALS, 5), 500, later=True)
    told = {"prompts": wanted.prompts, "steps": wanted.steps, "resolved": base}
    title, rows = ("svdcache_read", readings) if wanted.read else ("svdcache", cases)
    if wanted.solvers:
        title, rows = "svdcache_solvers", over_solvers
    for count in wanted.full:
        for name, kind, recipe in rows(base, count):
            if any(word in name for word in wanted.only) and (wanted.again or (name, count) not in _there(title)):
                row = {"name": name, "kind": kind, "full": count, **measure(recipe, references)}
                if kind == "control" and not wanted.solvers:
                    row["psnr_on_seen"] = statistics.fmean(seen.figures(painted(recipe, seen).images)["psnr_each"])
                add_row(title, told, row, ("name", "full"))
                print(f"{count:3d} {name:60s} {statistics.fmean(row['psnr_each']):6.2f} dB", flush=True)


def _there(case: str) -> set[tuple[str, int]]:
    file = place_of(case)
    return {(row["name"], row["full"]) for row in json.loads(file.read_text())["rows"]} if file.is_file() else set()


def cases(base: dict[str, Any], count: int) -> Iterator[Case]:
    """Every row at one number of full steps."""
    steps = base["sampler"]["steps"]
    on_even = {"schedule": list(even(steps, count))}
    on_graded = {"schedule": list(graded(steps, count))}
    yield "graded: order 1 in steps (default)", "ours", stacked(base, on_graded)
    for control in controls(Recipe.parse(base, "control"), count, flow=True):
        yield f"control: {control.title}", "control", control.recipe
    on_paper = {"schedule": list(papers(steps, count))}
    for schedule, label in ((on_paper, "paper's schedule"), (on_even, "even")):
        yield f"{label}: reuse", "ours", stacked(base, {**schedule, "predictor": "reuse"})
        yield f"{label}: ema, energy 0.85", "ours", stacked(base, {**schedule, "predictor": "ema", "energy": 0.85})
        yield f"{label}: holt", "ours", stacked(base, {**schedule, "predictor": "holt"})
        yield f"{label}: order 1 in steps", "ours", stacked(base, schedule)
        yield f"{label}: order 2 in steps", "ours", stacked(base, {**schedule, "order": 2})
    for schedule, label in ((on_even, "even"), (on_graded, "graded")):
        in_sigma = {**schedule, "coordinate": "sigma"}
        yield f"{label}: order 1 in sigma", "ours", stacked(base, in_sigma)
        yield f"{label}: order 2 in sigma", "ours", stacked(base, {**in_sigma, "order": 2})
    yield "graded: reuse", "ours", stacked(base, {**on_graded, "predictor": "reuse"})
    for rank in (16, 64):
        yield f"graded: order 1 in steps, rank {rank}", "ours", stacked(base, {**on_graded, "rank": rank})
    by_block = {**on_graded, "granularity": "block"}
    yield "graded: order 1 in steps, every branch of every block", "ours", stacked(base, by_block)
    yield "graded: fitted gains", "ours", stacked(base, {**on_graded, "predictor": "fitted"})
    yield "graded: fitted gains, rank 16", "ours", stacked(base, {**on_graded, "predictor": "fitted", "rank": 16})


def readings(base: dict[str, Any], count: int) -> Iterator[Case]:
    """What equation 11 may mean, on the paper's schedule and its energy."""
    steps = base["sampler"]["steps"]
    on_paper = {"schedule": list(papers(steps, count))}
    subspace = {**on_paper, "energy": 0.85}
    sites = {"one site for the trunk": "trunk", "every branch of every block": "block"}
    averages = {"old": {"predictor": "ema", "beta": 0.9}, "new": {"predictor": "ema", "beta": 0.1}, "line": {}}
    titles = {"old": "average, .9 on the old value", "new": "average, .1 on the old value", "line": "first order"}
    bases = {"basis of each picture's first step": {}, "basis from calibration": {"calibrate": "auto"}}
    for site, granularity in sites.items():
        yield f"reuse; {site}", "paper", stacked(base, {**on_paper, "predictor": "reuse", "granularity": granularity})
        for reading, fields in averages.items():
            for where, more in bases.items():
                recipe = stacked(base, {**subspace, **fields, **more, "granularity": granularity})
                yield f"{titles[reading]}; {where}; {site}", "paper", recipe


def over_solvers(base: dict[str, Any], count: int) -> Iterator[Case]:
    """The default cache over other solvers; at a count that no cache takes, the solvers alone with so many steps."""
    for word in UNDER:
        title = next(one.title for one in samplers.SOLVERS if one.word == word)
        if count in UNDER_STEPS:
            sampler = samplers.named(base["sampler"], f"{word}-{count}")
            yield title, "control", Recipe.parse({**base, "sampler": sampler}, "control")
        for steps in UNDER_STEPS if count < min(UNDER_STEPS) else ():
            under = {**base, "sampler": samplers.named(base["sampler"], f"{word}-{steps}")}
            cache = {"schedule": list(graded(steps, count))}
            yield f"svdcache over {title}, {steps} steps", "ours", stacked(under, cache)


def papers(steps: int, count: int) -> tuple[int, ...]:
    """The paper's schedule with the shortest interval that takes at most `count` full steps."""
    return next(full for n in range(2, steps) if len(full := paper(steps, n, 3)) <= count)


def measure(recipe: Recipe, references: References) -> dict[str, Any]:
    """One row: fidelity to both references, and what ran."""
    made = painted(recipe, references)
    return {"steps": made.kinds, "macs_ratio": made.macs_ratio, **references.figures(made.images)}


def stacked(base: dict[str, Any], cache: dict[str, Any]) -> Recipe:
    """The embedded model with SVD-Cache; what is fitted is fitted to other prompts, at once."""
    data = {**base, "cache": {"method": "svdcache", "coordinate": "step", **cache}}
    if cache.get("predictor") == "fitted" or "calibrate" in cache:
        file = Path(tempfile.mkdtemp()) / "factors.safetensors"
        data["cache"] |= {"calibrate": "auto", "factors": str(file)}
        data["calibration"] = shapes.seen_prompts(16, 3)
    return Recipe.parse(data, "benchmark")


if __name__ == "__main__":
    main()
