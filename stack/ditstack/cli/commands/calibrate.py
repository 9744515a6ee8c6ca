"""`ditstack calibrate`: a recipe's factors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ditstack.cli.terminal import Changes, PromptsFile, RecipeName, err, out
from ditstack.files import read_prompts


def calibrate(
    recipe: RecipeName,
    prompts: PromptsFile = None,
    samples: Annotated[int, typer.Option(min=2, help="How many prompts to use at most.")] = 16,
    factors: Annotated[Path | None, typer.Option("--out", help="The file to write.")] = None,
    changes: Changes = [],  # noqa: B006
) -> None:
    """Fit a recipe's factors to the weights and stages that run, and store them. Killed, it goes on where it was."""
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(recipe, changes)
    wanted = (read_prompts(prompts) if prompts else list(read.calibration))[:samples]
    from ditstack.calibration.calibrate import calibrate as fit
    from ditstack.measure.told import Told

    with Told(err).shown() as told:
        written = fit(read, wanted, factors, told.tell, told.count)
    out.print(f"wrote {written}", soft_wrap=True)
