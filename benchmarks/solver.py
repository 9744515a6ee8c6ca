"""Fitted samplers of few evaluations on prompts that they were not fitted to, beside controls, our cache and the LoRA.

    PYTHONPATH=benchmarks python benchmarks/fit_solver.py --model tiny --evaluations 12 9 7 5 --out .cache/solver
    PYTHONPATH=benchmarks python benchmarks/solver.py --model tiny --evaluations 12 9 7 5 --fits .cache/solver

Pictures are compared with the converged ones, a hundred steps of Adams-Bashforth 2 on the recipe's own grid, and with
the plain model's own. The embedded model's controls at 12, 9 and 7 are those of `svdcache.py`, compared with 400 steps
of Euler: on three prompts looked at the two lay 61 to 63 dB from each other. Rows are added to solver.json one by one;
one that is there is not measured again, but a fit is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.assembly.build import build
from ditstack.calibration.trajectories import read_grid
from ditstack.compat import hush, hush_loading
from ditstack.factors import Factors
from ditstack.maths.multistep import Method
from ditstack.maths.schedule import graded
from ditstack.measure.controls import controls
from ditstack.pipeline.fitted_scheduler import FLOW, FittedMultistepScheduler, process_of
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack_adapters.model.embedded import shapes
from fit_solver import REFERENCE, STEPS, recipe_of
from results import add_row, latest, place_of
from sampled import References, kept, painted, sampled
from svdcache import stacked
from twinning.twin import find

PROMPTS, SEED, DENSE = 64, 7, 12
LORA = [["distill.method=lora", "distill.preset=tiny-4step", f"sampler.steps={steps}"] for steps in (4, 3, 2)]
KEY = ("model", "name", "full")
Row = dict[str, Any]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=STEPS, default="tiny")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[12, 9, 7, 5])
    parser.add_argument("--fits", type=Path, required=True, help="where fit_solver.py left its files")
    given = parser.parse_args()
    hush()
    hush_loading()
    base = recipe_of(given.model)
    references = references_of(given.model, base)
    told = {"prompts": PROMPTS, "steps": STEPS, "reference": REFERENCE}
    for count in given.evaluations:
        file = given.fits / f"{given.model}-{count}.safetensors"
        if file.is_file():  # a fit that was made anew stands in the place of the former
            add_row("solver", told, {"model": given.model, **measured(base, file, references)}, KEY)
        for name, make in others(given.model, base, count, references):
            if (given.model, name, count) not in known():
                add_row("solver", told, {"model": given.model, "name": name, "full": count, **make()}, KEY)
        if (inside := given.fits / f"{given.model}-{DENSE}.safetensors").is_file() and count < DENSE:
            for name, make in cached_inside(base, inside, count, references):
                if (given.model, name, count) not in known():
                    add_row("solver", told, {"model": given.model, "name": name, "full": count, **make()}, KEY)
    for changes in LORA if given.model == "tiny" else ():
        recipe, row = Recipe.read("tiny", changes), {"model": "tiny", "name": "few-step LoRA"}
        images = painted(recipe, references).images
        add_row("solver", told, {**row, "full": recipe.sampler.steps, **references.figures(images)}, KEY)


def references_of(model: str, base: Recipe) -> References:
    """What the plain model makes of prompts that nothing was fitted to, with its own steps and converged."""
    prompts = shapes.unseen_prompts(PROMPTS, SEED) if model == "tiny" else find(model).prompts(PROMPTS, SEED)
    found = References.of(base.resolved(), prompts, later=True)
    return dataclasses.replace(found, converged=converged(base, found.prompts, found.first_seed))


def converged(base: Recipe, prompts: list[str], first_seed: int) -> Tensor:
    """(P, 3, H, W) the pictures that the plain model's equation leads to."""

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        pipe = build(base)
        grid = read_grid(pipe, base.sampler, base.sampler.steps, prompts[:1])
        return {"images": by_method(base, grid.method(REFERENCE), prompts, first_seed)}, {}

    said = {"converged": base.resolved()["model"], "sampler": base.resolved()["sampler"], "steps": REFERENCE}
    return kept({**said, "prompts": prompts, "seed": first_seed}, make)[0]["images"]


