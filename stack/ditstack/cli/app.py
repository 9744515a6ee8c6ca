"""The command line: finds the commands, and turns what a user can mend into one message."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import typer
from rich.markup import escape
from typer._click.exceptions import ClickException

from ditstack.cli import commands
from ditstack.cli.terminal import err
from ditstack.errors import DitstackError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stack accelerations on Diffusion Transformers, and measure what each stack costs.",
)
for _, name, _ in pkgutil.iter_modules(commands.__path__):
    app.command()(getattr(importlib.import_module(f"{commands.__name__}.{name}"), name))


def main() -> None:
    """Run, and turn what a user can mend into one message and exit code 2."""
    from ditstack.compat import hush

    hush()
    try:
        sys.exit(app(standalone_mode=False))  # typer turns Ctrl-C into the exit code 130
    except DitstackError as error:
        err.print(escape(str(error)), style="red", soft_wrap=True)
        sys.exit(2)
    except ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
