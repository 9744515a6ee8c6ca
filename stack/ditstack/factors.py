"""Factors: low-rank tensors in safetensors, with the fingerprint of what they were fitted to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ditstack.errors import BadFile, StaleFactors
from ditstack.files import write_atomically

_PRIME = 0x9E3779B97F4A7C15 - 2**64


@dataclass(frozen=True)
class Factors:
    """Named tensors, and the conditions that they were fitted under: weights, stages, schedule."""

    tensors: dict[str, Tensor]
    conditions: dict[str, str]

    def save(self, path: Path) -> None:
        """Write atomically: the old file stays whole until the new one is."""
        metadata = {"ditstack": json.dumps(self.conditions, sort_keys=True)}
        write_atomically(path, save({name: one.contiguous() for name, one in self.tensors.items()}, metadata))

    @classmethod
    def load(cls, path: Path) -> Factors:
        """Read a file.

        Raises:
            BadFile: it is missing, torn, or not ours.
        """
        if not path.is_file():
            raise BadFile(f"there is no factors file {path}; `ditstack calibrate` writes one")
        try:
            with safe_open(path, framework="pt") as file:
                conditions = json.loads((file.metadata() or {})["ditstack"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, KeyError, ValueError, OSError):
            raise BadFile(
                f"{path} is not a whole factors file of ditstack; write it again with `ditstack calibrate`"
            ) from None
        return cls(tensors, conditions)

    def of(self, stage: str) -> dict[str, Tensor]:
        """Those that one stage fitted, under its own names."""
        start = prefix(stage)
        named = {
            name: one for name, one in self.tensors.items() if ("/" in name) == bool(start) and name.startswith(start)
        }
        return {name.removeprefix(start): one for name, one in named.items()}

    def check(self, conditions: Mapping[str, str]) -> None:
        """Refuse to serve under other conditions.

        Raises:
            StaleFactors: it names every condition that differs.
        """
        names = sorted({*self.conditions, *conditions})
        changed = [name for name in names if self.conditions.get(name) != conditions.get(name)]
        if changed:
            raise StaleFactors(
                f"the factors were fitted to another {', '.join(changed)}; "
                "run `ditstack calibrate` again, or write `calibrate: auto` in the recipe"
            )


def prefix(stage: str) -> str:
    """How the names of a stage's factors begin; the cache's are bare."""
    return "" if stage == "cache" else f"{stage}/"


@torch.inference_mode(False)
def fingerprint(modules: Mapping[str, torch.nn.Module]) -> str:
    """A hash of every parameter, buffer and quantization scale, as they run: one flipped bit changes it.

    Computed where the weights lie. Scales that a backend keeps outside parameters are in the module's state dict,
    which torchao's weights refuse to give inside inference mode; this steps out of it.
    """
    digest = hashlib.sha256()
    for module_name, module in sorted(modules.items()):
        for name, tensor in sorted({**dict(module.named_buffers()), **module.state_dict()}.items()):
            for part, plain in _plain_parts(name, tensor):
                shape = f"{module_name}.{part} {tuple(plain.shape)} {plain.dtype} "
                digest.update(shape.encode() + str(_sum(plain)).encode())
    return digest.hexdigest()[:32]


def _plain_parts(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """A tensor, or the plain tensors that a quantized one is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [(name, tensor.detach())]
    inner: Any = tensor
    names, _ = inner.__tensor_flatten__()
    return [pair for one in names for pair in _plain_parts(f"{name}.{one}", getattr(inner, one))]


def _sum(tensor: Tensor) -> int:
    """A sum of the bits weighted by place, in wrap-around 64-bit arithmetic."""
    flat = tensor.contiguous().flatten()
    if flat.dtype == torch.bool:
        flat = flat.to(torch.uint8)
    words = flat.view(torch.uint8) if flat.element_size() not in (2, 4, 8) else flat.view(_INTS[flat.element_size()])
    total = 0
    for start in range(0, len(words), 1 << 22):
        chunk = words[start : start + (1 << 22)].long()
        place = torch.arange(start, start + len(chunk), device=chunk.device)
        total += int(((chunk + 1) * ((place * 2 + 1) * _PRIME ^ (place >> 7))).sum())
    return total % 2**64


_INTS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
