"""ICC on the embedded model: every way of fitting, beside "the same MACs in fewer full steps"; and on rounded weights.

    python benchmarks/icc.py [--prompts 64] [--steps 28] [--resume benchmarks/results/.../icc.json]

Pictures are compared with those of the unquantized, uncached run of the same prompts and seeds. Factors are fitted on
other prompts. Writes benchmarks/results/<machine>_<date>/icc.json after every row; gains are paired over prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.build import build
from ditstack.calibration.calibrate import provide_factors
from ditstack.compat import hush, hush_loading
from ditstack.factors import Factors
from ditstack.maths import fidelity
from ditstack.measure.controls import Controls
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from results import kept_rows, write
from sampled import sampled
from testbed import shapes

TRIALS = 16
"""Prompts of training on which the best control is chosen."""
INTERVALS, RANKS = (2, 4), (0.125, 0.25)
ROUNDED = {
    "int4": {"method": "torchao", "scheme": "int4"},
    "nf4": {"method": "bitsandbytes", "scheme": "nf4"},
}
FITS = {
    "svd": {"factors_by": "svd"},
    "ca": {"factors_by": "ca"},
    "cd": {"factors_by": "cd"},
    "rrr, unweighted": {"weighting": "none"},
    "rrr": {},
    "rrr, increments from a line": {"anchor": "line"},
}
Row = dict[str, Any]


@dataclass
class Case:
    """A row to be measured: what makes its stack, and the row of its group that it is compared with."""

    group: str
    name: str
    make: Callable[[], Stack]
    against: str | None = None


class Bench:
    """One reference, and rows measured against it."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.prompts = shapes.unseen_prompts(wanted.prompts, 7)
        self.steps = wanted.steps
        self.base = Recipe.read("tiny", [f"sampler.steps={wanted.steps}", *wanted.changes]).resolved()
        self.base["calibration"] = shapes.seen_prompts(wanted.calibration, 3)
        self.rows: list[Row] = kept_rows(wanted.resume)
        plain = load(self.recipe({}))
        self.reference = self.pictures(plain)
        self.uncached = plain.pipe.passes.macs
        self._plain: dict[str, Factors] = {}
        self.controls = Controls(self.recipe({}), shapes.seen_prompts(TRIALS, 5))

    def recipe(self, cache: Row, quantize: Row | None = None, steps: int = 0) -> Recipe:
        data = dict(self.base)
        if steps:
            data["sampler"] = {**data["sampler"], "steps": steps}
        if quantize:
            data["quantize"] = quantize
        if cache:
            data["cache"] = {"method": "icc", "calibrate": "auto", **cache}
        return Recipe.parse(data, "benchmark")

    def stack(self, cache: Row, quantize: Row | None = None, steps: int = 0) -> Stack:
        return load(self.recipe(cache, quantize, steps))

    def naive(self, cache: Row, quantize: Row) -> Stack:
        """A stack on rounded weights whose cache has the factors of the unquantized model."""
        key = json.dumps(cache)
        if key not in self._plain:
            fitted = self.stack(cache).factors
            assert fitted is not None
            self._plain[key] = fitted
        recipe = self.recipe(cache, quantize)
        # what compensates is fitted; the cache's own fit would be thrown away
        uncached = self.recipe({}, quantize)
        pipe = build(recipe)
        provide_factors(uncached, pipe)
        recipe.adapters["cache"].take(pipe, self._plain[key].of("cache"))
        return Stack(recipe, pipe, {})

    def pictures(self, stack: Stack) -> torch.Tensor:
        return sampled(stack, self.prompts)[0]

    def row(self, group: str, name: str) -> Row | None:
        return next((row for row in self.rows if (row["group"], row["name"]) == (group, name)), None)

    def best_control(self, group: str, label: str, evaluations: int) -> str:
        """The name of the row of the best control, which is chosen on other prompts where it is not there yet."""
        start = f"{label}: best control, {evaluations} evaluations, "
        names = (row["name"] for row in self.rows if row["group"] == group)
        known = next((name for name in names if name.startswith(start)), None)
        return known or start + self.controls.best(evaluations).title

    def measure(self, case: Case) -> None:
        """One row: fidelity to the reference, MACs, and the paired gain over another row."""
        stack = case.make()
        psnr = fidelity.psnr(self.pictures(stack), self.reference)
        pipe = stack.pipe
        row: Row = {
            "group": case.group,
            "name": case.name,
            "psnr": fidelity.bootstrap(psnr),
            "steps": pipe.passes.steps,
            "macs": pipe.passes.macs,
            "macs_of_uncached": pipe.passes.macs / self.uncached,
            "calibrated_share": calibrated_share(stack),
            "psnr_each": psnr,
        }
        against = self.row(case.group, case.against) if case.against else None
        if against is not None:
            row |= {"against": case.against, "gain": fidelity.paired(psnr, against["psnr_each"])}
        self.rows.append(row)
        gain = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*row["gain"]) + f" {case.against}" if "gain" in row else ""
        print(f"{case.group:10s} {case.name:44s} {row['psnr'][0]:6.2f} dB {row['macs'] / 1e9:6.1f} GMAC {gain}")


