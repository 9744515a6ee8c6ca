"""Calls: which pipeline's call is running on this thread, and what schedulers do inside it.

The methods are replaced once per class, by ones that do what they did and tell the clock whose call is running. No
object changes its class or its attributes: it pickles, copies and compares as ever, and nobody listens to a copy.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakMethod, finalize

import torch

Enter = Callable[[Mapping[str, Any]], AbstractContextManager[None]]
"""Told the call's arguments by name, defaults included."""


class Listener(Protocol):
    """Told what schedulers do inside a pipeline's call."""

    def timesteps_set(self, scheduler: Any) -> None:
        """`set_timesteps` has returned."""
        ...

    def stepped(self, scheduler: Any, timestep: Any, out: Any) -> None:
        """`step` has returned."""
        ...


_RUNNING: ContextVar[Listener | None] = ContextVar("ditstack_call", default=None)
_ENTERED: dict[int, WeakMethod[Enter]] = {}
"""What is entered around the calls of a pipeline, by its id; a pipeline must not be held here."""


def running() -> Listener | None:
    """Whose pipeline's call is running on this thread; None outside, and in that of a pipeline without a stack."""
    return _RUNNING.get()


@contextmanager
def running_as(listener: Listener | None) -> Iterator[None]:
    """Inside, this listener's call is running."""
    token = _RUNNING.set(listener)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def enter_around_calls(pipeline: Any, enter: Enter) -> None:
    """Enter a context around every call of one pipeline."""
    _replace(type(pipeline), "__call__", _call)
    _ENTERED[id(pipeline)] = WeakMethod(enter)
    finalize(pipeline, _ENTERED.pop, id(pipeline), None)


def leave_calls(pipeline: Any) -> None:
    """Calls of this pipeline are its own affair again."""
    _ENTERED.pop(id(pipeline), None)


def entered(pipeline: Any) -> Enter | None:
    """What is entered around the calls of a pipeline."""
    found = _ENTERED.get(id(pipeline))
    return found() if found is not None else None


def hear_schedulers(kind: type) -> None:
    """Tell the running call's listener what schedulers of a class do."""
    _replace(kind, "set_timesteps", _set_timesteps)
    _replace(kind, "step", _step)


def _replace(kind: type, name: str, replacement: Callable[..., Any]) -> None:
    original = getattr(kind, name)
    if getattr(original, "tells_ditstack", False):
        return

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return replacement(original, self, args, kwargs)

    method.tells_ditstack = True  # pyright: ignore[reportAttributeAccessIssue]
    setattr(kind, name, method)


def _call(original: Any, pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    enter = entered(pipeline)
    with running_as(None) if enter is None else enter(_arguments(original, pipeline, args, kwargs)):
        return original(pipeline, *args, **kwargs)


def _arguments(original: Any, pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """By name, with defaults; none where the call will refuse them itself."""
    try:
        bound = inspect.signature(original).bind(pipeline, *args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    return bound.arguments


def _set_timesteps(original: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = original(scheduler, *args, **kwargs)
    if (listener := _RUNNING.get()) is not None:
        listener.timesteps_set(scheduler)
    return out


def _step(original: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = original(scheduler, *args, **kwargs)
    if (listener := _RUNNING.get()) is not None:
        listener.stepped(scheduler, args[1] if len(args) > 1 else kwargs.get("timestep"), out)
    return out


def sizes_of(hidden: Any) -> Hashable:
    """Of what a transformer is given, one row's: a tensor, or a list of them."""
    rows = hidden[:1] if isinstance(hidden, torch.Tensor) else hidden
    return tuple(tuple(one.shape) for one in rows)


def sample_of(out: Any) -> Any:
    """The latents in what a scheduler's `step` returns."""
    return out[0] if isinstance(out, tuple) else getattr(out, "prev_sample", out)


def place_of(scheduler: Any, timestep: Any, supposed: int) -> int | None:
    """The place of the step that a scheduler has just made, by its own count, else by its timestep."""
    count = getattr(scheduler, "step_index", None)
    if count:
        return int(count) - 1
    if timestep is None:
        return None
    known = scheduler.timesteps.double().cpu()
    value = torch.as_tensor(timestep).double().cpu().flatten()
    places = (known == value[0]).nonzero().flatten().tolist() if len(value) else []
    return supposed if supposed in places or not places else places[0]
