"""`ditstack run`: pictures with a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditstack.cli.terminal import AsJson, Changes, Overwrite, Promise, PromptsFile, RecipeName, err, out
from ditstack.errors import BadFile
from ditstack.files import check_prompts, read_prompts

if TYPE_CHECKING:
    from ditstack.report import Report


def run(
    recipe: RecipeName,
    prompt: Annotated[list[str], typer.Option(help="A prompt; may be given several times.")] = [],  # noqa: B006
    prompts: PromptsFile = None,
    negative_prompt: Annotated[str | None, typer.Option()] = None,
    steps: Annotated[int | None, typer.Option()] = None,
    guidance: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; a new folder under out/ by default.")
    ] = None,
    changes: Changes = [],  # noqa: B006
    compare: Annotated[
        bool, typer.Option(help="Run the unaccelerated baseline too, and measure the difference.")
    ] = False,
    promise: Promise = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make pictures with a recipe."""
    from ditstack.files import free_folder
    from ditstack.recipe.recipe import Recipe

    given = {"sampler.steps": steps, "sampler.guidance": guidance, "seed": seed, "sampler.size": size}
    changes = [*changes, *(f"{path}={value}" for path, value in given.items() if value is not None)]
    read = Recipe.read(recipe, changes)
    wanted = [*prompt, *(read_prompts(prompts) if prompts else [])] or list(read.prompts)
    if not wanted:
        raise BadFile(f"recipe {read.name} names no prompts; give --prompt or --prompts FILE")
    check_prompts([*wanted, *([negative_prompt] if negative_prompt else [])])
    target = folder or free_folder(Path("out") / read.name)
    from ditstack.measure.run import Job

    _tell(Job(read, wanted, target, negative_prompt, compare, overwrite, promise).run(err), target, as_json)


def _tell(report: Report, target: Path, as_json: bool) -> None:
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    from ditstack.measure.show import run_summary

    out.print(run_summary(report, target), soft_wrap=True)
