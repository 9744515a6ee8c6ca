"""`ditstack recipes`: what is on the shelf."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ditstack.cli.terminal import AsJson, err, out, size_of

Room = Annotated[
    str, typer.Option("--for", metavar="SIZE", help="Rank for a GPU of so much memory, such as 24GB: what fits first.")
]


def recipes(room: Room = "", as_json: AsJson = False) -> None:
    """List the shelf, a line for each recipe: its name, whether it runs here, its memory, what it needs, what for."""
    from ditstack.recipe.layers import shelf_names

    wanted = size_of(room, "--for")
    if wanted:
        from ditstack.measure.fitting import not_ranked, ranking, ranking_lines

        ranked = ranking(shelf_names(), wanted)
        if left_out := not_ranked(shelf_names(), ranked):
            err.print(left_out, soft_wrap=True, markup=False, style="dim")
        rows, lines = [one.row() for one in ranked], ranking_lines(ranked)
    else:
        from ditstack.measure.show import shelf_lines, shelf_rows

        rows = shelf_rows(shelf_names())
        lines = shelf_lines(rows)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for line in lines:
        # a terminal's line ends where the terminal does; what reads a pipe gets all of it
        out.print(line, crop=out.is_terminal, no_wrap=True, overflow="ellipsis") if out.is_terminal else print(line)
