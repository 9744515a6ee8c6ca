"""What each kind of step costs beside a full one: a 12-block FLUX of width 768 with 1,100 tokens, random weights.

    python benchmarks/step_cost.py [--steps 20] [--repeats 5] [--width 768]

Stacks and the plain pipeline take turns, so that ratios are within one run; times are medians. Factors are noise of
the sizes that calibration finds. Writes benchmarks/results/<machine>_<date>/step_costs.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from typing import Any

import torch

from ditstack import Recipe, load
from ditstack.assembly.build import build
from ditstack.caching.linears import LowRankLinears
from ditstack.compat import hush_loading
from ditstack.pipeline.clock import now
from ditstack.pipeline.pipe import FULL, OFF, Pipe
from ditstack.report import peak_memory, reset_peak_memory
from gpu_timing import generate, random_factors
from limits import Ceilings, ceilings, floors, kept_bytes
from models import embeddings, flux
from results import write

TEXT_TOKENS, PIXELS = 76, 512
DOUBLE, SINGLE = 4, 8
STACKS: dict[str, dict[str, Any]] = {
    "svdcache N=5": {"method": "svdcache", "interval": 5},
    "svdcache N=7": {"method": "svdcache", "interval": 7},
    "icc N=2, rank D/8": {"method": "icc", "interval": 2, "rank": 0.125},
    "icc N=2, rank D/4": {"method": "icc", "interval": 2, "rank": 0.25},
}
FITTED = ("tiny-none-native-svdcache-fitted", "tiny-none-native-icc", "tiny-int4-native-icc")
"""Recipes whose calibration is timed, on the embedded model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=768)
    wanted = parser.parse_args()
    hush_loading()
    top = ceilings(torch.device("cpu"))
    cases = [Case(name, fields, wanted.width, wanted.steps, top) for name, fields in STACKS.items()]
    plain = Case("plain", None, wanted.width, wanted.steps, top)
    for _ in range(wanted.repeats):
        for case in (plain, *cases):
            case.run()
    write(
        "step_costs",
        {
            "width": wanted.width,
            "tokens": (PIXELS // 16) ** 2 + TEXT_TOKENS,
            "steps": wanted.steps,
            "ceilings": asdict(top),
            "plain": plain.figures(plain),
            "rows": [case.figures(plain) for case in cases],
            "calibration": {name: calibration(name) for name in FITTED},
        },
    )


class Case:
    """One stack, and what its generations took."""

    def __init__(self, name: str, cache: dict[str, Any] | None, width: int, steps: int, top: Ceilings) -> None:
        self.name, self.steps, self.width = name, steps, width
        pipeline = flux(width, DOUBLE, SINGLE)
        stages = {} if cache is None else {"cache": cache}
        recipe = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, **stages}, name)
        started = time.perf_counter()
        self.pipe: Pipe = build(recipe, pipeline)
        self.build = time.perf_counter() - started
        self.call = {**embeddings(pipeline, TEXT_TOKENS), "height": PIXELS, "width": PIXELS}
        if cache is not None and "rank" in cache:
            LowRankLinears.on(self.pipe).take(random_factors(self.pipe, self.call, cache["rank"]))
        self.floor = floors(self.pipe, lambda: generate(self.pipe, self.call, 8 if cache else 2), top)
        self.totals: list[float] = []
        self.each: dict[str, list[float]] = {}
        self.kept = self.rise = 0

    def run(self) -> None:
        """One generation: the seconds of every step, and of all."""
        marks: list[float] = []

        def tick(_done: int, _steps: int) -> None:
            marks.append(now())
            self.kept = max(self.kept, kept_bytes(self.pipe))

        reset_peak_memory()
        before = peak_memory()
        self.pipe.clock.on_tick.append(tick)
        generate(self.pipe, self.call, self.steps)
        self.pipe.clock.on_tick.remove(tick)
        self.rise = max(self.rise, peak_memory() - before)
        begun = [self.pipe.clock.first_pass, *marks]
        for kind, start, end in zip(self.pipe.passes.by_step.values(), begun, marks, strict=False):
            self.each.setdefault(kind, []).append(end - start)
        self.totals.append(marks[-1] - begun[0])

    def figures(self, plain: Case) -> dict[str, Any]:
        """Medians, shares of a plain full step, and what the steps should take by their number and their products."""
        seconds = {kind: statistics.median(each) for kind, each in self.each.items()}
        full = statistics.median(plain.each[FULL])
        macs = {record.ran: record.cost.macs for record in self.pipe.passes.records}
        macs[OFF] = self.pipe.passes.records[-1].full_cost.macs
        ratios = [mine / theirs for mine, theirs in zip(self.totals, plain.totals, strict=True)]
        share = {kind: one / full for kind, one in seconds.items()}
        kinds = self.pipe.passes.steps
        return {
            "name": self.name,
            "kinds": kinds,
            "seconds_per_step": seconds,
            "share_of_full": share,
            "macs_share": {kind: spent / macs[OFF] for kind, spent in macs.items() if OFF in macs},
            "over_macs": {kind: share[kind] * macs[OFF] / macs[kind] for kind in share if OFF in macs and kind in macs},
            "of_plain": statistics.median(ratios),
            "of_plain_each": ratios,
            "over_full_share": statistics.median(ratios) * self.steps / kinds[FULL],
            "times_floor": {kind: one / self.floor[kind].floor for kind, one in seconds.items() if kind in self.floor},
            "kept_bytes": self.kept,
            "kept_per_token_and_block": self.kept / 4 / ((PIXELS // 16) ** 2 + TEXT_TOKENS) / (DOUBLE + SINGLE),
            "peak_rise": self.rise,
            "build_seconds": self.build,
        }


def calibration(name: str) -> dict[str, float]:
    """Seconds of building and calibrating a recipe, with the prompts that it names."""
    with tempfile.TemporaryDirectory() as folder:
        stack = load(Recipe.read(name, ["cache.calibrate=auto", f"cache.factors={folder}/factors.safetensors"]))
    return {"prompts": len(stack.recipe.calibration), **stack.seconds}


if __name__ == "__main__":
    main()
