"""`ditstack matrix`: every combination of methods, measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ditstack.cli.terminal import AsJson, Changes, PromptsOrCount, chosen_prompts, err, out

DEFAULT = ["quantize=none,int8", "attention=native", "cache=none,reuse,svdcache"]


def matrix(
    folder: Annotated[Path, typer.Option("--out", help="Where to write; a run that was interrupted there resumes.")],
    model: Annotated[str, typer.Option(help="The recipe that every cell extends: a name on the shelf or a path.")],
    methods: Annotated[
        list[str], typer.Option(metavar="STAGE=WORD,WORD", help="An axis: cache=none,svdcache.2; several, or in one.")
    ] = DEFAULT,
    prompts: PromptsOrCount = None,
    changes: Changes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Measure every combination of methods: speed, memory, quality with intervals, and what pairs do to each other."""
    from ditstack.recipe import axes
    from ditstack.recipe.recipe import Recipe

    base = Recipe.read(model, changes)
    axes = axes.parse([word for text in methods for word in text.split()])
    from ditstack.matrix.combine import Job
    from ditstack.matrix.survey import Survey

    found = Job(Survey.of(base, axes, chosen_prompts(base, prompts)), folder).run(err)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    counts = Counter(cell.status for cell in found.cells)
    red = [cell.name for cell in found.cells if cell.contradiction]
    told = [f"{len(found.cells)} cells: {', '.join(f'{number} {status}' for status, number in counts.items())}"]
    told += [f"red: {', '.join(red)}"] if red else []
    out.print("\n".join([*told, f"matrix.json, matrix.md and the page: {folder}/"]), soft_wrap=True, markup=False)
