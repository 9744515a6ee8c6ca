"""Logs: how much of what ditstack tells reaches the terminal: more with `-v`, less with `-q`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from ditstack.cli.terminal import err
from ditstack.compat import NOISY, OURS

Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="Log what is done and how long it takes; -vv logs all.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Log errors only.")]


def set_level(verbose: int, quiet: bool) -> None:
    """Warnings by default, errors with `-q`, progress with `-v`; everything, also of other libraries, with `-vv`."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    ours = logging.getLogger(OURS)
    ours.handlers = [RichHandler(console=err, show_path=False, show_level=False, markup=False, log_time_format="%X")]
    ours.setLevel(level)
    if verbose > 1:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)


def with_logs(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, which takes `-v` and `-q` behind its own name too."""
    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=Verbose),
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet),
    ]

    @functools.wraps(command)
    def wrapped(*words: Any, verbose: int, quiet: bool, **options: Any) -> None:
        if verbose or quiet:
            set_level(verbose, quiet)
        command(*words, **options)

    every = signature.replace(parameters=[*signature.parameters.values(), *more])
    wrapped.__signature__ = every  # pyright: ignore[reportAttributeAccessIssue]
    wrapped.__annotations__ = {name: one.annotation for name, one in every.parameters.items()}
    return wrapped
