"""The committed matrix with further combinations: fitted samplers of few evaluations, LoRAs of other steps, a cache.

    PYTHONPATH=benchmarks nice python benchmarks/matrix_more.py --out .cache/matrix_more --fits .cache/solver

What is in --out is not measured again; with `--anew`, fitted samplers are. Cells that are the plain model with a fitted
sampler take the numbers that `fit_solver.py` left in --fits. Under a cache the fit goes on from there through what runs
in the cell: TRIES sets of times, and an iteration by probes, on prompts of the training. Where weights are rounded it
goes on from the unrounded cell's, for an iteration, or takes those as they are with --carry, where such an iteration is
known to win nothing. What is found is kept where the gain on prompts set aside is sure.
Without --fits each cell makes a whole fit of its own on these prompts, some six minutes each. `matrix_page.py` then
draws the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ditstack.calibration import calibrate as fitting
from ditstack.calibration.aims import Aims, plain_aims, wants_aims
from ditstack.calibration.sampler.fit import SamplerFit, SamplerWish
from ditstack.compat import hush, hush_loading
from ditstack.factors import Factors
from ditstack.files import at_home_in, write_atomically
from ditstack.maths.multistep import Method
from ditstack.matrix import markdown, survey
from ditstack.matrix.cell import SURVEY
from ditstack.matrix.combine import Job
from ditstack.matrix.schema import Matrix, read
from ditstack.matrix.survey import Survey
from ditstack.recipe.axes import NONE
from ditstack.recipe.recipe import Gate, Recipe
from ditstack_adapters.distill.solver import FittedSolver
from ditstack_adapters.model.embedded import shapes
from results import matrix_file

SAMPLERS = ("solver.9", "solver.7", "solver.12", "solver.5")
AXES = {
    "distill": ["none", "lora.3", "lora.2", *SAMPLERS],
    "quantize": ["none", "int8"],
    "attention": ["native"],
    "cache": ["none", "svdcache.2"],
}
FITTED_ON, SEED, TRIES = 32, 7, 8


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fits", type=Path, help="where fit_solver.py left its files")
    parser.add_argument("--cache", nargs="+", default=AXES["cache"], help="the words at cache, in another --out")
    parser.add_argument("--carry", action="store_true", help="take unrounded numbers for rounded weights")
    parser.add_argument("--anew", action="store_true", help="fit every sampler and measure it again")
    given = parser.parse_args()
    hush()
    hush_loading()
    matrix = read(matrix_file())
    if given.anew:
        forget(given.out)
    survey.GATE = Gate.model_validate(matrix.gate)
    base = Recipe.read(matrix.model, [f"calibration={shapes.seen_prompts(FITTED_ON, SEED)}"])
    job = Job(Survey.of(base, {**AXES, "cache": given.cache}, matrix.prompts), given.out)
    if given.fits is not None:
        write_atomically(job.work / SURVEY, job.survey.model_dump_json(indent=1).encode())
        go_on_from(given.fits, job, given.carry)
    more = job.run(Console(stderr=True))
    joined, file = join(matrix, more), matrix_file()
    shutil.copytree(given.out / "pictures", file.parent / "pictures", dirs_exist_ok=True)
    write_atomically(file, (joined.model_dump_json(indent=1) + "\n").encode())
    write_atomically(file.with_suffix(".md"), markdown.render(joined).encode())
    print(f"{len(joined.cells)} cells in {file}")


def go_on_from(fits: Path, job: Job, carry: bool) -> None:
    """Give every cell with a fitted sampler its factors, fitted on from those of the plain model."""
    aims: list[Aims] = []

    def once(*given: Any) -> Aims:
        """The plain model's converged latents, which all cells share; what is rounded in a cell they do not know."""
        if wants_aims(given[0]) and not aims:
            aims.append(dataclasses.replace(plain_aims(*given), partial=None))
        return aims[0] if wants_aims(given[0]) else Aims()

    def fit(self: FittedSolver, pipe: Any, calibration: Any) -> dict[str, Tensor]:
        known = Factors.load(fits / f"tiny-{self.evaluations}.safetensors").tensors
        if recipe.adapters.keys() <= {"model", "distill", "attention"} or (carry and "cache" not in recipe.adapters):
            return known
        if rounded := "quantize" in recipe.adapters:
            unrounded = job.survey.recipe({**chosen, "quantize": NONE})
            known = Factors.load(fitting.default_file(unrounded)).of("distill")
        steps, start, tries = self.baseline_steps, Method(**known), 0 if rounded else TRIES
        wish = SamplerWish(self.evaluations, 1, 12, self.fit_by, grid_steps=steps, start=start, tries=tries)
        return SamplerFit(pipe, calibration, wish).tensors()

    fitting.plain_aims, FittedSolver.fit = once, fit  # pyright: ignore[reportAttributeAccessIssue]
    with at_home_in(job.work.resolve() / "home"):
        for chosen in job.survey.combinations():
            recipe = job.survey.recipe(chosen)
            if chosen["distill"] in SAMPLERS and not fitting.default_file(recipe).is_file():
                print(recipe.name, flush=True)
                fitting.calibrate(recipe, recipe.calibration, None, print)


def forget(folder: Path) -> None:
    """Leave what a folder knows of fitted samplers out of it."""
    for word in SAMPLERS:
        for file in [*folder.glob(f"work/*{word}-*.json"), *folder.glob(f"work/home/factors/{word}-*")]:
            file.unlink()


def join(matrix: Matrix, more: Matrix) -> Matrix:
    """A matrix with the cells that another one of the same model, prompts and gate has beside; a sampler's anew."""
    same = ("model", "machine", "prompts", "seed", "gate", "pictured")
    if others := [name for name in same if getattr(matrix, name) != getattr(more, name)]:
        raise SystemExit(f"the matrices cannot be joined: they have another {', '.join(others)}")
    new = {cell.name: cell for cell in more.cells if cell.words.get("distill") in SAMPLERS}
    known = {cell.name for cell in matrix.cells} - new.keys()
    cells = [cell for cell in matrix.cells if cell.name in known]
    cells += [cell for cell in more.cells if cell.name not in known]
    rows = {(row.distill, row.steps, row.cache) for row in matrix.few_steps}
    return matrix.model_copy(
        update={
            "cells": sorted(cells, key=lambda cell: cell.status == "control"),
            "axes": {stage: list(dict.fromkeys([*matrix.axes[stage], *more.axes[stage]])) for stage in matrix.axes},
            "methods": matrix.methods | more.methods,
            "versions": matrix.versions | more.versions,
            "few_steps": matrix.few_steps + [r for r in more.few_steps if (r.distill, r.steps, r.cache) not in rows],
        }
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
