"""Hooks: what every hook of ours does to the module under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook


def run_original(hook: ModelHook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the module itself, under this hook, makes of a call."""
    forward = hook.fn_ref.original_forward
    assert forward is not None
    return forward(*args, **kwargs)


def put_beneath(module: torch.nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let what lies under all hooks of diffusers on a module be wrapped, so that they stay outside."""
    registry: Any = getattr(module, "_diffusers_hook", None)
    if registry is None or not registry._fn_refs:
        module.forward = wrap(module.forward)
        return
    lowest = registry._fn_refs[0]
    if lowest.original_forward is None:
        lowest.forward = wrap(lowest.forward)
    else:
        lowest.original_forward = wrap(lowest.original_forward)


class InnerHook:
    """A hook on a module inside a block: a bound method in the place of the module's forward, which is `under` it.

    Blocks that are alike then share compiled code. diffusers' hooks are partials, each of which a compiler takes for
    another function; they are for whole blocks and transformers.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.under = module, module.forward
        module.forward = self.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError
