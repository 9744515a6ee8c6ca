"""`ditstack search`: a schedule for a recipe's cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ditstack.cli.terminal import Changes, PromptsFile, RecipeName, err, out
from ditstack.errors import BadFile
from ditstack.files import expand, read_prompts
from ditstack.marks import require_own_file, signed

if TYPE_CHECKING:
    from ditstack.recipe.recipe import Recipe
    from ditstack.tuning.kept import Kept
    from ditstack.tuning.search import SearchResult

LEAST = 6
"""Prompts; a third of them is set aside for the verdict."""
LARGEST = 2**20
"""No rank is so large."""


def search(
    recipe: RecipeName,
    target: Annotated[Path, typer.Option("--out", help="The recipe to write; its progress is kept beside it.")],
    macs: Annotated[
        float, typer.Option(min=0.01, max=1, help="The budget: MACs as a share of an uncached run's.")
    ] = 0.25,
    seconds: Annotated[float | None, typer.Option("--time", min=0.01, max=1, help="The same budget in time.")] = None,
    prompts: PromptsFile = None,
    samples: Annotated[int, typer.Option(min=LEAST, help="How many prompts to use at most.")] = 36,
    tries: Annotated[int, typer.Option(min=1, help="How many candidates to evaluate.")] = 100,
    size: Annotated[list[float], typer.Option(help="A rank to try, or a share where cache.macs is set.")] = [],  # noqa: B006
    samplers: Annotated[
        str, typer.Option("--sampler", metavar="WORD,WORD", help="Solvers to search under: euler-50,unipc-20.")
    ] = "",
    changes: Changes = [],  # noqa: B006
) -> None:
    """Search the schedule of a mixed cache on the final pictures; killed, the same command resumes."""
    from ditstack.folders import own_file
    from ditstack.recipe.recipe import Recipe

    _require_sizes(size)
    target = expand(target)
    require_own_file(target, lambda path: False)
    read = Recipe.read(recipe, changes)
    wanted = (read_prompts(prompts) if prompts else list(read.calibration))[:samples]
    if len(wanted) < LEAST:
        raise BadFile(f"found {len(wanted)} prompts; wanted at least {LEAST}: give --prompts FILE")
    words = samplers.split(",") if samplers else []
    with own_file(target) as write:
        found, notes = _found(read, words, wanted, target, seconds or macs, seconds is not None, size, tries)
        best = max(found, key=lambda one: one.score)
        write(signed(best.recipe.to_yaml()).encode())
    for one in notes:
        one.drop()
    for word, one in zip(words, found, strict=False):
        out.print(f"{word}: {one.score:.2f} dB of the final latent on prompts set aside", soft_wrap=True)
    gain = "{:+.2f} dB ({:+.2f} to {:+.2f})".format(*best.gain)
    out.print(f"from {best.start.letters} to {best.best.letters}, {best.best.size:g}", soft_wrap=True)
    out.print(f"on prompts set aside: {gain} of the final latent, at {best.cost:.3f} of the uncached run's cost")
    out.print(f"wrote {target}; fit its factors with `ditstack calibrate {target}`", soft_wrap=True)


def _require_sizes(sizes: list[float]) -> None:
    """Refuse, before a model is loaded, what is neither a rank nor a share.

    Raises:
        BadFile: it names the first.
    """
    for one in sizes:
        if not (0 < one < 1 or (1 <= one < LARGEST and one == int(one))):
            raise BadFile(f"--size: found {one:g}; wanted a rank (a whole number from 1), or a share between 0 and 1")


def _found(
    read: Recipe,
    words: list[str],
    prompts: list[str],
    target: Path,
    budget: float,
    timed: bool,
    size: list[float],
    tries: int,
) -> tuple[list[SearchResult], list[Kept[list[float]]]]:
    """What was found under each sampler, or under the recipe's own, and the notes that were taken on the way."""
    from ditstack.tuning.evaluation import ScheduleEvaluation, over
    from ditstack.tuning.search import Search

    found, notes = [], []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("candidates")

        def progress(done: int, count: int, score: float) -> None:
            bar.update(task, completed=done, total=count, description=f"candidates, best {score:.2f} dB")

        for one, beside in [(over(read, word), read) for word in words] or [(read, None)]:
            file = target.with_name(f"{target.name}.search{len(found) or ''}")
            trials = ScheduleEvaluation(one, prompts, file, timed, beside)
            sizes = [int(each) if each >= 1 else each for each in size] or [trials.size]
            notes.append(trials.notes)
            found.append(Search(trials, budget, sizes, tries).run(progress))
    return found, notes
