"""Counts multiply-accumulates of linears, matrix products, convolutions and attention as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


class MacCounter(TorchFunctionMode):
    """Inside, `total` grows by what every product costs. It sees calls before any quantized weight unpacks itself.

    Attributes:
        kept_for_later: how much of it only a cache makes, for its later steps.
    """

    active: ClassVar[list[MacCounter]] = []

    def __init__(self) -> None:
        super().__init__()
        self.total = self.kept_for_later = 0

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
        if func in _MADE_OF_PRODUCTS:
            with FlopCounterMode(display=False) as flops:
                out = func(*args, **kwargs)
            self.total += flops.get_total_flops() // 2
            return out
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and (count := _COUNTS.get(func) or _OPERATORS.get(str(func))) is not None:
            self.total += count(out, *args, **kwargs)
        return out


@dataclass(frozen=True)
class Stated:
    """What a kernel says of one call: the MACs of the dense form, and which share of them it made."""

    dense: int
    share: float | Tensor = 1.0

    @property
    def macs(self) -> int:
        return int(self.dense * float(self.share))


@contextmanager
def counts_as(macs: Callable[[], int]) -> Iterator[None]:
    """Inside, whatever runs is counted as `macs()`: for a kernel whose products no torch function shows."""
    before = [(counter, counter.total) for counter in MacCounter.active]
    yield
    for counter, total in before:
        counter.total = total + macs()


@contextmanager
def uncounted() -> Iterator[None]:
    """Inside, nothing is counted: for what only looks at a model while it runs."""
    before = [(counter, counter.total, counter.kept_for_later) for counter in MacCounter.active]
    try:
        yield
    finally:
        for counter, total, kept in before:
            counter.total, counter.kept_for_later = total, kept


@contextmanager
def for_later_steps() -> Iterator[None]:
    """Inside, products are those that a cache makes at a full step for its later ones; the model has none of them."""
    before = [(counter, counter.total) for counter in MacCounter.active]
    yield
    for counter, total in before:
        counter.kept_for_later += counter.total - total


def attention_macs(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Of dense attention; all in (..., T, D)."""
    return query.numel() * key.shape[-2] + query.shape[:-1].numel() * value.shape[-1] * key.shape[-2]


def _product(out: Tensor, *args: Any, **kwargs: Any) -> int:
    a: Tensor = args[0] if args else kwargs["input"]
    return out.numel() * a.shape[-1]


def _added_product(out: Tensor, *args: Any, **kwargs: Any) -> int:
    a: Tensor = args[1] if len(args) > 1 else kwargs["mat1"] if "mat1" in kwargs else kwargs["batch1"]
    return out.numel() * a.shape[-1]


def _attention(_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return attention_macs(query, key, value)


def _convolution(out: Tensor, *args: Any, **kwargs: Any) -> int:
    weight: Tensor = args[1] if len(args) > 1 else kwargs["weight"]
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
    Tensor.addmm: _added_product,
    torch.baddbmm: _added_product,
    Tensor.baddbmm: _added_product,
    Tensor.addmm_: _added_product,
    Tensor.baddbmm_: _added_product,
    torch.nn.functional.scaled_dot_product_attention: _attention,
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
}

_MADE_OF_PRODUCTS: set[Any] = {
    torch.einsum,
    torch.functional.einsum,
    torch.tensordot,
    torch.chain_matmul,
    torch.linalg.multi_dot,
    torch.nn.functional.bilinear,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
}
"""Functions whose products lie inside them; PyTorch's own counter looks there."""

_OPERATORS: dict[str, Callable[..., int]] = {
    "bitsandbytes.int8_scaled_mm.default": _product,
    "bitsandbytes.gemm_4bit.default": _product,
}
"""Products that a backend registers as its own operators; they are known by name, so that nothing is imported."""
