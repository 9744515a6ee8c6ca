"""`ditstack show`: a recipe's plan, or a method's manual."""

from __future__ import annotations

from typing import Annotated

import typer

from ditstack.cli.terminal import AsJson, Changes, out, suggest_words

Wanted = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|METHOD",
        autocompletion=suggest_words,
        help="A recipe's name or path, or a method: svdcache, or cache/svdcache.",
    ),
]
Resolved = Annotated[bool, typer.Option("--resolved", help="Print the whole recipe as YAML, every default spelt out.")]


def show(
    wanted: Wanted,
    changes: Changes = [],  # noqa: B006
    resolved: Resolved = False,
    as_json: AsJson = False,
) -> None:
    """Show a recipe's plan stage by stage, or a method's fields, defaults and source. Loads no weights."""
    from ditstack.recipe.layers import is_recipe
    from ditstack.recipe.manual import manual, names_a_method

    if not is_recipe(wanted) and names_a_method(wanted):
        from ditstack.measure.show import manual_json, manual_text

        found = manual(wanted)
        print(manual_json(found)) if as_json else out.print(manual_text(found), soft_wrap=True)
        return
    _show_recipe(wanted, changes, resolved, as_json)


def _show_recipe(name: str, changes: list[str], resolved: bool, as_json: bool) -> None:
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(name, changes)
    if resolved:
        print(read.to_yaml(), end="")
        return
    from ditstack.measure.show import memory_lines, plan_json, plan_table
    from ditstack.recipe.memory.room import fit
    from ditstack.recipe.plan import plan

    steps = plan(read)
    if as_json:
        print(plan_json(read, steps))
        return
    out.print(plan_table(read, steps))
    out.print("\n".join(memory_lines(fit(read))), soft_wrap=True)
    for reason in [reason for step in steps for reason in step.reasons]:
        out.print(f"cannot run here: {reason}", style="red", soft_wrap=True)
