"""Counts multiply-accumulates of linears, matrix products, convolutions and attention as they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class MacCounter(TorchFunctionMode):
    """Inside, `total` grows by what every product costs. It sees calls before any quantized weight unpacks itself."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and (count := _COUNTS.get(func) or _OPERATORS.get(str(func))) is not None:
            self.total += count(out, *args, **kwargs)
        return out


def _product(out: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * a.shape[-1]


def _added_product(out: Tensor, _add: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * a.shape[-1]


def _attention(out: Tensor, query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    return query.numel() * key.shape[-2] + out.numel() * key.shape[-2]


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
