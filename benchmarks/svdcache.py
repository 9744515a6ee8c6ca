"""SVD-Cache on the embedded model: every predictor and schedule beside "the same number of full steps, no cache".

    python benchmarks/svdcache.py [--prompts 64] [--steps 50] [--full 12 9 7]

Pictures are compared with the uncached run of the same prompts and seeds. Calibration uses other prompts. Writes
benchmarks/results/<machine>_<date>/svdcache.json; every row has a paired 95 % interval against the control.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ditstack.compat import hush_loading
from ditstack.maths import fidelity
from ditstack.maths.schedule import even, graded, paper
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack_adapters.model.embedded import shapes
from results import AGAIN, kept_rows, write
from sampled import sampled

SOLVER = {
    "scheduler": "DPMSolverMultistepScheduler",
    "settings": {
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "use_dynamic_shifting": True,
        "time_shift_type": "exponential",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--full", type=int, nargs="+", default=[12, 9, 7])
    parser.add_argument("--resume", type=Path, help="a results file whose rows are kept")
    parser.add_argument("--again", nargs="+", default=[], help=AGAIN)
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    wanted = parser.parse_args()
    hush_loading()
    prompts = shapes.unseen_prompts(wanted.prompts, 7)
    base = Recipe.read("tiny", [f"sampler.steps={wanted.steps}", *wanted.changes]).resolved()
    reference = sampled(load(Recipe.parse(base, "reference")), prompts)
    rows = kept_rows(wanted.resume, wanted.again)
    for count in wanted.full:
        for name, changes in cases(wanted.steps, count):
            known = {row["name"]: row for row in rows if row["full"] == count}
            if name not in known:
                control = next(iter(known.values()))["psnr_each"] if known else []
                rows.append(measure(name, count, {**base, **changes}, prompts, reference, control))
                print(f"{count:3d} {name:52s} {rows[-1]['psnr'][0]:6.2f} dB  {rows[-1]['gain'][0]:+.2f}", flush=True)
        write("svdcache", {"prompts": len(prompts), "steps": wanted.steps, "resolved": base, "rows": rows})


def cases(steps: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row at one number of full steps; the first is the control."""
    yield "control: fewer Euler steps", {"sampler.steps": count}
    yield "control: fewer DPM-Solver++ 2M steps", {"sampler.steps": count, "sampler.solver": True}
    interval = next(n for n in range(2, steps) if len(paper(steps, n, 3)) <= count)
    on_paper = {"schedule": list(paper(steps, interval, 3)), "coordinate": "step"}
    on_even = {"schedule": list(even(steps, count)), "coordinate": "step"}
    on_graded = {"schedule": list(graded(steps, count)), "coordinate": "step"}
    yield "graded: order 1 in steps (default)", on_graded
    for schedule, label in ((on_paper, "paper's schedule"), (on_even, "even")):
        yield f"{label}: reuse", {**schedule, "predictor": "reuse"}
        yield f"{label}: ema, energy 0.85 (eq. 11)", {**schedule, "predictor": "ema", "energy": 0.85}
        yield f"{label}: holt", {**schedule, "predictor": "holt"}
        yield f"{label}: order 1 in steps", schedule
        yield f"{label}: order 2 in steps", {**schedule, "order": 2}
    for schedule, label in ((on_even, "even"), (on_graded, "graded")):
        in_sigma = {**schedule, "coordinate": "sigma"}
        yield f"{label}: order 1 in sigma", in_sigma
        yield f"{label}: order 2 in sigma", {**in_sigma, "order": 2}
    yield "graded: reuse", {**on_graded, "predictor": "reuse"}
    for rank in (16, 64):
        yield f"graded: order 1 in steps, rank {rank}", {**on_graded, "rank": rank}
    yield "graded: order 1 in steps, every branch of every block", {**on_graded, "granularity": "block"}
    yield "graded: fitted gains", {**on_graded, "predictor": "fitted"}
    yield "graded: fitted gains, rank 16", {**on_graded, "predictor": "fitted", "rank": 16}


def measure(
    name: str, count: int, base: dict[str, Any], prompts: list[str], reference: list[Any], control: list[float]
) -> dict[str, Any]:
    """One row: fidelity to the uncached run, and the paired gain over the control."""
    told: list[str] = []
    stack = load(stacked(name, base), told.append)
    made = sampled(stack, prompts)
    psnr, ssim = fidelity.psnr(made[0], reference[0]), fidelity.ssim(made[0], reference[0])
    steps = stack.pipe.passes.steps
    gain = fidelity.paired(psnr, control) if control else (0.0, 0.0, 0.0)
    row = {
        "name": name,
        "full": count,
        "steps": steps,
        "psnr": fidelity.bootstrap(psnr),
        "gain": gain,
        "ssim": fidelity.bootstrap(ssim),
        "relative_l2": fidelity.bootstrap(fidelity.relative_l2(made[1], reference[1])),
        "psnr_each": psnr,
        "told": told,
    }
    assert steps["full"] == count or name.startswith("paper"), (name, steps)
    return row


def stacked(name: str, base: dict[str, Any]) -> Recipe:
    """The recipe of a case."""
    data = {key: value for key, value in base.items() if key in Recipe.read("tiny").resolved()}
    changes = {key: value for key, value in base.items() if key not in data}
    sampler = dict(data["sampler"])
    if "sampler.steps" in changes:
        sampler["steps"] = changes.pop("sampler.steps")
        if changes.pop("sampler.solver", False):
            shift = math.log(sampler.get("settings", {}).get("shift", 3.0))
            sampler |= {**SOLVER, "settings": {**SOLVER["settings"], "base_shift": shift, "max_shift": shift}}
        return Recipe.parse({**data, "sampler": sampler}, name)
    if changes.get("predictor") == "fitted":
        file = Path(tempfile.mkdtemp()) / "factors.safetensors"
        changes |= {"calibrate": "auto", "factors": str(file)}
        data["calibration"] = shapes.seen_prompts(16, 3)
    return Recipe.parse({**data, "cache": {"method": "svdcache", **changes}}, name)


if __name__ == "__main__":
    main()
