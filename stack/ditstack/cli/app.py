"""The command line: finds the commands, and turns what a user can mend into one message."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Annotated

import typer
from rich.markup import escape

from ditstack.cli import commands
from ditstack.cli.logs import Quiet, Verbose, set_level, with_logs
from ditstack.cli.terminal import err
from ditstack.compat import usage_error
from ditstack.errors import DitstackError

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
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which version this is.")
    ] = False,
) -> None:
    """Stack accelerations on Diffusion Transformers, and measure what each stack costs."""
    set_level(verbose, quiet)


def main() -> None:
    """Run, and turn what a user can mend into one message and exit code 2."""
    from ditstack.compat import hush

    hush()
    try:
        sys.exit(app(standalone_mode=False))  # typer turns Ctrl-C into the exit code 130
    except DitstackError as error:
        err.print(escape(str(error)), style="red", soft_wrap=True)
        sys.exit(2)
    except usage_error() as error:
        error.show()  # pyright: ignore[reportAttributeAccessIssue]
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
