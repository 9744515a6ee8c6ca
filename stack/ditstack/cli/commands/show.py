"""`ditstack show`: a recipe's plan."""

from __future__ import annotations

from ditstack.cli.terminal import Changes, RecipeName, out


def show(recipe: RecipeName, changes: Changes = [], resolved: bool = False) -> None:  # noqa: B006
    """Show a recipe's plan, with the facts before and after each stage. Loads no weights."""
    from ditstack.measure.show import plan_table
    from ditstack.recipe.plan import plan
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(recipe, changes)
    if resolved:
        print(read.to_yaml(), end="")
        return
    steps = plan(read)
    out.print(plan_table(read, steps))
    for reason in [reason for step in steps for reason in step.reasons]:
        out.print(f"cannot run here: {reason}", style="red", soft_wrap=True)
