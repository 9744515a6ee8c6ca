"""Drift: what was changed on a pipeline since its stack was put up, noticed when it is called next."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ditstack.pipeline.pipe import Pipe
from ditstack.pipeline.processors import processors_of, settings_of

SAMPLED = 16
"""Numbers of each tensor that are looked at: a LoRA that is fused or loaded changes all of them."""


class Drift:
    """A pipeline as it was when its stack was put up, or when its weights were last accepted.

    Attributes:
        notes: what is otherwise now, for the reader of a report.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.notes: list[str] = []
        self._processors = _processors(pipe)
        self.accept()

    def look(self, fitted: bool) -> list[str]:
        """Look at the pipeline again: what is otherwise than when it was accepted last, of what a stack must follow.

        Args:
            fitted: whether factors stand, which follow more than the weights.
        """
        self.notes = [*self._of_transformers(), *self._of_processors()]
        changed = []
        if sketch(self.pipe.transformers) != self._weights:
            changed.append(
                "the weights have changed since the stack was applied: a LoRA was loaded, fused or set, projections "
                "were fused, or they were cast"
            )
        if fitted and _computing(self.pipe) != self._computed:
            changed.append("attention is computed by other processors than when the stack was applied")
        return changed

    def accept(self) -> None:
        """What the weights and processors are now is what they should be."""
        self._weights, self._computed = sketch(self.pipe.transformers), _computing(self.pipe)

    def _of_transformers(self) -> Iterator[str]:
        for name, one in self.pipe.transformers.items():
            if getattr(self.pipe.pipeline, name, None) is not one:
                yield f"{name} is not the module that the stack was applied to: it runs uncached; call `apply` again"

    def _of_processors(self) -> Iterator[str]:
        found = _processors(self.pipe)
        changed = [path for path, one in self._processors.items() if found.get(path) is not one]
        if changed:
            yield (
                f"{len(changed)} attention processors were replaced since `apply`, such as {changed[0]}; caches "
                "and kernels go on around them"
            )


def sketch(modules: Mapping[str, torch.nn.Module]) -> str:
    """A hash of a few numbers of every tensor and of how LoRAs are set; quick enough to be made before each call."""
    samples: dict[torch.device, list[tuple[str, Tensor]]] = {}
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in _tensors(modules):
            flat = tensor.detach().flatten()
            few = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED]
            samples.setdefault(tensor.device, []).append((f"{name} {tuple(tensor.shape)} {tensor.dtype}", few.float()))
        told = []
        for pairs in samples.values():
            values = torch.cat([few for _, few in pairs]).cpu()
            told += zip([name for name, _ in pairs], values.split([len(few) for _, few in pairs]), strict=True)
    for name, few in sorted(told, key=lambda pair: pair[0]):
        digest.update(name.encode() + few.numpy().tobytes())
    digest.update(repr(sorted(_loras(modules))).encode())
    return digest.hexdigest()


def _tensors(modules: Mapping[str, torch.nn.Module]) -> Iterator[tuple[str, Tensor]]:
    for name, module in modules.items():
        for path, tensor in (*module.named_parameters(), *module.named_buffers()):
            yield from _plain(f"{name}.{path}", tensor)


def _plain(name: str, tensor: Any) -> Iterator[tuple[str, Tensor]]:
    """A tensor, or the plain tensors that a rounded one is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        for part in tensor.__tensor_flatten__()[0]:
            yield from _plain(f"{name}.{part}", getattr(tensor, part))
    elif tensor.device.type != "meta" and not tensor.is_complex():
        yield name, tensor


def _loras(modules: Mapping[str, torch.nn.Module]) -> Iterator[str]:
    """How each LoRA layer is set: its adapters, their scales, which are merged."""
    for name, module in modules.items():
        for path, layer in module.named_modules():
            if hasattr(layer, "base_layer") and hasattr(layer, "scaling"):
                said: Any = layer
                settings = (said.active_adapters, said.scaling, said.merged_adapters, said.disable_adapters)
                yield f"{name}.{path} {settings}"


def _computing(pipe: Pipe) -> dict[str, tuple[type, dict[str, Any]]]:
    """What each attention processor computes: another of one class with the same settings computes the same."""
    return {path: (type(one), settings_of(one)) for path, one in _processors(pipe).items()}


def _processors(pipe: Pipe) -> dict[str, Any]:
    return processors_of(pipe.transformers)
