"""Mixed schedules on the embedded model at a quarter of the MACs, beside pure ICC, pure SVD-Cache and the controls.

    python benchmarks/mixed.py [--prompts 64] [--resume benchmarks/results/.../mixed.json]

28 steps; the budget is what SVD-Cache takes with 7 full ones. Pictures are compared with those of the uncached run of
the same prompts and seeds; factors, gains and schedules were found on other prompts. Writes
benchmarks/results/<machine>_<date>/mixed.json after every row; gains are paired over prompts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ditstack.compat import hush, hush_loading
from ditstack.maths import fidelity
from ditstack.maths.schedule import even, graded
from ditstack.measure.controls import Controls, controls
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from results import kept_rows, write
from sampled import sampled
from testbed import shapes

STEPS, FULL = 28, 7
TRIALS = 16
"""Prompts of training on which the best control is chosen."""
BEST = "tiny-none-native-mixed"
CALIBRATED = "FSCFSCSFSSCSFSSCSSSFSSSSSFSS"
"""The best that a search met with calibrated steps in it: one full step fewer pays for them."""
Row = dict[str, Any]


class Bench:
    """One reference, and rows measured against it."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.prompts = shapes.unseen_prompts(wanted.prompts, 7)
        base = Recipe.read("tiny", [f"sampler.steps={STEPS}"])
        self.base = base.with_("benchmark", calibration=shapes.seen_prompts(wanted.calibration, 3))
        self.rows: list[Row] = kept_rows(wanted.resume)
        self.reference = self.pictures(self.stack({}))
        self.controls = Controls(base, shapes.seen_prompts(TRIALS, 5))

    def stack(self, changes: Row) -> Stack:
        sampler = changes.get("sampler", {"steps": changes.get("steps", STEPS)})
        recipe = self.base.with_(sampler=sampler)
        if "cache" in changes:
            file = Path(tempfile.mkdtemp()) / "factors.safetensors"
            recipe = recipe.with_(cache={"calibrate": "auto", "factors": str(file), **changes["cache"]})
        return load(recipe)

    def pictures(self, stack: Stack) -> torch.Tensor:
        return sampled(stack, self.prompts)[0]

    def measure(self, group: str, name: str, changes: Row) -> None:
        """One row: fidelity to the reference and MACs."""
        stack = self.stack(changes)
        psnr = fidelity.psnr(self.pictures(stack), self.reference)
        ratio = stack.report().macs_ratio * changes.get("steps", STEPS) / STEPS
        if "sampler" in changes:  # a control
            changes = {"steps": FULL, "chosen": name == self.controls.best(FULL).title}
            ratio = FULL / STEPS
        row = {"group": group, "name": name, "macs_ratio": ratio, "steps": stack.pipe.passes.steps, **changes}
        self.rows.append({**row, "psnr": fidelity.bootstrap(psnr), "psnr_each": psnr})
        print(f"{group:12s} {name:48s} {self.rows[-1]['psnr'][0]:6.2f} dB  {100 * ratio:.1f} % of the MACs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--resume", type=Path, help="a results file whose rows are kept")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    bench = Bench(wanted)
    asked = {(group, name) for group, name, _ in rows()}
    bench.rows = [row for row in bench.rows if (row["group"], row["name"]) in asked]
    for group, name, changes in rows():
        known = next((row for row in bench.rows if (row["group"], row["name"]) == (group, name)), None)
        if known is None or known.get("cache") != changes.get("cache"):
            bench.rows = [row for row in bench.rows if row is not known]
            bench.measure(group, name, changes)
            write(
                "mixed",
                {"prompts": len(bench.prompts), "steps": STEPS, "resolved": bench.base.resolved(), "rows": bench.rows},
            )


def rows() -> Iterator[tuple[str, str, Row]]:
    """Every row: its group, its name, and what it changes of the embedded model's recipe."""
    for control in controls(Recipe.read("tiny", [f"sampler.steps={STEPS}"]), FULL, flow=True):
        yield "control", control.title, {"sampler": control.recipe.resolved()["sampler"]}
    svd: Row = {"method": "svdcache"}
    spread = {"even": list(even(STEPS, FULL)), "graded": list(graded(STEPS, FULL))}
    for name, full in spread.items():
        yield "svdcache", f"{name}, order 1", {"cache": {**svd, "schedule": full}}
    best = Recipe.read(BEST).resolved()["cache"]
    yield "mixed", "searched", {"cache": {"method": "mixed", "schedule": best["schedule"]}}
    # with full steps as far apart as here, increments from the last one won on prompts of training
    mixture = {"method": "mixed", "schedule": CALIBRATED, "macs": 0.16, "anchor": "last"}
    yield "mixed", "searched, with calibrated steps", {"cache": mixture}
    # as many calibrated steps as fit, at the rank that the budget leaves them
    for interval, macs in ((7, 0.127), (10, 0.16), (14, 0.194)):
        yield "icc", f"interval {interval}", {"cache": {"method": "icc", "interval": interval, "macs": macs}}
    for name, full in spread.items():
        yield "svdcache", f"{name}, fitted gains", {"cache": {**svd, "schedule": full, "predictor": "fitted"}}
    yield "parts", "its C turned into S", {"cache": {**mixture, "schedule": CALIBRATED.replace("C", "S")}}
    yield "parts", "everything that C finds believed (trust 1)", {"cache": {**mixture, "trust": 1.0}}
    yield "parts", "increments from a line (anchor line)", {"cache": {**mixture, "anchor": "line"}}
    wave = {"method": "icc", "interval": 4, "rank": 0.125}
    for anchor in ("last", "line"):
        for attention in ("recompute", "reuse", "forecast"):
            cache = {**wave, "anchor": anchor, "attention": attention}
            yield "attention", f"icc, anchor {anchor}, attention {attention}", {"cache": cache}
    for attention in ("recompute", "reuse", "forecast"):
        yield "attention", f"mixed, attention {attention}", {"cache": {**mixture, "attention": attention}}


if __name__ == "__main__":
    main()
