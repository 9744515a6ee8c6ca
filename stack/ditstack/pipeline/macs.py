"""Counts multiply-accumulates of linears, matrix products, convolutions and attention as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class MacCounter(TorchFunctionMode):
    """Inside, `total` grows by what every product costs. It sees calls before any quantized weight unpacks itself."""

    active: ClassVar[list[MacCounter]] = []

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __enter__(self) -> MacCounter:
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.active.remove(self)
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and (count := _COUNTS.get(func) or _OPERATORS.get(str(func))) is not None:
            self.total += count(out, *args, **kwargs)
        return out


@contextmanager
def counts_as(macs: Callable[[], int]) -> Iterator[None]:
    """Inside, whatever runs is counted as `macs()`: for a kernel whose products no torch function shows."""
    before = [(counter, counter.total) for counter in MacCounter.active]
    yield
    for counter, total in before:
        counter.total = total + macs()


def attention_macs(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Of dense attention; all in (..., T, D)."""
    return query.numel() * key.shape[-2] + query.shape[:-1].numel() * value.shape[-1] * key.shape[-2]


def _product(out: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * a.shape[-1]


def _added_product(out: Tensor, _add: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * a.shape[-1]


def _attention(_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return attention_macs(query, key, value)


def _convolution(out: Tensor, _input: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * weight[0].numel()


_COUNTS: dict[Any, Callable[..., int]] = {
    torch.nn.functional.linear: _product,
    torch.matmul: _product,
    Tensor.matmul: _product,
    Tensor.__matmul__: _product,
    torch.bmm: _product,
    Tensor.bmm: _product,
    torch.mm: _product,
    Tensor.mm: _product,
    torch.addmm: _added_product,
    torch.baddbmm: _added_product,
    Tensor.addmm_: _added_product,
    Tensor.baddbmm_: _added_product,
    torch.nn.functional.scaled_dot_product_attention: _attention,
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
}

_OPERATORS: dict[str, Callable[..., int]] = {
    "bitsandbytes.int8_scaled_mm.default": _product,
    "bitsandbytes.gemm_4bit.default": _product,
}
"""Products that a backend registers as its own operators; they are known by name, so that nothing is imported."""
