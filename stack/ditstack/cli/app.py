"""The command line: finds the commands; `border` says how each of them ends."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Annotated

import typer

from ditstack.cli import border, commands
from ditstack.cli.logs import Quiet, Verbose, set_level, with_logs
from ditstack.compat import usage_error

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Stack accelerations on Diffusion Transformers, and measure what each stack costs.",
)
for _, name, _ in pkgutil.iter_modules(commands.__path__):
    app.command(name)(with_logs(getattr(importlib.import_module(f"{commands.__name__}.{name}"), name)))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"ditstack {version('ditstack')}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Verbose = 0,
    quiet: Quiet = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Stack accelerations on Diffusion Transformers, and measure what each stack costs."""
    set_level(verbose, quiet)


def main() -> None:
    """Run a command, and end with its exit code; see `border`."""
    from ditstack.compat import hush

    hush()
    sys.exit(border.run(lambda: app(standalone_mode=False), usage_error()))
