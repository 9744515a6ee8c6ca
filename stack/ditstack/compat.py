"""Quiet and private names: the chatter of the libraries that we stand on, and what they keep to themselves."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import types
import warnings
from collections.abc import Callable
from typing import Any

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


def compile_apart(function: Callable[..., Any], limit: int, **how: Any) -> Callable[..., Any]:
    """`torch.compile` whose code and count of recompilations no other call of it shares, of at most `limit` pieces.

    torch 2.13 has `isolate_recompiles` and `recompile_limit` for that. 2.11 has neither: it counts by code object, so a
    copy of the function gets one of its own, and reads the limit from its configuration, which is raised for all.
    """
    import torch

    known = inspect.signature(torch.compile).parameters
    if "isolate_recompiles" in known and "recompile_limit" in known:
        apart: dict[str, Any] = {"isolate_recompiles": True, "recompile_limit": limit}
        return torch.compile(function, **apart, **how)
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, limit)
    return torch.compile(_copy_of(function), **how)


def _copy_of(function: Any) -> Any:
    """The same function with a code object of its own; what is no plain function stays as it is."""
    if not isinstance(function, types.FunctionType):
        return function
    code, spaces, closure = function.__code__.replace(), function.__globals__, function.__closure__
    copied = types.FunctionType(code, spaces, function.__name__, function.__defaults__, closure)
    copied.__kwdefaults__ = function.__kwdefaults__
    copied.__dict__.update(function.__dict__)
    return copied
