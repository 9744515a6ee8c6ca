"""`ditstack schema`: the JSON schema of recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ditstack.cli.terminal import out

Target = Annotated[Path | None, typer.Option("--out", help="The file to write; standard output by default.")]


def schema(target: Target = None) -> None:
    """Write the JSON schema of recipes, by which an editor completes and checks them.

    Put `# yaml-language-server: $schema=FILE` at the head of a recipe.
    """
    from ditstack.recipe.manual import schema as of_recipes

    if target is None:
        print(json.dumps(of_recipes(), indent=2))
        return
    from ditstack.folders import own_file
    from ditstack.marks import is_signed_json, signed_json

    with own_file(target, is_signed_json) as write:
        write(signed_json(of_recipes()).encode())
    out.print(f"wrote {target}; head a recipe with: # yaml-language-server: $schema={target}", soft_wrap=True)
