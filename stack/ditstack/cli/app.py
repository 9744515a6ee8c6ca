"""The command line: finds the commands; `border` says how each of them ends."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer
from typer._click.exceptions import ClickException

from ditstack.cli import border, commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stack accelerations on Diffusion Transformers, and measure what each stack costs.",
)
for _, name, _ in pkgutil.iter_modules(commands.__path__):
    app.command()(getattr(importlib.import_module(f"{commands.__name__}.{name}"), name))


def main() -> None:
    """Run a command, and end with its exit code; see `border`."""
    from ditstack.compat import hush

    hush()
    sys.exit(border.run(lambda: app(standalone_mode=False), ClickException))
