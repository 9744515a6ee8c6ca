"""Hooks: what every hook of ours does to the module under it."""

from __future__ import annotations

from typing import Any

from diffusers.hooks.hooks import ModelHook


def run_original(hook: ModelHook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the module itself, under this hook, makes of a call."""
    forward = hook.fn_ref.original_forward
    assert forward is not None
    return forward(*args, **kwargs)
