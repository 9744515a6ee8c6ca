"""`ditstack doctor`: what this machine has."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ditstack.cli.terminal import AsJson, Changes, out, suggest_recipes

Asked = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE]", autocompletion=suggest_recipes, help="Say too whether this recipe runs here."),
]


def doctor(
    recipe: Asked = None,
    changes: Changes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Say what this machine has, and how to install what it lacks; of a recipe, what it needs and whether it fits."""
    from ditstack.measure.show import doctor_rows, doctor_table, memory_lines
    from ditstack.recipe.memory.room import fit
    from ditstack.recipe.plan import plan
    from ditstack.recipe.recipe import Recipe

    asked = None if recipe is None else Recipe.read(recipe, changes)
    rows = doctor_rows(asked)
    if as_json:
        out.print_json(json.dumps(rows))
        return
    out.print(doctor_table(rows))
    if asked is not None:
        out.print("\n".join([f"{asked.name}:", *memory_lines(fit(asked))]), soft_wrap=True)
        for reason in [reason for step in plan(asked) for reason in step.reasons]:
            out.print(f"cannot run here: {reason}", style="red", soft_wrap=True)
