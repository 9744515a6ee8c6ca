"""A CUDA device that is not there: fake tensors have shapes and no values; launches and waits are counted.

An operation that makes a tensor is a launch, views are none, attention is one. A wait is a value that the host reads,
or a copy between host and device. What the host reads is made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero", "aten.item")
FREE = ("empty", "detach", "alias", "prim.", "sym_", "lift_fresh", "resize_", "set_", "_to_copy_view")


SCALARS: dict[Any, Any] = {Tensor.__float__: float, Tensor.__int__: int, Tensor.__bool__: bool, Tensor.item: int}


class Counted(TorchDispatchMode):
    """Launches and waits so far."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.waits = 0
        self.wherefrom: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = str(func), kwargs or {}
        given = _tensors((args, kwargs))
        on_gpu = any(one.is_cuda for one in given)
        places = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.device)]
        if not on_gpu and not _fake(given) and all(one.type == "cpu" for one in places):
            with _disable_current_modes():  # what is the host's alone has its values
                return func(*args, **kwargs)
        if given and not on_gpu and name.startswith(("aten._to_copy", "aten.to.")):
            self.wait(name)
            dtypes = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.dtype)]
            return torch.empty(given[0].shape, dtype=(*dtypes, given[0].dtype)[0], device="cuda")
        if on_gpu and name.startswith(READS):
            self.wait(name)
            return _made_up(name, given[0])
        if on_gpu and name.startswith("aten.index.Tensor"):
            args = (args[0], self._places(args[1]))
        out = func(*args, **kwargs)
        made = _tensors(out)
        if "copy" in name and given and made and given[-1].is_cuda != made[0].is_cuda:
            self.wait(name)
            if not made[0].is_cuda:
                return _values(made[0])
        here = on_gpu or any(one.is_cuda for one in made)
        self.launches += bool(made) and here and not (func.is_view or any(word in name for word in FREE))
        return out

    def wait(self, name: str) -> None:
        self.waits += 1
        self.wherefrom.append(name)

    def _places(self, index: list[Any]) -> list[Any]:
        """Places instead of a mask, whose true values the host would have to count."""
        found: list[Any] = []
        for one in index:
            masked = isinstance(one, Tensor) and one.dtype == torch.bool
            if masked:
                self.wait("mask as an index")
            found += [torch.zeros(4, dtype=torch.long, device=one.device)] * one.dim() if masked else [one]
        return found


class AsOne(TorchFunctionMode):
    """Attention is one launch. A build of torch without CUDA has no guard for its device: indexing is spelt out."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            self.counted.launches += 1
            return given["query"].new_empty(*given["query"].shape[:-1], given["value"].shape[-1])
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            if not _tensors(args):
                self.counted.wait("torch.tensor of numbers")
                host = torch.tensor(args[0], dtype=kwargs.get("dtype"), device="cpu")
                return torch.empty(host.shape, dtype=host.dtype, device="cuda")
        if func is Tensor.nonzero and args[0].is_cuda:
            self.counted.wait("nonzero")
            return torch.zeros(1, args[0].dim(), dtype=torch.long, device="cuda")
        if func in SCALARS and args[0].is_cuda:
            self.counted.wait("a scalar")
            return SCALARS[func](args[0].is_floating_point() or args[0].dtype == torch.bool)
        if func is Tensor.__invert__ and args[0].is_cuda:
            return torch.ops.aten.bitwise_not(args[0])
        if func is Tensor.contiguous and args[0].is_cuda:
            whole = args[0].is_contiguous()
            return args[0] if whole else torch.ops.aten.clone(args[0], memory_format=torch.contiguous_format)
        if func is Tensor.__getitem__ and args[0].is_cuda:
            return indexed(*args)
        if func is Tensor.__setitem__ and args[0].is_cuda:
            place, value = indexed(*args[:2]), args[2]
            torch.ops.aten.copy_(place, value) if isinstance(value, Tensor) else place.fill_(value)
            return None
        return func(*args, **kwargs)


def indexed(x: Tensor, index: Any) -> Tensor:
    """x[index], of views and of one gathering."""
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(one.dim() if isinstance(one, Tensor) and one.dtype == torch.bool else 1 for one in parts
                if one is not None and one is not Ellipsis)  # fmt: skip
    if not any(one is Ellipsis for one in parts):
        parts.append(Ellipsis)
    at = next(place for place, one in enumerate(parts) if one is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (x.dim() - taken)
    dim, gathered = 0, {}
    for one in parts:
        if one is None:
            x, dim = x.unsqueeze(dim), dim + 1
        elif isinstance(one, slice):
            if one != slice(None):
                x = torch.ops.aten.slice.Tensor(x, dim, one.start, one.stop, one.step or 1)
            dim += 1
        elif isinstance(one, (Tensor, list)):
            gathered[dim] = one if isinstance(one, Tensor) else torch.zeros(len(one), dtype=torch.long, device=x.device)
            dim += gathered[dim].dim() if gathered[dim].dtype == torch.bool else 1
        else:
            x = x.select(dim, int(one))
    if not gathered:
        return x
    return torch.ops.aten.index.Tensor(x, [gathered.get(place) for place in range(max(gathered) + 1)])


@contextmanager
def counting() -> Iterator[Counted]:
    """Inside, tensors are fake, and what a GPU would do is counted."""
    counted = Counted()
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(counted)
        stack.enter_context(AsOne(counted))
        for name in ("set_device", "synchronize"):
            stack.enter_context(mock.patch(f"torch.cuda.{name}", return_value=None))
        yield counted


def moved(tree: Any) -> Any:
    """The same tensors on the GPU, without their values."""
    return tree_map_only(Tensor, lambda one: torch.empty(one.shape, dtype=one.dtype, device="cuda"), tree)


def move(module: torch.nn.Module) -> None:
    """Put a module's weights on the GPU, inside `counting`."""
    for one in module.modules():
        for name, weight in one._parameters.items():
            one._parameters[name] = None if weight is None else torch.nn.Parameter(moved(weight), requires_grad=False)
        for name, buffer in one._buffers.items():
            one._buffers[name] = None if buffer is None else moved(buffer)


def _tensors(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]


def _made_up(name: str, tensor: Tensor) -> Any:
    if "nonzero" in name and "is_" not in name:
        return torch.zeros(1, tensor.dim(), dtype=torch.long, device=tensor.device)
    return True if tensor.dtype == torch.bool or "equal" in name else 1.0 if tensor.is_floating_point() else 0


def _values(fake: Tensor) -> Tensor:
    """Made up for what the host copies: every key is seen, and times fall."""
    with _disable_current_modes():
        if fake.dtype == torch.bool:
            return torch.ones(fake.shape, dtype=fake.dtype)
        fall = torch.linspace(1, 0, max(fake.numel(), 1))[: fake.numel()].reshape(fake.shape)
        return fall.to(fake.dtype) if fake.is_floating_point() else torch.zeros(fake.shape, dtype=fake.dtype)


def _fake(given: list[Tensor]) -> bool:
    return any(isinstance(one, FakeTensor) for one in given)
