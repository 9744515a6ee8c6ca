"""A fitted sampler of 9 evaluations where it was not fitted: rounded weights, other guidance, another size, a LoRA.

    PYTHONPATH=benchmarks python benchmarks/solver_carried.py --fits .cache/solver [--only int8 guidance]

On rounded weights beside what was fitted again to them (`fit_solver.py --rounded int8 --start ...`). All
is compared with the converged pictures of the unrounded model under the same conditions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ditstack.assembly.build import build
from ditstack.calibration.trajectories import read_grid
from ditstack.compat import hush, hush_loading
from ditstack.factors import Factors
from ditstack.maths import fidelity
from ditstack.maths.multistep import Method
from ditstack.pipeline.samplers import named
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack_adapters.model.embedded import shapes
from fit_solver import ROUNDED
from results import add_row, place_of
from sampled import sampled
from solver import by_method, converged

PROMPTS, SEED, FIRST, COUNT = 32, 7, 1000, 9
ELSEWHERE = {
    "guidance 3, as fitted": [],
    "guidance 2": ["sampler.guidance=2.0"],
    "guidance 5": ["sampler.guidance=5.0"],
    "96 x 96 pixels": ["sampler.size=96x96"],
    "the few-step LoRA, unguided": ["distill.method=lora", "distill.preset=tiny-4step", "sampler.guidance=1.0"],
}
KEY = ("where", "name")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=Path, required=True, help="where fit_solver.py left its files")
    parser.add_argument("--only", nargs="+", default=[""], help="conditions whose name holds one of these words")
    given = parser.parse_args()
    hush()
    hush_loading()
    prompts = shapes.unseen_prompts(PROMPTS, SEED)
    told = {"prompts": PROMPTS, "evaluations": COUNT}
    for where, plain, changed in conditions():
        if not any(word in where for word in given.only):
            continue
        aims = converged(plain, prompts, FIRST)
        for name, make in samplers(where, changed, given.fits, prompts):
            if (where, name) not in known():
                each = fidelity.psnr(make(), aims)
                add_row("solver_carried", told, {"where": where, "name": name, "converged_each": each}, KEY)


def conditions() -> Iterator[tuple[str, Recipe, Recipe]]:
    """A name, the plain model, and what the sampler is used on."""
    for where, changes in ELSEWHERE.items():
        recipe = Recipe.read("tiny", ["sampler.steps=50", *changes])
        yield where, recipe, recipe
    plain = Recipe.read("tiny", ["sampler.steps=50"])
    for where, changes in ROUNDED.items():
        yield where, plain, Recipe.parse(plain.resolved(), where, changes)


def samplers(
    where: str, recipe: Recipe, fits: Path, prompts: list[str]
) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """What stands side by side, with how its pictures are made."""

    def by_unipc() -> torch.Tensor:
        sampler = named(recipe.resolved()["sampler"], f"unipc-{COUNT}")
        return sampled(load(Recipe.parse({**recipe.data(), "sampler": sampler}, recipe.name)), prompts, FIRST)[0]

    def by_start() -> torch.Tensor:
        grid = read_grid(build(recipe), recipe.sampler, recipe.sampler.steps, prompts[:1])
        return by_method(recipe, grid.method(COUNT), prompts, FIRST)

    yield "UniPC, order 2", by_unipc
    yield "Adams-Bashforth 2", by_start
    for name, file in (("fitted elsewhere", f"tiny-{COUNT}"), ("fitted here", f"{where}-{COUNT}")):
        path = fits / f"{file}.safetensors"
        if path.is_file():
            method = Method(**Factors.load(path).tensors)
            yield name, lambda method=method: by_method(recipe, method, prompts, FIRST)


def known() -> set[tuple[str, str]]:
    """The rows that are measured."""
    file = place_of("solver_carried")
    return {(row["where"], row["name"]) for row in json.loads(file.read_text())["rows"]} if file.is_file() else set()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
