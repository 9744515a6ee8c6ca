"""Processors: what computes attention in diffusers' modules; `set_attn_processor` replaces it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

PLAIN = (bool, int, float, str, type(None))


def processors_of(transformers: Mapping[str, torch.nn.Module]) -> dict[str, Any]:
    """The processor of every attention module, by its path. Weights' own are modules, and stand among the weights."""
    found = {}
    for name, transformer in transformers.items():
        for path, module in transformer.named_modules():
            processor = vars(module).get("processor") or module._modules.get("processor")
            if processor is not None:
                found[f"{name}.{path}"] = processor
    return found


def settings_of(processor: Any) -> dict[str, Any]:
    """What a processor is set to, as far as it is plain; the backend, as all that is private, changes speed alone."""
    kept = getattr(processor, "__dict__", {})
    return {key: one for key, one in kept.items() if isinstance(one, PLAIN) and key[:1] != "_" and key != "training"}


def processors_in_words(transformers: Mapping[str, torch.nn.Module]) -> str:
    """The classes of all processors, and a short word for where each stands and how it is set."""
    found = {
        path: (f"{type(one).__module__}.{type(one).__qualname__}", settings_of(one))
        for path, one in sorted(processors_of(transformers).items())
    }
    names = sorted({kind.rpartition(".")[2] for kind, _ in found.values()})
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
    return f"{', '.join(names) or 'none'} ({digest})"
