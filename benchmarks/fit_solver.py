"""Fits the sampler of few evaluations to a model, and keeps its numbers: `solver.py` measures them.

    nice python benchmarks/fit_solver.py --model tiny --prompts 128 --evaluations 9 7 --out .cache/solver

A killed fit goes on where it was. The prompts are of the training distribution; those of `solver.py` are not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.build import build
from ditstack.calibration.converged import converged
from ditstack.calibration.run import CalibrationRun, Partial
from ditstack.calibration.sampler.fit import WAYS, SamplerFit, SamplerWish
from ditstack.calibration.trajectories import read_grid
from ditstack.factors import Factors
from ditstack.maths.multistep import Method
from ditstack.maths.trajectory import Trajectory
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack_adapters.model.embedded import shapes
from twinning.twin import find

PROMPTS, REFERENCE, SEED = 64, 100, 7
STEPS = {"tiny": 50, "dit": 50, "pixart": 50, "flux2": 50}
"""Of the sampler whose pictures stand beside: a cache's full steps are some of them."""
TORCHAO = "quantize.method=torchao"
ROUNDED = {
    "int8": [TORCHAO, "quantize.scheme=int8"],
    "int4": [TORCHAO, "quantize.scheme=int4"],
    "nf4": ["quantize.method=bitsandbytes", "quantize.scheme=nf4"],
    "int8, sparse": [
        TORCHAO,
        "quantize.scheme=int8",
        "attention.method=sparse",
        "attention.mass=0.995",
        "attention.block_size=4",
    ],
    "int4, compensated": [TORCHAO, "quantize.scheme=int4", "quantize.compensate=0.125"],
}
"""Weights and attention that a sampler is fitted to by name."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=STEPS, default="tiny")
    parser.add_argument("--rounded", choices=ROUNDED, help="fit to the embedded model with these weights")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[9, 7, 12, 5])
    parser.add_argument("--by", choices=WAYS, default="probes")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--start", type=Path, help="a fit to begin from, such as that of the unrounded weights")
    parser.add_argument("--out", type=Path, default=Path(".cache/solver"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    name, plain, bar = given.rounded or given.model, recipe_of(given.model), Progress()
    prompts = training_prompts(given.model, given.prompts)
    aims = aims_of(plain, prompts, given.out / f"{given.model}-aims.safetensors", bar)
    recipe = Recipe.parse(plain.resolved(), name, ROUNDED.get(given.rounded, []))
    pipe = load(recipe).pipe
    for count in given.evaluations:
        target = given.out / f"{name}-{count}.safetensors"
        if target.is_file():
            continue
        said = {name: str(getattr(given, name)) for name in ("by", "iterations", "tries", "prompts")}
        run = CalibrationRun(
            pipe, prompts, recipe.sampler, print, bar, Partial(target.with_suffix(".partial"), said), aims
        )
        began, start = time.monotonic(), Method(**Factors.load(given.start).tensors) if given.start else None
        wish = SamplerWish(count, given.iterations, given.batch, given.by, start=start, tries=given.tries)
        tensors = SamplerFit(pipe, run, wish).tensors()
        Factors(tensors, {**said, "seconds": f"{time.monotonic() - began:.0f}"}).save(target)
        print(target, {name: one.tolist() for name, one in tensors.items()}, flush=True)


def recipe_of(model: str) -> Recipe:
    """The plain model with all its steps."""
    file = "tiny" if model == "tiny" else f"benchmarks/twins/{model}.yaml"
    return Recipe.read(file, [f"sampler.steps={STEPS[model]}"])


def training_prompts(model: str, count: int = PROMPTS) -> list[str]:
    """What a sampler is fitted on: captions of the model's training; DiT has its 24 classes alone, from other noise."""
    return find("dit").prompts(count, SEED + 1) if model == "dit" else shapes.seen_prompts(count, SEED)


def aims_of(plain: Recipe, prompts: list[str], file: Path, bar: Any) -> Trajectory:
    """The plain model's way to its converged latents, made once."""
    if not file.is_file():
        pipe = build(plain)
        run = CalibrationRun(pipe, prompts, plain.sampler, print, bar, Partial(file.with_suffix(".partial"), {}))
        grid = read_grid(pipe, plain.sampler, plain.sampler.steps, prompts[:1])
        Factors(vars(converged(pipe, grid, run, REFERENCE)), {}).save(file)
    return Trajectory(**Factors.load(file).tensors)


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
