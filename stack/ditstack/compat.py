"""Quiet and private names: the chatter of the libraries that we stand on, and what they keep to themselves."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings

from ditstack.errors import Incompatible

NOISY = ("torchao", "transformers", "diffusers", "accelerate", "torch.utils._pytree", "bitsandbytes", "peft")
"""Loggers of other libraries whose warnings say nothing to our users."""
OURS = "ditstack"
"""The logger of all that ditstack itself says."""


def hush() -> None:
    """Show only errors of other libraries. Called by the command line, never by the library."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = False  # a library that trips over its own log is no news to our users


def hush_loading() -> None:
    """No progress bars while weights load; for callers that show their own."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def require(package: str, task: str, extra: str) -> None:
    """Refuse a task, before any of it is done, where an optional package that its end needs is not installed.

    Args:
        extra: the group of ditstack's optional dependencies that brings it.

    Raises:
        Incompatible: with the line that installs it.
    """
    if importlib.util.find_spec(package) is None:
        reason = f"it needs the package {package.replace('_', '-')}: pip install 'ditstack[{extra}]'"
        raise Incompatible(f"{task} cannot run here:", [reason])


def usage_error() -> type[Exception]:
    """What typer raises for a command line that it cannot read.

    Typer (seen in 0.26 and 0.29) keeps a private copy of click and gives this class no public name; it stands above
    `typer.BadParameter`.
    """
    import typer

    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
