"""LoRA files: found in a folder or on the hub, read, and held against the transformer that they are to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ditstack.errors import BadFile

DEFAULT_NAME = "pytorch_lora_weights.safetensors"
_PART = re.compile(r"\.(?:lora|lokr)[._]")
_UP = re.compile(r"lora.*(_B|_up|\.up)\b")


def locate(source: str, weight_name: str | None, revision: str | None) -> Path:
    """The file of a LoRA: `source` is a file, a folder that holds it, or a hub id.

    Raises:
        BadFile: there is none, or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path, weight_name)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise BadFile(f"distill.source: there is no file or folder {source}, and it is not a hub id (org/name)")
    from huggingface_hub import hf_hub_download

    name = weight_name or DEFAULT_NAME
    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadFile(f"distill.source: {name} of {source} cannot be fetched from the hub: {why}") from error


def _in_folder(folder: Path, weight_name: str | None) -> Path:
    if weight_name is not None:
        if not (folder / weight_name).is_file():
            raise BadFile(f"distill.weight_name: the folder {folder} holds no {weight_name}")
        return folder / weight_name
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        names = f": {', '.join(one.name for one in found)}; name one with weight_name" if found else ""
        raise BadFile(f"distill.source: the folder {folder} holds {len(found)} .safetensors files{names}")
    return found[0]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file, under the names that it gives them.

    Raises:
        BadFile: it is torn, holds no LoRA, or one that changes nothing.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadFile(f"distill.source: {path} is not a whole .safetensors file: {error}") from None
    parts = {name: one for name, one in tensors.items() if "lora" in name or "lokr" in name}
    if not parts:
        first = next(iter(tensors), "nothing")
        raise BadFile(f"distill.source: {path} holds no LoRA; wanted names with lora_A and lora_B, found {first!r}")
    matrices = {name: one for name, one in parts.items() if one.ndim > 1}
    ups = [one for name, one in matrices.items() if _UP.search(name)]
    downs = [one for name, one in matrices.items() if not _UP.search(name)]
    if any(side and not any(bool(one.any()) for one in side) for side in (ups, downs)):
        raise BadFile(f"distill.source: the LoRA {path} is all zeros: it changes nothing")
    return tensors


def check_fit(tensors: Mapping[str, Tensor], transformer: torch.nn.Module, path: Path) -> list[str]:
    """Hold a LoRA, in diffusers' names, against a transformer.

    Returns:
        The modules that it names and the transformer lacks.

    Raises:
        BadFile: most of its modules are not there, or are of another width.
    """
    kind, modules = type(transformer).__name__, dict(transformer.named_modules())
    named = {name: one for name, one in tensors.items() if name.startswith("transformer.") and _PART.search(name)}
    wanted = list(dict.fromkeys(_module(name) for name in named))
    missing = [name for name in wanted if name not in modules]
    if not wanted:
        first = next(iter(tensors), "nothing")
        raise BadFile(f"distill.source: {path} holds nothing for the transformer; its first name is {first!r}")
    if 2 * len(missing) > len(wanted):
        raise BadFile(
            f"distill.source: {len(missing)} of the {len(wanted)} modules that {path} names are not in the {kind}, "
            f"such as {missing[0]!r}: it is for another model"
        )
    misfits = [text for name, one in named.items() if (text := _misfit(name, one, modules.get(_module(name))))]
    if 2 * len(misfits) > len(named):
        raise BadFile(f"distill.source: {path} is for a model of another width: {misfits[0]}")
    return missing


def _module(name: str) -> str:
    return _PART.split(name, maxsplit=1)[0].removeprefix("transformer.")


def _misfit(name: str, part: Tensor, module: Any) -> str | None:
    """Why one of a LoRA's matrices cannot stand beside a linear, if it cannot."""
    if not isinstance(module, torch.nn.Linear) or part.ndim != 2 or "lokr" in name:
        return None
    up = _UP.search(name)
    found, wanted = (part.shape[0], module.out_features) if up else (part.shape[1], module.in_features)
    return None if found == wanted else f"{name} {'writes' if up else 'reads'} {found} numbers, the linear {wanted}"
