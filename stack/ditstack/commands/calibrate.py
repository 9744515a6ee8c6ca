"""`ditstack calibrate`: a recipe's factors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ditstack.terminal import Changes, PromptsFile, RecipeName, out, read_prompts


def calibrate(
    recipe: RecipeName,
    prompts: PromptsFile = None,
    samples: Annotated[int, typer.Option(min=2, help="How many prompts to use at most.")] = 16,
    factors: Annotated[Path | None, typer.Option("--out", help="The file to write.")] = None,
    changes: Changes = [],  # noqa: B006
) -> None:
    """Fit a recipe's factors to the weights and stages that run, and store them."""
    from ditstack.calibrate import calibrate as fit
    from ditstack.recipe import Recipe

    read = Recipe.read(recipe, changes)
    wanted = (read_prompts(prompts) if prompts else list(read.calibration))[:samples]
    written = fit(read, wanted, factors, lambda line: out.print(escape(line), soft_wrap=True))
    out.print(f"wrote {written}", soft_wrap=True)
