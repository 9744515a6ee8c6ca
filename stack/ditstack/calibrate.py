"""Calibrate: run prompts on the pipe as built, let its stages fit their factors, and keep those where they belong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ditstack.adapter import Adapter
from ditstack.build import build
from ditstack.errors import BadFile, BadPipeline
from ditstack.factors import Factors, fingerprint, prefix
from ditstack.pipe import Pipe
from ditstack.recipe import Recipe, Sampler
from ditstack.sample import sample

Tell = Callable[[str], None]

SEED = 10_000_000
"""Calibration seeds start here, far from those that pictures are made with."""


@dataclass
class Rehearsal:
    """Calibration prompts that can be run on a pipe again and again, always from the same noise."""

    pipe: Pipe
    prompts: Sequence[str]
    sampler: Sampler
    tell: Tell

    def latents(self, places: range | None = None) -> Tensor:
        """The final latents of some of the prompts, with the cache as it stands now."""
        chosen = places or range(len(self.prompts))
        prompts, seeds = [self.prompts[place] for place in chosen], [SEED + place for place in chosen]
        return sample(self.pipe, prompts, seeds, self.sampler).latents

    def uncached_latents(self, places: range | None = None) -> Tensor:
        """The same without the cache: what its forecasts aim at."""
        with self.pipe.without_cache():
            return self.latents(places)


def conditions(recipe: Recipe, pipe: Pipe) -> dict[str, str]:
    """What factors depend on: the weights as they run, every stage's fields, and the way of sampling."""
    resolved = recipe.resolved()
    lasting = [stage for stage in recipe.adapters if stage not in ("model", "compile")]
    stages = {stage: _digest(_lasting(resolved[stage])) for stage in lasting}
    sampler = {f"sampler.{key}": str(value) for key, value in resolved["sampler"].items()}
    return {"weights": fingerprint(pipe.transformers), **stages, **sampler}


def default_file(recipe: Recipe) -> Path:
    """Where a recipe's factors are kept unless it names a file."""
    home = Path(os.environ.get("DITSTACK_HOME") or Path.home() / ".cache" / "ditstack")
    return home / "factors" / f"{recipe.name}.safetensors"


def factors_file(recipe: Recipe) -> Path:
    """Where a recipe's factors are."""
    named = getattr(recipe.adapters.get("cache"), "factors", None)
    return Path(named).expanduser() if named else default_file(recipe)


def wanting(recipe: Recipe) -> list[tuple[str, Adapter]]:
    """The stages that must be fitted, in their order."""
    return [(stage, adapter) for stage, adapter in recipe.stages() if adapter.wants_factors]


def provide_factors(recipe: Recipe, pipe: Pipe, tell: Tell = lambda text: None) -> None:
    """Load the factors that stages want, or fit them where the recipe says `calibrate: auto`.

    Raises:
        StaleFactors: there are factors, fitted to something else, and the recipe does not say `calibrate: auto`.
        BadFile: there are none, or the file is torn.
    """
    if not wanting(recipe):
        return
    file, auto = factors_file(recipe), all(getattr(one, "calibrate", "auto") == "auto" for _, one in wanting(recipe))
    current = conditions(recipe, pipe)
    if file.is_file() or not auto:
        factors = Factors.load(file)
        if not auto or factors.conditions == current:
            factors.check(current)
            for stage, adapter in wanting(recipe):
                adapter.take(pipe, factors.of(stage))
            pipe.factors = factors
            return
    _fit(recipe, pipe, current, recipe.calibration, tell).save(file)


def calibrate(recipe: Recipe, prompts: Sequence[str], file: Path | None, tell: Tell) -> Path:
    """Build the recipe, fit its factors on `prompts`, and write them.

    Returns:
        The file written.
    """
    if len(prompts) < 2:
        raise BadFile(f"found {len(prompts)} calibration prompts; wanted at least 2, half to fit and half to check")
    pipe = build(recipe)
    if not wanting(recipe):
        raise BadPipeline(f"recipe {recipe.name} has nothing to fit: its stages compute all they need as they run")
    factors = _fit(recipe, pipe, conditions(recipe, pipe), prompts, tell)
    target = file or factors_file(recipe)
    factors.save(target)
    return target


def _fit(recipe: Recipe, pipe: Pipe, current: Mapping[str, str], prompts: Sequence[str], tell: Tell) -> Factors:
    """Fit every stage that wants it, in their order: each sees what those before it fitted."""
    tensors: dict[str, Tensor] = {}
    for stage, adapter in wanting(recipe):
        with pipe.uncompiled():
            found = adapter.fit(pipe, Rehearsal(pipe, prompts, recipe.sampler, tell))
        # laid out as a file gives them back, so that pictures are equal to the last bit
        fitted = {name: one.contiguous() for name, one in found.items()}
        adapter.take(pipe, fitted)
        tensors |= {prefix(stage) + name: one for name, one in fitted.items()}
    pipe.factors = Factors(tensors, dict(current))
    return pipe.factors


def _lasting(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that change what factors mean; where they lie and when they are fitted does not."""
    return {key: value for key, value in fields.items() if key not in ("factors", "calibrate")}


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
