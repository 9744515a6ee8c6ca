"""Fits the sampler of few evaluations to a model, and keeps its numbers: `solver.py` measures them.

    nice python benchmarks/fit_solver.py --evaluations 9 7 --out .cache/solver

A killed fit goes on where it was. The prompts are of the training distribution; those of `solver.py` are not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from ditstack.assembly.build import build
from ditstack.calibration.run import CalibrationRun, Partial
from ditstack.calibration.sampler_fit import SamplerFit, SamplerWish
from ditstack.calibration.trajectories import converged, read_grid
from ditstack.factors import Factors
from ditstack.recipe.recipe import Recipe
from ditstack_adapters.model.embedded.shapes import seen_prompts

PROMPTS, REFERENCE = 64, 100


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--set", dest="changes", nargs="*", default=[])
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[9, 7, 12, 5])
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--aims", default="", help="the name of another fit whose converged latents are aimed at")
    parser.add_argument("--out", type=Path, default=Path(".cache/solver"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe.read(given.recipe, given.changes)
    pipe, prompts = build(recipe), seen_prompts(PROMPTS, seed=7)
    bar = Progress()
    aims_file = given.out / f"{given.aims or given.name}-aims.safetensors"
    if not aims_file.is_file():
        run = CalibrationRun(pipe, prompts, recipe.sampler, print, bar, Partial(aims_file.with_suffix(".partial"), {}))
        grid = read_grid(pipe, recipe.sampler, REFERENCE, prompts[:1])
        Factors({"aims": converged(pipe, grid, run)}, {}).save(aims_file)
    aims = Factors.load(aims_file).tensors["aims"]
    for count in given.evaluations:
        target = given.out / f"{given.name}-{count}.safetensors"
        if target.is_file():
            continue
        partial = Partial(target.with_suffix(".partial"), {"iterations": str(given.iterations)})
        run = CalibrationRun(pipe, prompts, recipe.sampler, print, bar, partial)
        began = time.monotonic()
        tensors = SamplerFit(pipe, run, SamplerWish(count, given.iterations), aims).tensors()
        Factors(tensors, {"seconds": f"{time.monotonic() - began:.0f}"}).save(target)
        print(target, {name: one.tolist() for name, one in tensors.items()}, flush=True)


class Progress:
    """A line now and then."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, part: str, done: int, count: int) -> None:
        if time.monotonic() - self.said > 20 or done == count:
            self.said = time.monotonic()
            print(f"{part}: {done} of {count}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
