"""`ditstack doctor`: what this machine has."""

from __future__ import annotations

import json

from ditstack.cli.terminal import AsJson, out


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, and how to install what it lacks."""
    from ditstack.measure.show import doctor_rows, doctor_table

    rows = doctor_rows()
    out.print_json(json.dumps(rows)) if as_json else out.print(doctor_table(rows))