def by_method(recipe: Recipe, method: Method, prompts: list[str], first_seed: int) -> Tensor:
    """Pictures of a recipe under a multistep method."""
    sampler = {**recipe.resolved()["sampler"], "steps": len(method)}
    stack = load(Recipe.parse({**recipe.data(), "sampler": sampler}, recipe.name))
    own = stack.pipeline.scheduler
    stack.pipeline.scheduler = FittedMultistepScheduler.of(
        method, process_of(own)[1], own.config["num_train_timesteps"]
    )
    return sampled(stack, prompts, first_seed)[0]


def measured(base: Recipe, file: Path, references: References) -> Row:
    """One fit's row: its PSNR to both references, picture by picture, and what it cost to fit."""
    factors = Factors.load(file)
    method = Method(**factors.tensors)
    images = by_method(base, method, references.prompts, references.first_seed)
    row = {"name": "fitted sampler", "full": len(method), **{f"fit_{k}": v for k, v in factors.conditions.items()}}
    return {**row, "method": {k: v.tolist() for k, v in factors.tensors.items()}, **references.figures(images)}


def others(model: str, base: Recipe, count: int, references: References) -> Iterator[tuple[str, Any]]:
    """Everything that stands beside a fit, by name; the embedded model's are `svdcache.py`'s where it has them."""

    def start() -> Row:
        grid = read_grid(build(base), base.sampler, base.sampler.steps, references.prompts[:1])
        return references.figures(by_method(base, grid.method(count), references.prompts, references.first_seed))

    yield "unfitted: Adams-Bashforth 2", start
    there = {(row["name"], row["full"]): row for row in latest("svdcache")["rows"]} if model == "tiny" else {}
    plan = [("svdcache (default)", "graded: order 1 in steps (default)", cached(base, count))]
    own = load(base).pipeline.scheduler
    found = controls(base, count, process_of(own)[1] == FLOW, type(own).__name__)
    found = found[1:] if model == "pixart" else found  # its own, DPM-Solver++ 2M, stands among the others
    plan += [(f"control: {one.title}", f"control: {one.title}", one.recipe) for one in found]
    for name, there_called, recipe in plan:
        measured = there.get((there_called, count))

        def make(measured: Row | None = measured, recipe: Recipe = recipe) -> Row:
            figures = measured or references.figures(painted(recipe, references).images)
            return {key: one for key, one in figures.items() if key.endswith("_each")}

        yield name, make


def cached_inside(base: Recipe, file: Path, count: int, references: References) -> Iterator[tuple[str, Any]]:
    """The default cache over the steps of a fitted sampler of DENSE evaluations, so many of them in full."""
    method = Method(**Factors.load(file).tensors)
    dense = {**base.resolved(), "sampler": {**base.resolved()["sampler"], "steps": DENSE}}
    for coordinate in ("step", "sigma"):
        recipe = stacked(dense, {"schedule": list(graded(DENSE, count)), "coordinate": coordinate})

        def make(recipe: Recipe = recipe) -> Row:
            return references.figures(by_method(recipe, method, references.prompts, references.first_seed))

        yield f"svdcache over the fitted sampler of {DENSE}, order 1 in {coordinate}s", make


def cached(base: Recipe, count: int) -> Recipe:
    """The default cache over the plain model's own steps, so many of them in full."""
    return stacked(base.resolved(), {"schedule": list(graded(base.sampler.steps, count))})


def known() -> set[tuple[Any, ...]]:
    """The rows that are measured."""
    file = place_of("solver")
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    return {tuple(row.get(name) for name in KEY) for row in rows}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
