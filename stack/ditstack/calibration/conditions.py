"""Conditions: everything that factors depend on, in words, so that a refusal can say what was and what is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ditstack.errors import BadFile
from ditstack.factors import Factors, fingerprint, layout
from ditstack.pipeline.pipe import Pipe
from ditstack.pipeline.processors import processors_in_words
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.recipe import Recipe
from ditstack.report import versions

PROMPTS, TENSORS, PROCESSORS, AIMS = "calibration", "tensors", "processors", "aims"
GIVEN = "given"
"""How the condition on prompts begins where they were not the recipe's."""
LOOKED_AT = 1024
"""Values of each tensor of an encoder that its outline holds: it names another encoder, not every flipped bit."""


def conditions(recipe: Recipe, pipe: Pipe, also: Sequence[str] = ()) -> dict[str, str]:
    """The weights as they run, every stage's fields and packages, what conditions them, and the way of sampling.

    Args:
        also: further components of the pipeline that were looked at, such as "vae" where pictures were.
    """
    parts = {*("text_encoder", "image_encoder"), *also, *(name for _, one in recipe.stages() for name in one.fitted_on)}
    found = {
        name: _outline(module)
        for name, module in sorted(getattr(pipe.pipeline, "components", {}).items())
        if isinstance(module, torch.nn.Module) and name.startswith(tuple(parts))
    }
    return {
        "weights": fingerprint(pipe.transformers),
        "scheduler": _scheduler(pipe.pipeline.scheduler),
        **found,
        PROCESSORS: processors_in_words(pipe.transformers),
        **of_recipe(recipe),
    }


def of_recipe(recipe: Recipe) -> dict[str, str]:
    """The conditions that no pipeline is needed for."""
    resolved = recipe.resolved()
    lasting = [stage for stage in recipe.adapters if stage not in ("model", "compile")]
    stages = {stage: _stage(recipe.adapters[stage], resolved[stage]) for stage in lasting}
    sampler = {f"sampler.{key}": str(value) for key, value in resolved["sampler"].items()}
    return {
        "torch": torch.__version__.partition("+")[0],
        PROMPTS: digest(list(recipe.calibration)),
        **sampler,
        **stages,
    }


def of_prompts(recipe: Recipe, prompts: Sequence[str]) -> str:
    """The condition on calibration prompts: the recipe's own (the first of them, too), or others."""
    own = list(recipe.calibration)
    return digest(own) if own and list(prompts) == own[: len(prompts)] else f"{GIVEN} {digest(list(prompts))}"


def is_current(factors: Factors, current: Mapping[str, str]) -> bool:
    """Whether factors were fitted under the present conditions."""
    return not factors.differing(comparable(factors, current))


def serve(pipe: Pipe, wanting: Sequence[tuple[str, Adapter]], factors: Factors, current: Mapping[str, str]) -> None:
    """Refuse factors that do not belong here, and let the pipe know what they were fitted under.

    Raises:
        StaleFactors: they were fitted under other conditions.
        BadFile: its tensors are not those that were fitted, or the stages cannot serve with them; with all reasons.
    """
    factors.check(comparable(factors, current))
    if factors.conditions.get(TENSORS, now := layout(factors.tensors)) != now:
        raise BadFile(
            "the factors file holds other tensors than were fitted: some are missing, renamed or of another shape; "
            "write it again with `ditstack calibrate`"
        )
    reasons = [f"{stage}: {one}" for stage, adapter in wanting for one in adapter.unfit(pipe, factors.of(stage))]
    if reasons:
        told = "\n  ".join(reasons[:20])
        raise BadFile(f"the factors do not fit this pipeline; write them again with `ditstack calibrate`:\n  {told}")
    pipe.fitted_under = dict(factors.conditions)
    pipe.fitted_for = frozenset(name for _, adapter in wanting for name in adapter.fitted_for)


def comparable(factors: Factors, current: Mapping[str, str]) -> dict[str, str]:
    """The present conditions as a file states them: prompts given by hand, and aims, are nobody's to compare."""
    stated = factors.conditions
    by_hand = stated.get(PROMPTS, "").startswith(GIVEN)
    kept = {name: stated[name] for name in (TENSORS, AIMS, *([PROMPTS] if by_hand else [])) if name in stated}
    unsaid = {PROCESSORS} - stated.keys()  # older files say nothing of them
    return {**{name: one for name, one in current.items() if name not in unsaid}, **kept}


def digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _stage(adapter: Adapter, fields: Mapping[str, Any]) -> str:
    """The fields that change what factors mean; where they lie and when they are fitted does not."""
    lasting = {key: value for key, value in fields.items() if key not in adapter.incidental}
    installed = versions()
    packages = {name: installed[name] for name in adapter.packages if name in installed}
    return json.dumps({**lasting, **packages}, sort_keys=True)


def _scheduler(scheduler: Any) -> str:
    config = {key: value for key, value in dict(scheduler.config).items() if not key.startswith("_")}
    own = hasattr(type(scheduler), "shift")  # some take another one after they were made
    shift = scheduler.shift if own else config.get("shift")
    known = {"class": type(scheduler).__name__, **config, **({} if shift is None else {"shift": shift})}
    return json.dumps(known, sort_keys=True, default=str)


def _outline(module: torch.nn.Module) -> str:
    """Names, shapes, dtypes and evenly spread values of a module's parameters: enough to know another one."""
    told = hashlib.sha256(type(module).__name__.encode())
    for name, one in sorted(module.named_parameters()):
        told.update(f"{name} {tuple(one.shape)} {one.dtype}".encode())
        if one.device.type != "meta" and one.numel() and not hasattr(one, "__tensor_flatten__"):
            flat = one.detach().flatten()
            told.update(str(flat[:: max(1, flat.numel() // LOOKED_AT)].double().cpu().tolist()).encode())
    return told.hexdigest()[:16]
