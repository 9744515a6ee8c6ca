"""`ditstack search`: a schedule for a recipe's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ditstack.cli.terminal import Changes, PromptsFile, RecipeName, err, out
from ditstack.errors import BadFile
from ditstack.files import read_prompts
from ditstack.marks import require_own_file, signed

LEAST = 6
"""Prompts; a third of them is set aside for the verdict."""


def search(
    recipe: RecipeName,
    target: Annotated[Path, typer.Option("--out", help="The recipe to write; its notes lie beside it until then.")],
    macs: Annotated[
        float, typer.Option(min=0.01, max=1, help="What a run may cost, of an uncached one's MACs.")
    ] = 0.25,
    seconds: Annotated[float | None, typer.Option("--time", min=0.01, max=1, help="The same, of its time.")] = None,
    prompts: PromptsFile = None,
    samples: Annotated[int, typer.Option(min=LEAST, help="How many prompts to use at most.")] = 36,
    tries: Annotated[int, typer.Option(min=1, help="How many candidates to look at.")] = 100,
    size: Annotated[list[float], typer.Option(help="A rank to try, or a share where cache.macs is set.")] = [],  # noqa: B006
    changes: Changes = [],  # noqa: B006
) -> None:
    """Search the schedule of a mixed cache on the final pictures; killed, the same command goes on."""
    from ditstack.files import write_atomically
    from ditstack.recipe.recipe import Recipe

    require_own_file(target, lambda path: False)
    read = Recipe.read(recipe, changes)
    wanted = (read_prompts(prompts) if prompts else list(read.calibration))[:samples]
    if len(wanted) < LEAST:
        raise BadFile(f"found {len(wanted)} prompts; wanted at least {LEAST}: give --prompts FILE")
    from ditstack.tuning.evaluation import ScheduleEvaluation
    from ditstack.tuning.search import Search

    trials = ScheduleEvaluation(read, wanted, target.with_name(f"{target.name}.search"), timed=seconds is not None)
    sizes = [int(one) if one >= 1 else one for one in size] or [trials.size]
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("candidates")

        def progress(done: int, count: int, score: float) -> None:
            bar.update(task, completed=done, total=count, description=f"candidates, best {score:.2f} dB")

        found = Search(trials, seconds or macs, sizes, tries).run(progress)
    write_atomically(target, signed(found.recipe.to_yaml()).encode())
    trials.notes.drop()
    gain = "{:+.2f} dB ({:+.2f} to {:+.2f})".format(*found.gain)
    out.print(f"from {found.start.letters} to {found.best.letters}, {found.best.size:g}", soft_wrap=True)
    out.print(f"on prompts set aside: {gain} of the final latent, at {found.cost:.3f} of the uncached run's cost")
    out.print(f"wrote {target}; fit its factors with `ditstack calibrate {target}`", soft_wrap=True)
