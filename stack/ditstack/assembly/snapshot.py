"""Snapshot: a pipeline as it stands, put back whole where a recipe turns out not to stand on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from ditstack.pipeline.calls import enter_around_calls, entered, leave_calls
from ditstack.pipeline.pipe import transformers_of

DATA = (dict, OrderedDict, list, set)
"""What objects keep their parts in: put back by content, since others hold the same one."""


@contextmanager
def unchanged_on_failure(pipeline: Any, weights: bool) -> Iterator[None]:
    """Inside, a pipeline is changed; where that raises anything, it is given back as it was.

    Args:
        weights: whether weights are changed too; then the host's memory holds a copy of them meanwhile.
    """
    snapshot = Snapshot(pipeline, weights)
    try:
        yield
    except BaseException:
        snapshot.restore()
        raise


class Snapshot:
    """The scheduler, and of every module of the transformers its forward, hooks, parts and, if asked for, weights."""

    def __init__(self, pipeline: Any, weights: bool) -> None:
        self.pipeline, self._entered = pipeline, entered(pipeline)
        self._transformers = transformers_of(pipeline)
        modules = {id(module): module for one in self._transformers.values() for module in one.modules()}
        processors = {id(one): one for module in modules.values() if (one := vars(module).get("processor")) is not None}
        registries = [one for module in modules.values() if (one := vars(module).get("_diffusers_hook")) is not None]
        references = [reference for one in registries for reference in one._fn_refs]
        things = (pipeline, *modules.values(), *processors.values(), *registries, *references)
        self._objects = [_Object.of(one) for one in things]
        self._weights: dict[int, _Weight] = {}
        if weights:
            self._keep_weights()

    def _keep_weights(self) -> None:
        """Hold on to values, and not to tensors: those that are replaced meanwhile leave the device's memory."""
        for one in self._objects:
            for part in ("_parameters", "_buffers") if isinstance(one.thing, torch.nn.Module) else ():
                tensors = one.contents[part]
                tensors.update({name: self._kept(tensor) for name, tensor in tensors.items() if _is_plain(tensor)})

    def _kept(self, tensor: Tensor) -> _Weight:
        if id(tensor) not in self._weights:
            self._weights[id(tensor)] = _Weight.of(tensor)
        return self._weights[id(tensor)]

    def restore(self) -> None:
        """Put everything back. A failure half-way through leaves nothing of what was begun."""
        leave_calls(self.pipeline)
        for one in self._objects:
            one.restore()
        if self._entered is not None:
            enter_around_calls(self.pipeline, self._entered)


@dataclass
class _Object:
    """An object's class and attributes."""

    thing: Any
    kind: type
    attributes: dict[str, Any]
    contents: dict[str, Any]

    @classmethod
    def of(cls, thing: Any) -> _Object:
        attributes = dict(vars(thing)) if hasattr(thing, "__dict__") else {}
        contents = {name: one.copy() for name, one in attributes.items() if type(one) in DATA}
        return cls(thing, type(thing), attributes, contents)

    def restore(self) -> None:
        if type(self.thing) is not self.kind:
            self.thing.__class__ = self.kind
        if not hasattr(self.thing, "__dict__"):
            return
        vars(self.thing).clear()
        vars(self.thing).update(self.attributes)
        for name, content in self.contents.items():
            own = self.attributes[name]
            own.clear()
            if isinstance(own, dict):
                own.update({key: one.tensor() if isinstance(one, _Weight) else one for key, one in content.items()})
            elif isinstance(own, list):
                own.extend(content)
            else:
                own.update(content)


@dataclass
class _Weight:
    """A tensor's values, held by the host, and the tensor while somebody else holds it."""

    alive: ref[Tensor]
    values: Tensor
    device: torch.device
    kind: type
    requires_grad: bool
    made: Tensor | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> _Weight:
        return cls(ref(tensor), tensor.detach().cpu().clone(), tensor.device, type(tensor), tensor.requires_grad)

    def tensor(self) -> Tensor:
        """The tensor with its values as they were."""
        if self.made is None:
            values, found = self.values.to(self.device), self.alive()
            if found is None:
                found = torch.nn.Parameter(values, self.requires_grad) if self.kind is torch.nn.Parameter else values
            found.data = values
            self.made = found
        return self.made


def _is_plain(tensor: Tensor | None) -> bool:
    """Whether a tensor may be changed in place: rounded ones never are, and meta ones hold nothing."""
    return tensor is not None and type(tensor) in (Tensor, torch.nn.Parameter) and tensor.device.type != "meta"
