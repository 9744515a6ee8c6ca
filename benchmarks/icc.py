"""ICC on the embedded model: every way of fitting, beside "the same MACs in fewer full steps"; and on rounded weights.

    python benchmarks/icc.py [--prompts 64] [--steps 28] [--interval 2 4] [--only factors | quantized]

Pictures are compared with those of the unquantized, uncached run of the same prompts and seeds. Factors are fitted on
other prompts. Writes benchmarks/results/<machine>_<date>/icc.json; rows have paired 95 % intervals.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ditstack import quality
from ditstack.build import build
from ditstack.calibrate import conditions, provide_factors
from ditstack.factors import Factors
from ditstack.quiet import hush, hush_loading
from ditstack.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.model.embedded import shapes
from results import write

BATCH = 16
RANKS = (0.125, 0.25)
Row = dict[str, Any]


class Bench:
    """One reference, and rows measured against it."""

    def __init__(self, prompts: int, calibration: int, steps: int, changes: list[str]) -> None:
        self.prompts = shapes.unseen_prompts(prompts, 7)
        self.base = Recipe.read("tiny", [f"sampler.steps={steps}", *changes]).resolved()
        self.base["calibration"] = shapes.seen_prompts(calibration, 3)
        self.reference = self.pictures(load(self.recipe("reference")))
        self.rows: list[Row] = []

    def recipe(self, name: str, cache: Row | None = None, quantize: Row | None = None, steps: int = 0) -> Recipe:
        data = dict(self.base)
        if steps:
            data["sampler"] = {**data["sampler"], "steps": steps}
        if quantize:
            data["quantize"] = {"method": "torchao", **quantize}
        if cache:
            file = Path(tempfile.mkdtemp()) / "factors.safetensors"
            data["cache"] = {"method": "icc", "calibrate": "auto", "factors": str(file), **cache}
        return Recipe.parse(data, name)

    def pictures(self, stack: Stack) -> torch.Tensor:
        made = [
            stack.sample(
                self.prompts[at : at + BATCH], [1000 + at + i for i in range(len(self.prompts[at : at + BATCH]))]
            )
            for at in range(0, len(self.prompts), BATCH)
        ]
        return torch.cat([one.images for one in made])

    def measure(self, group: str, name: str, stack: Stack, against: Row | None = None) -> Row:
        """One row: fidelity to the reference, MACs, and the paired gain over another row."""
        psnr = quality.psnr(self.pictures(stack), self.reference)
        row: Row = {
            "group": group,
            "name": name,
            "psnr": quality.bootstrap(psnr),
            "steps": stack.pipe.steps_by_kind(),
            "macs": stack.pipe.spent,
            "psnr_each": psnr,
        }
        if against is not None:
            pairs = zip(psnr, against["psnr_each"], strict=True)
            row |= {"against": against["name"], "gain": quality.bootstrap([a - b for a, b in pairs])}
        self.rows.append(row)
        gain = (
            f"{row['gain'][0]:+.2f} [{row['gain'][1]:+.2f}, {row['gain'][2]:+.2f}] {row['against']}" if against else ""
        )
        print(
            f"{group:10s} {name:44s} {row['psnr'][0]:6.2f} dB  {stack.pipe.spent / 1e9:7.1f} GMAC  {gain}", flush=True
        )
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--interval", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--only", choices=["factors", "quantized"])
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    wanted = parser.parse_args()
    hush()
    hush_loading()
    bench = Bench(wanted.prompts, wanted.calibration, wanted.steps, wanted.changes)
    if wanted.only != "quantized":
        for interval in wanted.interval:
            factors(bench, interval, wanted.steps)
    if wanted.only != "factors":
        for scheme in ("int4", "int3"):
            for interval in wanted.interval:
                quantized(bench, scheme, interval)
    write("icc", {"prompts": wanted.prompts, "steps": wanted.steps, "resolved": bench.base, "rows": bench.rows})


def factors(bench: Bench, interval: int, steps: int) -> None:
    """Every kind of factors at one interval, each rank beside the control of its own MACs."""
    group = f"N={interval}"
    bench.measure(group, "reuse of every linear", load(bench.recipe("reuse", {"interval": interval, "rank": 0})))
    for rank in RANKS:
        rows: dict[str, Row] = {}
        ratio = share = 1.0
        for name, fields in kinds():
            stack = load(bench.recipe(name, {"interval": interval, "rank": rank, **fields}))
            rows[name] = bench.measure(group, f"rank D/{round(1 / rank)}: {name}", stack, rows.get("cd"))
            ratio, share = stack.report().macs_ratio, calibrated_share(stack)
        same = max(1, round(steps * ratio))
        name = f"control: {same} full steps for {steps * ratio:.1f}"
        bench.measure(group, name, load(bench.recipe("control", steps=same)), rows["rrr"])
        fields = {"interval": interval, "macs": round(share, 4)}
        bench.measure(
            group, f"D/{round(1 / rank)}'s MACs: rrr, allocated", load(bench.recipe("a", fields)), rows["rrr"]
        )


def calibrated_share(stack: Stack) -> float:
    """What a calibrated pass costs of an uncached one."""
    macs = stack.pipe.macs
    return next(cost / macs[one, "off", rows] for (one, kind, rows), cost in macs.items() if kind == "calibrated")


def kinds() -> Iterator[tuple[str, Row]]:
    """The ways of fitting, by name."""
    for name in ("svd", "ca", "cd"):
        yield name, {"factors_by": name}
    yield "rrr, unweighted", {"weighting": "none"}
    yield "rrr", {}


def quantized(bench: Bench, scheme: str, interval: int) -> None:
    """What each part of recalibration contributes on rounded weights."""
    group, cache = f"{scheme} N={interval}", {"interval": interval, "rank": 0.125}
    rounded, compensated = {"scheme": scheme}, {"scheme": scheme, "compensate": 0.125}
    bench.measure(group, "rounded, no cache", load(bench.recipe("q", quantize=rounded)))
    bench.measure(group, "compensated, no cache", load(bench.recipe("c", quantize=compensated)), bench.rows[-1])
    cd = transplanted(bench, {**cache, "factors_by": "cd"}, rounded)
    bench.measure(group, "cd of the unquantized weights", cd)
    naive = bench.measure(group, "naive: rrr of the unquantized model", transplanted(bench, cache, rounded))
    bench.measure(group, "refit only", load(bench.recipe("r", cache, rounded)), naive)
    bench.measure(group, "compensation only", transplanted(bench, cache, compensated), naive)
    bench.measure(group, "both", load(bench.recipe("b", cache, compensated)), naive)


def transplanted(bench: Bench, cache: Row, quantize: Row) -> Stack:
    """A stack on rounded weights whose cache has the factors of the unquantized model."""
    alien = load(bench.recipe("plain weights", cache)).pipe.factors
    recipe = bench.recipe("transplanted", cache, quantize)
    assert alien is not None
    pipe = build(recipe)
    if "compensate" in quantize:
        current = conditions(recipe, pipe)
        provide_factors(recipe, pipe)
        assert pipe.factors is not None
        kept = {name: one for name, one in pipe.factors.tensors.items() if "/" in name}
        pipe.factors = Factors({**kept, **alien.of("cache")}, current)
    else:
        pipe.factors = alien
    return Stack(recipe, pipe, {})


if __name__ == "__main__":
    main()
