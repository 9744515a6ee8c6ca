"""Seconds a picture of the shelf's recipes, from the ladders that a GPU has run: `ditstack recipes` shows them.

    python benchmarks/shelf_figures.py benchmarks/results/<machine>_<date>

A row is a recipe's where all of its stages and its steps are the same. Writes recipes/measured.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from ditstack.files import write_atomically
from ditstack.measure.measured import FILE, MeasuredSeconds, MeasuredShelf
from ditstack.recipe.layers import shelf, shelf_names
from ditstack.recipe.recipe import Recipe


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--shelf", type=Path, default=shelf())
    wanted = parser.parse_args(given)
    found = {name: one for name in shelf_names() if (one := seconds_of(Recipe.read(name), wanted.results)) is not None}
    text = MeasuredShelf(recipes=found).model_dump_json(indent=1)
    write_atomically(wanted.shelf / FILE, (text + "\n").encode())
    print(f"{len(found)} recipes: {', '.join(found) or 'none'}")


def seconds_of(recipe: Recipe, results: Path) -> MeasuredSeconds | None:
    """What a ladder of a results folder says of a recipe."""
    for file in sorted(results.glob("gpu_*.json")):
        data = json.loads(file.read_text())
        for row in data["rows"]:
            if "seconds" in row and "recipe" in row and _same(recipe, row):
                report = f"{results.name}/{file.name}"
                return MeasuredSeconds(device=data["machine"], seconds=row["seconds"], report=report)
    return None


def _same(recipe: Recipe, row: dict[str, Any]) -> bool:
    own = Recipe.parse(yaml.safe_load(row["recipe"]), "row")
    same_model = type(own.model) is type(recipe.model)
    return same_model and stages_of(own) == stages_of(recipe) and row["steps"] == recipe.sampler.steps


def stages_of(recipe: Recipe) -> dict[str, Any]:
    """What runs: the model's place and an attention that is PyTorch's own anyway make no difference."""
    stages = {stage: adapter for stage, adapter in recipe.adapters.items() if stage != "model"}
    return {stage: one for stage, one in stages.items() if (stage, one.method) != ("attention", "native")}


if __name__ == "__main__":
    main()
