"""Weights: the matrix that a linear really multiplies by, however its backend stores it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def dense(module: torch.nn.Module) -> Tensor:
    """The weight of a linear, (out, in), as a plain floating-point tensor; a LoRA that runs beside it is added.

    Reads plain weights, torchao's tensors, and bitsandbytes' 8-bit (before and after the first call) and 4-bit ones.
    """
    linear: Any = module
    if hasattr(linear, "base_layer"):
        return dense(linear.base_layer) + _beside(linear)
    weight = linear.weight
    if getattr(weight, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    if weight.dtype == torch.int8:
        # the scale of each row moves from the weight to the module's state at the first call
        scale = weight.SCB if weight.SCB is not None else linear.state.SCB
        return weight.data * (scale.unsqueeze(1) / 127)
    if hasattr(weight, "__tensor_flatten__"):
        return weight.dequantize()
    return weight.detach()


def is_beside(path: str) -> bool:
    """Whether the linear at this path belongs to a LoRA that runs beside another, and is not rounded."""
    return ".lora_" in path


def _beside(lora: Any) -> Tensor | float:
    """What a peft layer adds to its base; nothing where it is merged or switched off."""
    if lora.merged or lora.disable_adapters:
        return 0.0
    deltas = [lora.get_delta_weight(name) for name in lora.active_adapters if name in lora.lora_A]
    return sum(delta.detach() for delta in deltas)