def calibrated_share(stack: Stack) -> float | None:
    """What a calibrated pass costs of an uncached one."""
    return stack.pipe.passes.shares.get("calibrated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--resume", type=Path, help="a results file whose rows are kept")
    parser.add_argument("--only", nargs="*", default=[], help="groups, such as 'N=4' or 'int4 N=2'")
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    wanted = parser.parse_args()
    os.environ["DITSTACK_HOME"] = tempfile.mkdtemp()
    hush()
    hush_loading()
    bench = Bench(wanted)
    for group, rows in groups(bench).items():
        for case in rows(group) if not wanted.only or group in wanted.only else ():
            if bench.row(group, case.name) is None:
                bench.measure(case)
                kept = {"prompts": wanted.prompts, "steps": wanted.steps, "calibration": wanted.calibration}
                write("icc", {**kept, "resolved": bench.base, "rows": bench.rows})


def groups(bench: Bench) -> dict[str, Callable[[str], Iterator[Case]]]:
    """The rows of every group, by its name; a row stands after the one that it is compared with."""
    out = {}
    for interval in INTERVALS:
        out[f"N={interval}"] = partial(factors, bench, interval)
        for scheme in ROUNDED:
            out[f"{scheme} N={interval}"] = partial(rounded, bench, scheme, interval)
    return out | {f"{scheme} SVD-Cache": partial(predictors, bench, scheme) for scheme in ROUNDED}


def factors(bench: Bench, interval: int, group: str) -> Iterator[Case]:
    """Every kind of factors at one interval, each rank beside the control of its own MACs."""
    cache = {"interval": interval}
    yield Case(group, "reuse of every linear", lambda: bench.stack({**cache, "rank": 0}))
    for rank in RANKS:
        label = f"D/{round(1 / rank)}"
        for name, fields in FITS.items():
            fields = {**cache, "rank": rank, **fields}
            yield Case(group, f"{label}: {name}", lambda fields=fields: bench.stack(fields), f"{label}: cd")
        ours = bench.row(group, f"{label}: rrr")
        assert ours is not None
        fields = {**cache, "macs": round(ours["calibrated_share"], 4)}
        yield Case(group, f"{label}: rrr, allocated", lambda fields=fields: bench.stack(fields), f"{label}: rrr")
        # a whole number of steps, with at least the MACs
        same = math.ceil(bench.steps * ours["macs_of_uncached"])
        steps = f"{label}: control, {same} full steps"
        yield Case(group, steps, lambda same=same: bench.stack({}, steps=same), f"{label}: rrr")
        best = bench.best_control(group, label, same)
        yield Case(group, best, lambda same=same: load(bench.controls.best(same).recipe), f"{label}: rrr")


def rounded(bench: Bench, scheme: str, interval: int, group: str) -> Iterator[Case]:
    """What each part of recalibration contributes on rounded weights."""
    plain, better = ROUNDED[scheme], {**ROUNDED[scheme], "compensate": 0.125}
    cache, wide = {"interval": interval, "rank": 0.125}, {"interval": interval, "rank": 0.25}
    naive = "naive: ICC of the unquantized weights, D/8"
    yield Case(group, "rounded, no cache", lambda: bench.stack({}, plain))
    yield Case(group, "compensated D/8, no cache", lambda: bench.stack({}, better), "rounded, no cache")
    yield Case(group, "naive, cd", lambda: bench.naive({**cache, "factors_by": "cd"}, plain))
    yield Case(group, naive, lambda: bench.naive(cache, plain))
    yield Case(group, "naive, D/4", lambda: bench.naive(wide, plain), naive)
    yield Case(group, "ICC refitted", lambda: bench.stack(cache, plain), naive)
    yield Case(group, "compensated", lambda: bench.naive(cache, better), naive)
    yield Case(group, "compensated, ICC refitted", lambda: bench.stack(cache, better), naive)
    line = {**cache, "anchor": "line"}
    on_line = "naive, increments from a line"
    yield Case(group, on_line, lambda: bench.naive(line, plain), naive)
    name = "compensated, ICC refitted, increments from a line"
    yield Case(group, name, lambda: bench.stack(line, better), on_line)


def predictors(bench: Bench, scheme: str, group: str) -> Iterator[Case]:
    """What refitting SVD-Cache's basis and gains to rounded weights brings."""
    plain = ROUNDED[scheme]
    cache = {"method": "svdcache", "interval": 4, "predictor": "fitted", "rank": 16}
    for quantize, label in ((plain, "rounded"), ({**plain, "compensate": 0.125}, "compensated")):
        naive = f"{label}: basis and gains of the unquantized weights"
        yield Case(group, naive, lambda quantize=quantize: bench.naive(cache, quantize))
        yield Case(group, f"{label}: refitted", lambda quantize=quantize: bench.stack(cache, quantize), naive)


if __name__ == "__main__":
    main()
