"""Capabilities of a pipe, read and taken away: to see on a CPU whether what a method says of itself is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.model import Model
from ditstack.testing import tiny_pipelines as tiny
from ditstack.weights.dense import dense

CLOSE = 1e-3
"""How near a linear must come to the product with its dense weight; rounded activations are further away."""


@dataclass(frozen=True)
class Lack:
    """Two pipelines that compute the same, of which the second lacks a capability.

    Attributes:
        lacking: inside, the second one.
        also: what it cannot but lack too; a method that needs this is not asked.
    """

    whole: Callable[[], Any]
    lacking: Callable[[pytest.MonkeyPatch], AbstractContextManager[Any]]
    also: frozenset[Capability] = frozenset()


def linears(blocks: Any) -> Iterator[torch.nn.Linear]:
    """Every linear of the blocks, rounded or not."""
    for block in blocks:
        yield from (one for one in block.modules() if isinstance(one, torch.nn.Linear))


def blocks_of_flux(pipeline: Any) -> list[torch.nn.Module]:
    return [*pipeline.transformer.transformer_blocks, *pipeline.transformer.single_transformer_blocks]


def _rounded() -> Any:
    """Weights in torchao's int8 tensors: they can be read as dense ones, and are no plain floats."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    pipeline = tiny.flux()
    for block in blocks_of_flux(pipeline):
        quantize_(block, Int8WeightOnlyConfig())
    return pipeline


def _rounded_as_floats() -> Any:
    """The same weights as plain floats."""
    pipeline = _rounded()
    for one in linears(blocks_of_flux(pipeline)):
        one.weight = torch.nn.Parameter(dense(one).clone(), requires_grad=False)
    return pipeline


class Packed(torch.nn.Linear):
    """A linear whose weight is bytes in an order of its own: it multiplies as ever, and nobody else can read it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return linear(input, self.weight.flip(0).view(torch.float32), self.bias)


def _packed() -> Any:
    pipeline = tiny.flux()
    for one in linears(blocks_of_flux(pipeline)):
        if type(one) is torch.nn.Linear:
            one.weight = torch.nn.Parameter(one.weight.data.view(torch.uint8).flip(0), requires_grad=False)
            one.__class__ = Packed
    return pipeline


def _opaque() -> Any:
    """Blocks with a call inside that a compiler cannot follow."""
    pipeline = tiny.flux()
    for block in blocks_of_flux(pipeline):
        norm: Any = block.norm1 if hasattr(block, "norm1") else block.norm
        norm.forward = torch.compiler.disable(norm.forward)
    return pipeline


@contextmanager
def _without_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A pipe whose blocks nobody has found."""
    wrap = Model.wrap

    def blind(self: Model, pipeline: Any) -> Pipe:
        pipe = wrap(self, pipeline)
        pipe.blocks = {name: [] for name in pipe.blocks}
        pipe.trunks = {}
        return pipe

    with monkeypatch.context() as inside:
        inside.setattr(Model, "wrap", blind)
        yield tiny.flux()


def _made_by(make: Callable[[], Any]) -> Callable[[pytest.MonkeyPatch], AbstractContextManager[Any]]:
    @contextmanager
    def inside(_monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        yield make()

    return inside


LACKING: dict[Capability, Lack] = {
    Capability.BLOCKS: Lack(tiny.flux, _without_blocks),
    Capability.FLOAT_WEIGHTS: Lack(_rounded_as_floats, _made_by(_rounded)),
    Capability.DENSE_WEIGHTS: Lack(tiny.flux, _made_by(_packed), frozenset({Capability.FLOAT_WEIGHTS})),
    Capability.TRACEABLE: Lack(tiny.flux, _made_by(_opaque)),
}
"""What can be taken away on a CPU."""


def _of_pipe(pipe: Pipe) -> list[torch.nn.Module]:
    return [block.module for blocks in pipe.blocks.values() for block in blocks]


def _is_plain(one: torch.nn.Linear) -> bool:
    return type(one.weight) is torch.nn.Parameter and one.weight.is_floating_point()


def _is_readable(one: torch.nn.Linear) -> bool:
    """Whether its dense weight is what it multiplies by."""
    x = torch.randn(2, 3, one.in_features, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made, want = one(x).float(), linear(x, dense(one).to(x.dtype), one.bias).float()
    return bool((made - want).norm() <= 0.05 * want.norm().clamp_min(CLOSE))


HELD: dict[Capability, Callable[[Pipe], bool]] = {
    Capability.BLOCKS: lambda pipe: bool(pipe.blocks) and all(pipe.blocks.values()),
    Capability.FLOAT_WEIGHTS: lambda pipe: all(_is_plain(one) for one in linears(_of_pipe(pipe))),
    Capability.DENSE_WEIGHTS: lambda pipe: all(_is_readable(one) for one in linears(_of_pipe(pipe))),
    Capability.LORAS: lambda pipe: hasattr(pipe.pipeline, "load_lora_weights"),
    Capability.FREE_ATTENTION: lambda pipe: pipe.attention is None,
    Capability.FREE_TRUNK: lambda pipe: pipe.policy is None,
}
"""What can be read of a pipe."""
