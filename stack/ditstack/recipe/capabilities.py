"""Capabilities: what can be said of a pipe or of the machine. Adapters need, give and drop them, and know no more.

Capabilities are for *cannot*. What merely *should not* be stacked is shown by measurement.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Capability:
    """One sentence, which the user reads; two that say the same are the same. A method may name one of its own.

    Attributes:
        sentence: what is true: "the GPU is of compute capability 10.0 or newer".
        probe: of what belongs to the machine: whether it is true of a model on a device ("auto", "cpu", "cuda:1").
            None where only stages give it and take it away.
    """

    sentence: str
    probe: Callable[[str], bool] | None = field(default=None, compare=False)

    BLOCKS: ClassVar[Capability]
    DENSE_WEIGHTS: ClassVar[Capability]
    LORAS: ClassVar[Capability]
    FLOAT_WEIGHTS: ClassVar[Capability]
    MOVED_WHOLE: ClassVar[Capability]
    FREE_ATTENTION: ClassVar[Capability]
    FREE_TRUNK: ClassVar[Capability]
    CACHE_HOOKS: ClassVar[Capability]
    TRACEABLE: ClassVar[Capability]
    PASSING: ClassVar[Capability]
    ROWS: ClassVar[Capability]
    COMPILER: ClassVar[Capability]
    CUDA: ClassVar[Capability]
    SM80: ClassVar[Capability]
    SM89: ClassVar[Capability]
    SM100: ClassVar[Capability]
    FUSED: ClassVar[Capability]

    def holds(self, device: str) -> bool:
        """Whether the machine gives it to a model on `device`."""
        return self.probe is not None and self.probe(device)


def compute_capability(device: str) -> tuple[int, int]:
    """Of the GPU that a model on `device` runs on; (0, 0) where it runs on none."""
    if device == "cpu":
        return (0, 0)
    import torch

    if not torch.cuda.is_available():
        return (0, 0)
    return torch.cuda.get_device_capability(torch.device("cuda" if device == "auto" else device))


def _at_least(major: int, minor: int) -> Callable[[str], bool]:
    return lambda device: compute_capability(device) >= (major, minor)


def _has_compiler(device: str) -> bool:
    if compute_capability(device) > (0, 0):
        return importlib.util.find_spec("triton") is not None
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
    return any(map(shutil.which, compilers))


Capability.BLOCKS = Capability("the transformer's blocks are known")
Capability.DENSE_WEIGHTS = Capability("linear weights can be read as a dense tensor")
Capability.LORAS = Capability("the pipeline can load a LoRA")
Capability.FLOAT_WEIGHTS = Capability("linear weights are plain floating-point tensors")
Capability.MOVED_WHOLE = Capability("weights stay in place or move with their whole model (offload: none or model)")
Capability.FREE_ATTENTION = Capability("the attention kernel can be replaced")
Capability.FREE_TRUNK = Capability("no other cache sits on the transformer")
Capability.CACHE_HOOKS = Capability("diffusers' own caches can sit on the transformer")
Capability.TRACEABLE = Capability("a compiler can follow what runs inside a block")
Capability.PASSING = Capability("no block keeps tensors from one step to the next")
Capability.ROWS = Capability("the transformer can run on some rows of its batch")
Capability.COMPILER = Capability("there is a compiler: of C++, or Triton where there is a GPU", _has_compiler)
Capability.CUDA = Capability("the model runs on a CUDA GPU", _at_least(1, 0))
Capability.SM80 = Capability("the GPU is of compute capability 8.0 or newer", _at_least(8, 0))
Capability.SM89 = Capability("the GPU is of compute capability 8.9 or newer", _at_least(8, 9))
Capability.SM100 = Capability("the GPU is of compute capability 10.0 or newer", _at_least(10, 0))
Capability.FUSED = Capability(
    "what it rounds at every step is compiled, where there is a GPU: write `compile: inductor`",
    lambda device: compute_capability(device) == (0, 0),
)


def machine(device: str = "auto") -> frozenset[Capability]:
    """The built-in capabilities that this machine gives to a model on `device` ("auto", "cpu", "cuda" or "cuda:1")."""
    known = (one for one in vars(Capability).values() if isinstance(one, Capability))
    return frozenset(one for one in known if one.holds(device))


def describe_machine() -> str:
    """The machine's kind in one line, as reports state it."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} x{torch.cuda.device_count()}"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
