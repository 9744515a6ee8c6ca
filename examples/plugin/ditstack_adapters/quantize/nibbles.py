"""nibbles: two 4-bit weights in a byte, a scale for every row; `Packed` is the weight type."""

import sys
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torchao.utils import TorchAOBaseTensor

from ditstack import plugin

LITTLE_ENDIAN = plugin.Capability("the machine is little-endian", probe=lambda device: sys.byteorder == "little")


class Packed(TorchAOBaseTensor):
    tensor_data_names: ClassVar = ["bytes", "scale"]
    tensor_attribute_names: ClassVar[list[str]] = []

    def __new__(cls, bytes: torch.Tensor, scale: torch.Tensor) -> "Packed":
        shape = (bytes.shape[0], 2 * bytes.shape[1])
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=scale.dtype, device=scale.device)

    def __init__(self, bytes: torch.Tensor, scale: torch.Tensor) -> None:
        self.bytes, self.scale = bytes, scale

    def dequantize(self) -> torch.Tensor:
        return torch.stack([self.bytes & 15, self.bytes >> 4], -1).flatten(1).sub(8.0) * self.scale


@Packed.implements_torch_function(torch.nn.functional.linear)
def _linear(func: Any, types: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, weight, *bias = args
    return func(x, weight.dequantize(), *bias, **kwargs)


class Nibbles(plugin.Quantizer):
    reach: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of a row's largest weight that the largest code stands for."""

    @property
    def needs(self) -> frozenset[plugin.Capability]:
        return super().needs | {LITTLE_ENDIAN}

    def apply(self, pipe: plugin.Pipe) -> None:
        for block in pipe.arriving():
            for linear in block.module.modules():
                if type(linear) is torch.nn.Linear and linear.in_features % 2 == 0:
                    linear.weight = torch.nn.Parameter(self.packed(linear.weight.data), requires_grad=False)

    def packed(self, weight: torch.Tensor) -> Packed:
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) * self.reach / 7
        codes = (weight / scale).round().clamp(-8, 7).add(8).to(torch.uint8)
        return Packed(codes[:, ::2] | codes[:, 1::2] << 4, scale)
