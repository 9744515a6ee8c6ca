"""Capabilities: what can be said of a pipe or of the machine. Adapters need, give and drop them, and know no more.

Capabilities are for *cannot*. What merely *should not* be stacked is shown by measurement.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import platform
import shutil


class Capability(enum.Enum):
    """One sentence each; the value is what the user reads."""

    BLOCKS = "the transformer's blocks are known"
    DENSE_WEIGHTS = "linear weights can be read as a dense tensor"
    LORAS = "the pipeline can load a LoRA"
    FLOAT_WEIGHTS = "linear weights are plain floating-point tensors"
    MOVED_WHOLE = "weights stay in place or move with their whole model (offload: none or model)"
    FREE_ATTENTION = "the attention kernel can be replaced"
    FREE_TRUNK = "no other cache sits on the transformer"
    TRACEABLE = "a compiler can follow what runs inside a block"
    PASSING = "nothing that a block computes is kept for a later step"
    COMPILER = "there is a compiler: of C++, or Triton where there is a GPU"
    CUDA = "the model runs on a CUDA GPU"
    SM80 = "the GPU is of compute capability 8.0 or newer"
    SM89 = "the GPU is of compute capability 8.9 or newer"


def machine(device: str = "auto") -> frozenset[Capability]:
    """The facts that this machine gives to a model on `device` ("auto", "cpu", "cuda" or "cuda:1")."""
    if device == "cpu":
        return _of_a_cpu()
    import torch

    if not torch.cuda.is_available():
        return _of_a_cpu()
    found = {Capability.CUDA} | ({Capability.COMPILER} if importlib.util.find_spec("triton") else set())
    capability = torch.cuda.get_device_capability(torch.device("cuda" if device == "auto" else device))
    found |= {Capability.SM80} if capability >= (8, 0) else set()
    found |= {Capability.SM89} if capability >= (8, 9) else set()
    return frozenset(found)


def _of_a_cpu() -> frozenset[Capability]:
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
    return frozenset({Capability.COMPILER} if any(map(shutil.which, compilers)) else ())


def describe_machine() -> str:
    """The machine's kind in one line, as reports state it."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} x{torch.cuda.device_count()}"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
