"""Hooks: how everything of ours is put on the user's modules, and taken off them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook

Undo = Callable[[], None]
_UNDO: ContextVar[list[Undo] | None] = ContextVar("ditstack_undo", default=None)


@contextmanager
def noting_undo(undo: list[Undo]) -> Iterator[None]:
    """Inside, what is put on a module also notes how it is taken off again; call those from the last to the first."""
    token = _UNDO.set(undo)
    try:
        yield
    finally:
        _UNDO.reset(token)


def to_undo(undo: Undo) -> None:
    """Note how what has just been done to a module is undone, when the stack is removed."""
    if (noted := _UNDO.get()) is not None:
        noted.append(undo)


def attach(module: torch.nn.Module, hook: ModelHook, name: str) -> None:
    """Put a hook on a module, beside those of other stacks that share it.

    It lies under diffusers' context-parallel hooks, whenever they came: what lies between a split of the tokens and
    their gathering sees this rank's tokens only.
    """
    registry: Any = HookRegistry.check_if_exists_or_initialize(module)
    free, number = name, 1
    while free in registry.hooks:
        number += 1
        free = f"{name}_{number}"
    if any(one.startswith("cp_") for one in registry.hooks):
        _register_lowest(module, registry, hook, free)
    else:
        registry.register_hook(hook, free)
    to_undo(lambda: _detach(module, hook, free))


def _register_lowest(module: torch.nn.Module, registry: Any, hook: ModelHook, name: str) -> None:
    lowest, outer = registry._fn_refs[0], module.forward
    place = "forward" if lowest.original_forward is None else "original_forward"
    module.forward = getattr(lowest, place)
    HookRegistry(module).register_hook(hook, name)
    setattr(lowest, place, module.forward)
    module.forward = outer
    registry.hooks[name] = hook
    registry._hook_order.insert(0, name)
    registry._fn_refs.insert(0, hook.fn_ref)


def _detach(module: torch.nn.Module, hook: ModelHook, name: str) -> None:
    """Take a hook off a module. What somebody put around it since stays, and finds what is below the hook."""
    registry: Any = getattr(module, "_diffusers_hook", None)
    if registry is None or registry.hooks.get(name) is not hook:
        return
    reference = hook.fn_ref
    below = reference.original_forward or reference.forward
    reference.forward, reference.original_forward = below, None
    wrapped = getattr(module.forward, "func", None)
    if registry._fn_refs[-1] is reference and _refers_to(wrapped, reference):
        registry.remove_hook(name, recurse=False)
        tidy(module)
        return
    place = registry._hook_order.index(name)
    del registry.hooks[name], registry._hook_order[place], registry._fn_refs[place]


def _refers_to(function: Any, reference: Any) -> bool:
    """Whether a registry's own forward is that of this hook."""
    return any(cell.cell_contents is reference for cell in getattr(function, "__closure__", None) or ())


def tidy(module: torch.nn.Module) -> None:
    """A module whose forward is its class's own again carries none of its own."""
    forward = vars(module).get("forward")
    if getattr(forward, "__func__", None) is type(module).forward and getattr(forward, "__self__", None) is module:
        del module.forward


def run_original(hook: ModelHook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the module itself, under this hook, makes of a call."""
    forward = hook.fn_ref.original_forward
    assert forward is not None
    return forward(*args, **kwargs)


def put_beneath(module: torch.nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let what lies under all hooks of diffusers on a module be wrapped, so that they stay outside."""
    registry: Any = getattr(module, "_diffusers_hook", None)
    if registry is None or not registry._fn_refs:
        holder, name = module, "forward"
    else:
        holder = registry._fn_refs[0]
        name = "forward" if holder.original_forward is None else "original_forward"
    below = getattr(holder, name)
    wrapped = wrap(below)
    setattr(holder, name, wrapped)

    def undo() -> None:
        if getattr(holder, name, None) is wrapped:
            setattr(holder, name, below)
            tidy(module)

    to_undo(undo)


class InnerHook:
    """A hook on a module inside a block: a bound method in the place of the module's forward, which is `under` it.

    Blocks that are alike then share compiled code. diffusers' hooks are partials, each of which a compiler takes for
    another function; they are for whole blocks and transformers.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.under = module, module.forward
        module.forward = self.forward
        to_undo(self.remove)

    def remove(self) -> None:
        """Take it off; where something else was put around it since, it stays and stands aside."""
        if getattr(vars(self.module).get("forward"), "__self__", None) is self:
            self.module.forward = self.under
            tidy(self.module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError
