"""Plugin: all that a method may import, here or in another distribution. Nothing else of the stack is promised to it.

Names are found on first use, so that reading a recipe does not wait for torch; write imports that a method needs only
when it acts inside the function that acts, or `from ditstack import plugin` and `plugin.FeatureCache`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ditstack.attention.dispatch import Call, Declined, Kernel, choose_backend, replace_attention
    from ditstack.attention.masks import without_hidden
    from ditstack.attention.rivals import Fastest, rivals
    from ditstack.attention.sparse import SparseKernel
    from ditstack.caching.diffusers_caches import DiffusersCache
    from ditstack.caching.features import FeatureCache, cache_attentions, cache_branches, cache_trunks
    from ditstack.caching.linears import LowRankLinears, wrong_corrections
    from ditstack.caching.patterns import LayerPolicy, Pattern, PatternFile, find_layers
    from ditstack.caching.setting import Setting, follow_setting, wrong_setting
    from ditstack.calibration import compensation
    from ditstack.calibration.choice import choose_setting
    from ditstack.calibration.fits import Fit, Wish, fit_anchored, take_anchored, wrong_anchored
    from ditstack.calibration.gains import plain_gains, principal_bases, tune_gains
    from ditstack.calibration.patterns.fitting import (
        fit_along,
        fit_patterned,
        take_patterned,
        wrong_along,
        wrong_patterned,
    )
    from ditstack.calibration.patterns.learning import Frame
    from ditstack.calibration.sampler.fit import SamplerFit, SamplerWish
    from ditstack.compat import compile_apart
    from ditstack.errors import BadFile, BadPipeline
    from ditstack.pipeline.discovery import trace
    from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler, process_of
    from ditstack.pipeline.hooks import put_beneath
    from ditstack.pipeline.pipe import CALIBRATED, FULL, OFF, REUSED, UNDECIDED, Pipe
    from ditstack.pipeline.policy import COPIED, RowPolicy, StepPolicy
    from ditstack.pipeline.records import PassInputs
    from ditstack.recipe.adapter import Adapter, Attention, Cache, Quantizer, suggest
    from ditstack.recipe.calibration import Calibration
    from ditstack.recipe.capabilities import Capability, compute_capability
    from ditstack.recipe.declared import Knob, SearchedFields, Trunk
    from ditstack.recipe.model import Model
    from ditstack.weights import lora_files, lora_probe
    from ditstack.weights.dense import is_beside

_ROOMS = {
    "attention.dispatch": ("Call", "Declined", "Kernel", "choose_backend", "replace_attention"),
    "attention.masks": ("without_hidden",),
    "attention.rivals": ("Fastest", "rivals"),
    "attention.sparse": ("SparseKernel",),
    "caching.diffusers_caches": ("DiffusersCache",),
    "caching.feature_cache": ("FeatureCache",),
    "caching.features": ("FeatureCache", "cache_attentions", "cache_branches", "cache_trunks"),
    "caching.linears": ("LowRankLinears", "wrong_corrections"),
    "caching.patterns": ("LayerPolicy", "Pattern", "PatternFile", "find_layers"),
    "caching.setting": ("Setting", "follow_setting", "wrong_setting"),
    "calibration.choice": ("choose_setting",),
    "calibration.fits": ("Fit", "Wish", "fit_anchored", "take_anchored", "wrong_anchored"),
    "calibration.gains": ("plain_gains", "principal_bases", "tune_gains"),
    "calibration.patterns.fitting": (
        "fit_along",
        "fit_patterned",
        "take_patterned",
        "wrong_along",
        "wrong_patterned",
    ),
    "calibration.patterns.learning": ("Frame",),
    "recipe.calibration": ("Calibration",),
    "calibration.sampler.fit": ("SamplerFit", "SamplerWish"),
    "compat": ("compile_apart",),
    "errors": ("BadFile", "BadPipeline"),
    "pipeline.discovery": ("trace",),
    "pipeline.fitted_scheduler": ("FittedMultistepScheduler", "process_of"),
    "pipeline.hooks": ("put_beneath",),
    "pipeline.records": ("PassInputs",),
    "pipeline.pipe": ("CALIBRATED", "FULL", "OFF", "REUSED", "UNDECIDED", "Pipe"),
    "pipeline.policy": ("COPIED", "RowPolicy", "StepPolicy"),
    "recipe.adapter": ("Adapter", "Attention", "Cache", "Quantizer", "suggest"),
    "recipe.capabilities": ("Capability", "compute_capability"),
    "recipe.declared": ("Knob", "SearchedFields", "Trunk"),
    "recipe.model": ("Model",),
    "weights.dense": ("is_beside",),
}
_MODULES = {
    "compensation": "calibration.compensation",
    "lora_files": "weights.lora_files",
    "lora_probe": "weights.lora_probe",
}

__all__ = [
    "CALIBRATED",
    "COPIED",
    "FULL",
    "OFF",
    "REUSED",
    "UNDECIDED",
    "Adapter",
    "Attention",
    "BadFile",
    "BadPipeline",
    "Cache",
    "Calibration",
    "Call",
    "Capability",
    "Declined",
    "DiffusersCache",
    "Fastest",
    "FeatureCache",
    "Fit",
    "FittedMultistepScheduler",
    "Frame",
    "Kernel",
    "Knob",
    "LayerPolicy",
    "LowRankLinears",
    "Model",
    "PassInputs",
    "Pattern",
    "PatternFile",
    "Pipe",
    "Quantizer",
    "RowPolicy",
    "SamplerFit",
    "SamplerWish",
    "SearchedFields",
    "Setting",
    "SparseKernel",
    "StepPolicy",
    "Trunk",
    "Wish",
    "cache_attentions",
    "cache_branches",
    "cache_trunks",
    "choose_backend",
    "choose_setting",
    "compensation",
    "compile_apart",
    "compute_capability",
    "find_layers",
    "fit_along",
    "fit_anchored",
    "fit_patterned",
    "follow_setting",
    "is_beside",
    "lora_files",
    "lora_probe",
    "plain_gains",
    "principal_bases",
    "process_of",
    "put_beneath",
    "replace_attention",
    "rivals",
    "suggest",
    "take_anchored",
    "take_patterned",
    "trace",
    "tune_gains",
    "without_hidden",
    "wrong_along",
    "wrong_anchored",
    "wrong_corrections",
    "wrong_patterned",
    "wrong_setting",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name in _MODULES:
        return importlib.import_module(f"ditstack.{_MODULES[name]}")
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"ditstack.{room}"), name)
    raise AttributeError(f"ditstack.plugin has no {name!r}; what a method may import is in ditstack.plugin.__all__")
