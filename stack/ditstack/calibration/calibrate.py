"""Calibrate: run prompts on the pipe as built, let its stages fit their factors, and keep those where they belong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ditstack.assembly.build import build, check_stack
from ditstack.calibration.aims import Aims, note_aims, plain_aims
from ditstack.calibration.conditions import (
    AIMS,
    PROMPTS,
    TENSORS,
    comparable,
    conditions,
    digest,
    is_current,
    of_prompts,
    of_recipe,
    serve,
)
from ditstack.calibration.run import Bar, CalibrationRun, Partial, Tell
from ditstack.errors import BadFile, BadPipeline
from ditstack.factors import Factors, is_factors, layout, prefix
from ditstack.files import expand, free_folder, home, is_there
from ditstack.folders import own_file
from ditstack.marks import require_own_file
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.calibration import NO_PROMPTS
from ditstack.recipe.recipe import Recipe


def default_file(recipe: Recipe) -> Path:
    """Where a recipe's factors are kept unless it names a file."""
    return home() / "factors" / f"{recipe.name}.safetensors"


def factors_file(recipe: Recipe) -> Path:
    """Where a recipe's factors are."""
    named = next((path for _, adapter in recipe.stages() if (path := adapter.factors_path)), None)
    return expand(named) if named else default_file(recipe)


def wanting(recipe: Recipe) -> list[tuple[str, Adapter]]:
    """The stages that must be fitted, in their order; those that are fitted to all others come last."""
    found = [(stage, adapter) for stage, adapter in recipe.stages() if adapter.wants_factors]
    return sorted(found, key=lambda one: one[1].fits_last)


@dataclass(frozen=True)
class Provided:
    """What a stack's stages were given.

    Attributes:
        factors: None where no stage wants any.
        weights: the fingerprint of the transformers' weights as they run, where it is known: it took reading all of
            them. A stage that put further tensors beside them leaves it unknown.
    """

    factors: Factors | None = None
    weights: str = ""


def provide_factors(
    recipe: Recipe,
    pipe: Pipe,
    tell: Tell = lambda text: None,
    bar: Bar = lambda part, done, count: None,
    anew: bool = False,
    aims: Aims | None = None,
) -> Provided:
    """Load the factors that stages want, or fit them where the recipe says `calibrate: auto`, and put them to use.

    Args:
        anew: pass over those that a file holds.
        aims: what `aims_before` found before the pipe was built.

    Raises:
        StaleFactors: there are factors, fitted to something else, and the recipe does not say `calibrate: auto`.
        BadFile: there are none, or the file is damaged, and the recipe does not say so; or the file is not ours.
    """
    if not wanting(recipe):
        return Provided()
    file, auto = factors_file(recipe), all(one.fits_on_first_use for _, one in wanting(recipe))
    current, before = conditions(recipe, pipe), _names(pipe)
    try:
        factors = None if anew else _loaded(recipe, pipe, file, auto, current)
    except BadFile as error:
        if not (auto and _set_aside(recipe, pipe, file, error, tell)):
            raise
        factors = None
    if factors is None:
        factors = _fit(recipe, pipe, recipe.calibration, file, current, tell, bar, aims or Aims())
    return Provided(factors, current["weights"] if _names(pipe) == before else "")


def check_ready(recipe: Recipe, pipeline: Any = None) -> None:
    """Refuse what cannot stand before any weight of a recipe, or of its baseline, is loaded, rounded or copied.

    Args:
        pipeline: on which it is to stand; None for the recipe's own model.

    Raises:
        DitstackError: in the sentence that `apply` or `load` would give.
    """
    check_stack(recipe, pipeline)
    check_factors(recipe)
    if pipeline is None:
        recipe.model.check_source()


def aims_before(recipe: Recipe, pipeline: Any, tell: Tell, bar: Bar) -> Aims:
    """What stages will be fitted towards on first use, made before the recipe is built: its weights are whole now.

    Args:
        pipeline: on which it will be built; None loads the recipe's own model for it, and lets it go.
    """
    if not wanting(recipe) or not all(one.fits_on_first_use for _, one in wanting(recipe)):
        return Aims()
    file = factors_file(recipe)
    try:
        stated, now = Factors.load(file).conditions, of_recipe(recipe)
    except BadFile:
        stated, now = {}, {"": ""}
    if all(stated.get(name) == one for name, one in now.items()):
        return Aims()
    return plain_aims(recipe, pipeline, recipe.calibration, file, tell, bar)


def check_factors(recipe: Recipe) -> None:
    """Refuse, before any weight is loaded or rounded, factors that cannot serve whatever the weights are.

    Raises:
        BadFile: they are missing or damaged, and may not be fitted; or they may, and there are no prompts to fit on.
        StaleFactors: they were fitted for another recipe.
    """
    if not wanting(recipe):
        return
    if all(one.fits_on_first_use for _, one in wanting(recipe)):
        if not recipe.calibration and not is_there(factors_file(recipe)):
            raise BadFile(NO_PROMPTS)
        return
    factors, now = Factors.load(factors_file(recipe)), of_recipe(recipe)
    others = {name: one for name, one in factors.conditions.items() if name not in now}
    factors.check({**others, **comparable(factors, now)})


def _loaded(recipe: Recipe, pipe: Pipe, file: Path, auto: bool, current: Mapping[str, str]) -> Factors | None:
    """Those of a file, put to use; None where they must be fitted."""
    if auto and not is_there(file):
        return None
    factors = Factors.load(file)
    if auto and not is_current(factors, current):
        return None
    serve(pipe, wanting(recipe), factors, current)
    for stage, adapter in wanting(recipe):
        _take(adapter, pipe, factors.of(stage))
    return factors


def _set_aside(recipe: Recipe, pipe: Pipe, file: Path, error: BadFile, tell: Tell) -> bool:
    """Move a factors file of ours that cannot serve out of the way of a new one, and say so; whether it is ours."""
    if not file.is_file() or not _is_ours(recipe, file):
        return False
    aside = free_folder(file.with_name(f"{file.name}.damaged"))
    os.replace(file, aside)
    note = f"factors were fitted anew, since those there could not serve: {error}; they are set aside as {aside.name}"
    tell(note)
    pipe.notes.append(note)
    return True


def calibrate(
    recipe: Recipe, prompts: Sequence[str], file: Path | None, tell: Tell, bar: Bar = lambda part, done, count: None
) -> Path:
    """Build the recipe, fit its factors on `prompts`, and write them. Killed, it goes on when it is called again.

    Returns:
        The file written.
    """
    if len(prompts) < 2:
        raise BadFile(f"found {len(prompts)} calibration prompts; wanted at least 2, half to fit and half to check")
    target = expand(file) if file else factors_file(recipe)
    if not wanting(recipe):
        raise BadPipeline(
            f"recipe {recipe.name} has nothing to fit: its stages compute all they need as they run{_fittable(recipe)}"
        )
    with own_file(target, lambda path: _is_ours(recipe, path)):
        aims = plain_aims(recipe, None, prompts, target, tell, bar)
        pipe = build(recipe)
        earlier = _earlier(target)
        factors = _fit(recipe, pipe, prompts, target, conditions(recipe, pipe), tell, bar, aims)
    if pipe.policy is not None:
        _tell_change(recipe, CalibrationRun(pipe, prompts, recipe.sampler, tell), factors, earlier)
    return target


def _fittable(recipe: Recipe) -> str:
    """What would give a recipe something to fit."""
    fields = [f"{stage}.{key}: {one}" for stage, adapter in recipe.stages() for key, one in adapter.fittable.items()]
    return f"; write {', '.join(fields)} to have that fitted to your model" if fields else ""


def _fit(
    recipe: Recipe,
    pipe: Pipe,
    prompts: Sequence[str],
    file: Path,
    current: dict[str, str],
    tell: Tell,
    bar: Bar,
    aims: Aims,
) -> Factors:
    """Fit every stage that wants it, in their order: each sees what those before it fitted. Then write the file.

    Args:
        current: the conditions that they are fitted under.
    """
    _require_own(recipe, file)
    aimed = any(adapter.aims_at for _, adapter in wanting(recipe))
    current = current | {PROMPTS: of_prompts(recipe, prompts)} | ({AIMS: aims.told} if aimed else {})
    note_aims(recipe, pipe, aims)
    partial = Partial(file.with_name(f"{file.name}.partial"), {**current, "prompts": digest(list(prompts))}, tell)
    calibration = CalibrationRun(pipe, prompts, recipe.sampler, tell, bar, partial, aims.converged)
    tensors: dict[str, Tensor] = {}
    for stage, adapter in wanting(recipe):
        fitted = partial.fitted(stage)
        if not fitted:
            tell(f"{stage}: fitting to {len(prompts)} prompts")
            with pipe.uncompiled():
                found = adapter.fit(pipe, calibration)
            # laid out as a file gives them back, so that pictures are equal to the last bit
            fitted = {name: one.contiguous() for name, one in found.items()}
            partial.finish(stage, fitted)
        _take(adapter, pipe, fitted)
        tensors |= {prefix(stage) + name: one for name, one in fitted.items()}
    factors = Factors(tensors, {**current, TENSORS: layout(tensors)})
    serve(pipe, wanting(recipe), factors, current)
    _require_own(recipe, file)  # somebody may have put another there meanwhile; what was fitted is kept beside it
    factors.save(file)
    for one in (partial, aims.partial):
        if one is not None:
            one.drop()
    return factors


def _take(adapter: Adapter, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
    """Let a stage use its factors. What passes cost may be other now."""
    adapter.take(pipe, tensors)
    pipe.passes.recount()


def _names(pipe: Pipe) -> set[tuple[str, str]]:
    """The tensors of the transformers."""
    return {(stage, name) for stage, one in pipe.transformers.items() for name in one.state_dict()}


def _earlier(file: Path) -> Factors:
    """The factors that will be replaced; none where there is no whole file."""
    try:
        return Factors.load(file)
    except BadFile:
        return Factors({}, {})


def _tell_change(recipe: Recipe, calibration: CalibrationRun, factors: Factors, earlier: Factors) -> None:
    """Say how far the cache leads from the uncached run, with the new factors and, where they fit, with the former."""
    cache, new, former = recipe.adapters["cache"], factors.of("cache"), earlier.of("cache")
    said = f"cache: final latents are {calibration.miss():.2%} from the uncached ones"
    sizes = {name: one.shape for name, one in new.items()}
    if sizes and sizes == {name: one.shape for name, one in former.items()}:
        cache.take(calibration.pipe, former)
        try:
            said += f"; with the previous factors, {calibration.miss():.2%}"
        finally:
            cache.take(calibration.pipe, new)
    calibration.tell(said)


def _require_own(recipe: Recipe, file: Path) -> None:
    """Refuse to replace what is no factors file, but in the folder that is ditstack's own."""
    require_own_file(file, lambda path: _is_ours(recipe, path))


def _is_ours(recipe: Recipe, file: Path) -> bool:
    return file == default_file(recipe) or is_factors(file)
