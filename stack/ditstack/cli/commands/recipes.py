"""`ditstack recipes`: what is on the shelf."""

from __future__ import annotations

import json

from ditstack.cli.terminal import AsJson, out


def recipes(as_json: AsJson = False) -> None:
    """List the shelf, a line for each recipe: its name, whether it runs here, what it needs, what it is for."""
    from ditstack.measure.show import shelf_lines, shelf_rows
    from ditstack.recipe.layers import shelf_names

    rows = shelf_rows(shelf_names())
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for line in shelf_lines(rows):
        # a terminal's line ends where the terminal does; what reads a pipe gets all of it
        out.print(line, crop=out.is_terminal, no_wrap=True, overflow="ellipsis") if out.is_terminal else print(line)
