"""`ditstack check`: does a recipe keep its quality gate on this machine?"""

from __future__ import annotations

import sys

from ditstack.cli.terminal import AsJson, Changes, PromptsOrCount, RecipeName, chosen_prompts, err, out, telling


def check(
    recipe: RecipeName,
    prompts: PromptsOrCount = None,
    changes: Changes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Measure a recipe's quality gate against its unaccelerated baseline; exit code 3 where it is missed."""
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(recipe, changes)
    wanted = chosen_prompts(read, prompts)
    from ditstack.compat import hush_loading
    from ditstack.measure.check import check as measure

    hush_loading()
    with telling() as tell:
        outcome = measure(read, wanted, tell)
    if as_json:
        print(outcome.model_dump_json(indent=2))
    else:
        err.print("\n".join(outcome.left_out), soft_wrap=True, markup=False, style="dim")
        lines = [*outcome.verdicts, *([] if outcome.control is None else [outcome.control])]
        out.print("\n".join(map(str, lines)), soft_wrap=True, markup=False)
    sys.exit(0 if outcome.ok else 3)
