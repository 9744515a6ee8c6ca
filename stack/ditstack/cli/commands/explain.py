"""`ditstack explain`: what each stage of a recipe costs and brings."""

from __future__ import annotations

import json

from ditstack.cli.terminal import AsJson, Changes, PromptsOrCount, RecipeName, chosen_prompts, out, telling


def explain(
    recipe: RecipeName,
    prompts: PromptsOrCount = None,
    changes: Changes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Add a recipe's stages one at a time, and tell what each costs and brings."""
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(recipe, changes)
    wanted = chosen_prompts(read, prompts)
    from ditstack.compat import hush_loading
    from ditstack.measure.explain import ladder, text

    hush_loading()
    with telling() as tell:
        rungs = ladder(read, wanted, tell)
    if as_json:
        rows = [
            {"stage": one.title, "faster": one.faster, "notes": one.notes, **one.outcome.model_dump(mode="json")}
            for one in rungs
        ]
        print(json.dumps(rows, indent=2))
    else:
        out.print(text(rungs), soft_wrap=True, markup=False)
