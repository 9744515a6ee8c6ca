"""`ditstack recipes`: what is on the shelf."""

from __future__ import annotations

import json

from ditstack.cli.terminal import AsJson, out


def recipes(as_json: AsJson = False) -> None:
    """List the shelf: every recipe, its stages, and whether it can run here."""
    from ditstack.measure.show import shelf_rows, shelf_table
    from ditstack.recipe.layers import shelf_names

    rows = shelf_rows(shelf_names())
    out.print_json(json.dumps(rows)) if as_json else out.print(shelf_table(rows))
