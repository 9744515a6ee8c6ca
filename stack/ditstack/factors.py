"""Factors: low-rank tensors in safetensors, with the fingerprint of what they were fitted to."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ditstack.errors import BadFile, StaleFactors
from ditstack.files import is_there, opened, write_atomically

OURS, SUM, DIGITS = "ditstack", "checksum", 32
"""Keys in the metadata of a file, and how many digits a checksum has."""
LARGEST_HEADER = 2**24
_ROW, _ROWS = 509, 256
"""Words in a row, and rows in a block, of what is summed up."""
_PRIME = 0x9E3779B97F4A7C15 - 2**64


@dataclass(frozen=True)
class Factors:
    """Named tensors, and the conditions that they were fitted under: weights, stages, schedule.

    In a file both stand under one checksum: a flipped bit anywhere is noticed.
    """

    tensors: dict[str, Tensor]
    conditions: dict[str, str]

    def save(self, path: Path) -> None:
        """Write atomically: the old file stays whole until the new one is."""
        metadata = {OURS: json.dumps(self.conditions, sort_keys=True), SUM: "0" * DIGITS}
        data = _in_order(save({name: one.contiguous() for name, one in self.tensors.items()}, metadata))
        start = _sum_place(data)
        data[start : start + DIGITS] = checksum(data).encode()
        write_atomically(path, data)

    @classmethod
    def load(cls, path: Path) -> Factors:
        """Read a file.

        Raises:
            BadFile: it is missing, torn, damaged, or not ours.
        """
        if not is_there(path):
            raise BadFile(f"there is no factors file {path}; `ditstack calibrate` writes one")
        with opened(path, "the factors file") as file:
            data = file.read()
        try:
            conditions, wrong = json.loads(_metadata(data)[OURS]), _damage(data)
            # views into the file lie at any address, and products of unaligned memory may round otherwise: hence copies
            tensors = {name: one.clone() for name, one in load(data).items()} if not wrong else {}
        except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, struct.error):
            conditions, tensors, wrong = {}, {}, "it is torn, or another program wrote it"
        wrong = wrong or _not_finite(tensors)
        if wrong:
            raise BadFile(
                f"{path} is not a whole factors file of ditstack: {wrong}; write it again with `ditstack calibrate`"
            )
        return cls(tensors, conditions)

    def of(self, stage: str) -> dict[str, Tensor]:
        """Those that one stage fitted, under its own names."""
        start = prefix(stage)
        named = {
            name: one for name, one in self.tensors.items() if ("/" in name) == bool(start) and name.startswith(start)
        }
        return {name.removeprefix(start): one for name, one in named.items()}

    def differing(self, conditions: Mapping[str, str]) -> list[str]:
        """The names of the conditions that are others now."""
        names = sorted({*self.conditions, *conditions})
        return [name for name in names if self.conditions.get(name) != conditions.get(name)]

    def check(self, conditions: Mapping[str, str]) -> None:
        """Refuse to serve under other conditions.

        Raises:
            StaleFactors: it names every condition that differs, what it was and what it is.
        """
        if changed := self.differing(conditions):
            told = [f"{name}: {_difference(self.conditions.get(name), conditions.get(name))}" for name in changed]
            headline = (
                f"the factors were fitted to another {', '.join(changed)}; "
                "run `ditstack calibrate` again, or write `calibrate: auto` in the recipe"
            )
            raise StaleFactors("\n  ".join([headline, *told]))


def layout(tensors: Mapping[str, Tensor]) -> str:
    """Of tensors, their names, shapes and dtypes, as one short word."""
    each = sorted(f"{name} {tuple(one.shape)} {one.dtype}" for name, one in tensors.items())
    return hashlib.sha256("\n".join(each).encode()).hexdigest()[:16]


def is_factors(path: Path) -> bool:
    """Whether a file calls itself factors of ditstack, be it damaged behind its header."""
    try:
        with opened(path) as file:
            return OURS in _metadata(file.read(LARGEST_HEADER))
    except (BadFile, OSError, ValueError, TypeError, KeyError, RecursionError, struct.error):
        return False


def _in_order(data: bytes) -> bytearray:
    """A file with the words of its header in order, which safetensors writes in any: equal factors are equal bytes."""
    found = bytearray(data)
    (size,) = struct.unpack_from("<Q", data)
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    if len(encoded := header.encode()) <= size:
        found[8 : 8 + size] = encoded.ljust(size)
    return found


def _metadata(data: bytes) -> dict[str, str]:
    (size,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _sum_place(data: bytes | bytearray) -> int:
    """Where the checksum stands in a file; -1 where there is none."""
    (size,) = struct.unpack_from("<Q", data)
    label = f'"{SUM}":"'.encode()
    place = data.find(label, 8, 8 + size)
    return place if place < 0 else place + len(label)


def _damage(data: bytes) -> str:
    """What is wrong with a file by its checksum; empty for a whole one."""
    start = _sum_place(data)
    if start < 0:
        return "it carries no checksum"
    if 8 + struct.unpack_from("<Q", data)[0] > len(data):
        return "it is torn"
    whole = data[start : start + DIGITS] == checksum(data).encode()
    return "" if whole else "it is damaged: what it holds is not what its checksum says"


def checksum(data: bytes | bytearray) -> str:
    """A word that one flipped bit anywhere in a file changes, several times faster than reading the file.

    The header is hashed, its checksum left out. Of the tensors, columns of 64-bit words are summed by block and the
    sums are hashed; a page of the disk is no whole number of rows, so that two that changed places are noticed too.
    """
    size, start = 8 + struct.unpack_from("<Q", data)[0], _sum_place(data)
    digest = hashlib.blake2b(len(data).to_bytes(8, "little"), digest_size=DIGITS // 2)
    digest.update(memoryview(data)[:start])
    digest.update(memoryview(data)[start + DIGITS : size])
    whole = (len(data) - size) // (8 * _ROW) * _ROW
    words = np.frombuffer(data, np.uint64, whole, size).reshape(-1, _ROW)
    for first in range(0, len(words), _ROWS):
        digest.update(words[first : first + _ROWS].sum(0).tobytes())
    digest.update(memoryview(data)[size + 8 * whole :])
    return digest.hexdigest()


def _not_finite(tensors: Mapping[str, Tensor]) -> str:
    for name, one in tensors.items():
        if one.is_floating_point() and one.numel() and not all(end.isfinite() for end in one.aminmax()):
            return f"{name} holds NaN or infinity"
    return ""


def _difference(was: str | None, now: str | None) -> str:
    """What changed from one condition to another, by field where both have fields."""
    old, new = _fields(was), _fields(now)
    if old is None or new is None:
        return f"was {_shown(was)}, is {_shown(now)}"
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {_shown(old.get(name))}, is {_shown(new.get(name))}" for name in names)


def _fields(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
