"""Fitted samplers of few evaluations on prompts that they were not fitted to, beside controls and our cache.

    PYTHONPATH=benchmarks python benchmarks/fit_solver.py --evaluations 9 7 --out .cache/solver
    PYTHONPATH=benchmarks python benchmarks/solver.py --fits .cache/solver

Controls and the cache are the rows of `svdcache.py` on the same prompts and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ditstack.factors import Factors
from ditstack.maths.multistep import Method
from ditstack.pipeline.fitted_scheduler import FLOW, FittedMultistepScheduler
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack_adapters.model.embedded import shapes
from results import latest, write
from sampled import References, sampled

PROMPTS = 64


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=Path, required=True, help="where fit_solver.py left its files")
    fits = parser.parse_args().fits
    base = Recipe.read("tiny", ["sampler.steps=50"]).resolved()
    references = References.of(base, shapes.unseen_prompts(PROMPTS, 7))
    rows = [measured(file, references) for file in sorted(fits.glob("tiny-*.safetensors")) if "aims" not in file.name]
    beside = [row for row in latest("svdcache")["rows"] if "control" in row["name"] or "(default)" in row["name"]]
    write("solver", {"prompts": PROMPTS, "steps": 50, "rows": [*rows, *beside]})


def measured(file: Path, references: References) -> dict[str, Any]:
    """One fit's row: its PSNR to both references, picture by picture, and what it cost to fit."""
    factors = Factors.load(file)
    count = len(factors.tensors["times"])
    stack = load(Recipe.read("tiny", [f"sampler.steps={count}"]))
    stack.pipeline.scheduler = FittedMultistepScheduler.of(Method(**factors.tensors), FLOW)
    images, _ = sampled(stack, references.prompts, references.first_seed)
    row = {"name": "fitted sampler", "full": count, "fit_seconds": factors.conditions["seconds"]}
    return {**row, "method": {k: v.tolist() for k, v in factors.tensors.items()}, **references.figures(images)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
