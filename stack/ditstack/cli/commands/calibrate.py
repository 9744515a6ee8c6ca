"""`ditstack calibrate`: a recipe's factors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

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

    with Progress(console=err) as progress:
        tasks: dict[str, TaskID] = {}

        def bar(part: str, done: int, count: int) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task(part, total=count)
            progress.update(tasks[part], completed=done)

        written = fit(read, wanted, factors, lambda line: out.print(line, soft_wrap=True), bar)
    out.print(f"wrote {written}", soft_wrap=True)
