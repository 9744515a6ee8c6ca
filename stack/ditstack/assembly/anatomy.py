"""Anatomy: what the user's pipeline is already: rounded, compiled, moved, parallel. Read from it, never assumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ditstack.errors import BadPipeline, Incompatible
from ditstack.pipeline.pipe import UNDECIDED, Pipe, transformers_of
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.recipe import Recipe

Lacks = dict[Capability, str]
"""What a pipeline as it stands lacks, and why."""


def refuse_compiled(pipeline: Any) -> None:
    """Refuse a transformer that is compiled: the compiler would follow, or pass by, what is put on it.

    Raises:
        BadPipeline: with what to write instead.
    """
    for name, one in transformers_of(pipeline).items():
        if hasattr(one, "_orig_mod"):
            raise BadPipeline(
                f"{name} was compiled by torch.compile; write `pipe.{name} = pipe.{name}._orig_mod` before `apply`, "
                "and `compile: inductor` in the recipe"
            )
        if any(module._compiled_call_impl is not None for module in one.modules()):
            raise BadPipeline(
                f"{name} was compiled in place, by compile() or compile_repeated_blocks(); load it again without, and "
                "write `compile: inductor` in the recipe"
            )


def check_uncompiled(pipe: Pipe) -> None:
    """Refuse a transformer that was compiled as a whole since its stack was put up: the compiler would follow that.

    Raises:
        BadPipeline: with what to write instead.
    """
    for name, one in pipe.transformers.items():
        if one._compiled_call_impl is not None:
            raise BadPipeline(
                f"{name} was compiled as a whole after `apply`, and the compiler cannot follow what stands on it; load "
                f"it again, and write `compile: inductor` in the recipe or compile its blocks alone: "
                f"{name}.compile_repeated_blocks()"
            )


def check_parallel(pipe: Pipe) -> None:
    """Refuse a cache that decides from what a picture shows where each rank holds a part of the picture.

    Raises:
        BadPipeline: ranks would come to different answers, and wait for one another for ever.
    """
    configs = [getattr(one, "_parallel_config", None) for one in pipe.transformers.values()]
    if pipe.policy is None or not any(getattr(one, "context_parallel_config", None) for one in configs):
        return
    if UNDECIDED in pipe.policy.plan(pipe.policy.steps or 8):
        raise BadPipeline(
            "the cache decides from the features of a picture, and each rank of a context-parallel transformer holds a "
            "part of them: ranks would not agree; take a cache that follows a schedule"
        )


def check_stages(recipe: Recipe, stages: Mapping[str, Adapter], pipeline: Any) -> None:
    """Refuse stages that cannot stand on this pipeline as it is.

    Raises:
        Incompatible: with the reasons of every stage at once.
    """
    lacks = read(pipeline)
    reasons = [
        f"{stage} {adapter.method} requires that {fact.sentence}; {lacks[fact]}"
        for stage, adapter in stages.items()
        for fact in sorted(adapter.needs & lacks.keys(), key=lambda fact: fact.sentence)
    ]
    if reasons:
        raise Incompatible(f"{recipe.name} cannot be stacked on this {type(pipeline).__name__}:", reasons)


def read(pipeline: Any) -> Lacks:
    """What a pipeline as it stands lacks."""
    lacks: Lacks = {}
    for name, transformer in transformers_of(pipeline).items():
        for path, module in transformer.named_modules():
            if (linear := _linear(module)) is not None:
                lacks = {**_of_weight(f"{name}.{path}", linear), **lacks}
        lacks = {**_of_hooks(name, transformer), **lacks}
    return lacks


def _linear(module: torch.nn.Module) -> torch.nn.Module | None:
    """The module, if it is a linear: it has a weight and widths. Under a LoRA that is its base."""
    weight = getattr(module, "weight", None)
    return module if weight is not None and hasattr(module, "in_features") else None


def _of_weight(path: str, linear: Any) -> Lacks:
    """What the way in which one linear's weight is stored leaves to be desired."""
    weight = linear.weight
    if weight.device.type == "meta":
        said = f"{path} is moved to the device at each call (enable_sequential_cpu_offload)"
        return {Capability.FLOAT_WEIGHTS: said, Capability.DENSE_WEIGHTS: said, Capability.MOVED_WHOLE: said}
    kind = type(weight).__name__
    if hasattr(weight, "__tensor_flatten__") and type(weight).__module__.startswith("torchao"):
        return {Capability.FLOAT_WEIGHTS: f"the pipeline is quantized already: {path} is torchao's {kind}"}
    if type(weight).__module__.startswith("bitsandbytes"):
        return {Capability.FLOAT_WEIGHTS: f"the pipeline is quantized already: {path} is bitsandbytes' {kind}"}
    if type(weight) not in (torch.Tensor, torch.nn.Parameter) or not weight.is_floating_point():
        said = f"{path} is stored as {type(weight).__module__}.{kind} of {weight.dtype}, which ditstack cannot read"
        return {Capability.FLOAT_WEIGHTS: said, Capability.DENSE_WEIGHTS: said}
    if weight.dtype.itemsize == 1:
        said = f"{path} is kept in {str(weight.dtype).removeprefix('torch.')} (enable_layerwise_casting)"
        return {Capability.FLOAT_WEIGHTS: said, Capability.DENSE_WEIGHTS: said}
    return {}


def _of_hooks(name: str, transformer: Any) -> Lacks:
    """What somebody else's hooks leave to be desired."""
    lacks: Lacks = {}
    for module in transformer.modules():
        registry = vars(module).get("_diffusers_hook")
        if any(one.startswith("group_offloading") for one in registry.hooks) if registry is not None else False:
            lacks[Capability.MOVED_WHOLE] = f"{name} is moved group by group (enable_group_offload)"
    config = getattr(transformer, "_parallel_config", None)
    if getattr(config, "tensor_parallel_config", None) is not None:
        said = f"{name} is split over devices (tensor parallel): each holds a part of every linear"
        lacks |= {Capability.DENSE_WEIGHTS: said, Capability.FLOAT_WEIGHTS: said}
    return lacks
