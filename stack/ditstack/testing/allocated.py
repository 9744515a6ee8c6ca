"""Allocated: the bytes that tensors hold on one device, counted from outside, meta tensors included."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Inside, what is made on a device is counted until nobody holds it.

    Tensors that share a storage count once. Meta tensors hold no numbers, so models of any size can be counted; what a
    kernel holds while it runs (a workspace of a convolution) is not seen.

    Attributes:
        now: bytes alive that were made inside.
        peak: the most of them at any moment.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.now = self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if self._counts(one)}
        out = func(*args, **(kwargs or {}))
        self.look()
        for one in tree_leaves(out):
            if self._counts(one) and one.untyped_storage()._cdata not in given:
                self._hold(one.untyped_storage())
        return out

    def look(self) -> int:
        """The bytes alive now."""
        for key in [key for key, (held, _) in self._alive.items() if held.expired()]:
            self.now -= self._alive.pop(key)[1]
        return self.now

    def _counts(self, one: Any) -> bool:
        plain = isinstance(one, torch.Tensor) and not hasattr(one, "__tensor_flatten__")
        return plain and one.device.type == self.device.type

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._alive:
            self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
