"""Stack: the handle that `apply` and `load` return: a recipe standing on a pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ditstack.assembly.build import build
from ditstack.assembly.sample import Pictures, sample
from ditstack.calibration.calibrate import Tell, provide_factors
from ditstack.factors import Factors, fingerprint
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.recipe import Recipe
from ditstack.report import Report, peak_memory, versions


class Stack:
    """A recipe that stands. Call `pipeline` as ever, or `sample` for pictures with their counts."""

    def __init__(
        self, recipe: Recipe, pipe: Pipe, seconds: dict[str, float], factors: Factors | None = None, weights: str = ""
    ) -> None:
        self.recipe, self.pipe, self.seconds, self.factors = recipe, pipe, seconds, factors
        self._weights = weights

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline."""
        return self.pipe.pipeline

    @property
    def weights(self) -> str:
        """The fingerprint of the transformer's weights as they run."""
        self._weights = self._weights or fingerprint(self.pipe.transformers)
        return self._weights

    def off(self) -> _Off:
        """Switch the cache off: until `on`, or for the length of a `with` block."""
        return _Off(self.pipe)

    def on(self) -> None:
        """Switch the cache on again."""
        self.pipe.passes.cache_on = True

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int] | None = None, negative_prompt: str | None = None
    ) -> Pictures:
        """One picture per prompt; seeds count up from the recipe's where none are given."""
        chosen = [self.recipe.seed + place for place in range(len(prompts))] if seeds is None else list(seeds)
        return sample(self.pipe, prompts, chosen, self.recipe.sampler, negative_prompt)

    def report(self, pictures: Pictures | None = None) -> Report:
        """What ran in the last generation, and on what."""
        pipe = self.pipe
        denoise = {"denoise": pipe.clock.ended - pipe.clock.first_pass}
        seconds = {**self.seconds, **(pictures.seconds if pictures else denoise)}
        return Report(
            recipe=self.recipe.name,
            resolved=self.recipe.resolved(),
            versions=versions(),
            machine=describe_machine(),
            device=str(pipe.device),
            weights=self.weights,
            seed=self.recipe.seed,
            seeds=pictures.seeds if pictures else [],
            prompts=pictures.prompts if pictures else [],
            seconds={**seconds, "total": sum(seconds.values())},
            peak_memory=peak_memory(),
            steps=pipe.passes.steps,
            macs=pipe.passes.macs,
            macs_ratio=pipe.passes.macs_ratio,
            compiled=pipe.compiled,
            notes=[*pipe.notes, *pipe.departures],
        )


class _Off:
    """The cache is off from the moment this is made; leaving the `with` block puts it back as it was."""

    def __init__(self, pipe: Pipe) -> None:
        self.passes, self.before = pipe.passes, pipe.passes.cache_on
        self.passes.cache_on = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.passes.cache_on = self.before


def apply(pipeline: Any, recipe: str | Path | Recipe, tell: Tell = lambda text: None) -> Stack:
    """Accelerate a diffusers pipeline that is loaded already, in place.

    Args:
        pipeline: of the recipe's model family.
        recipe: a name on the shelf, a path, or a Recipe.
        tell: told in a sentence what long work is being done, such as calibration.

    Raises:
        RecipeError, Incompatible, BadPipeline: before anything is changed.
    """
    return _stand(recipe if isinstance(recipe, Recipe) else Recipe.read(recipe), pipeline, tell)


def load(recipe: str | Path | Recipe, tell: Tell = lambda text: None) -> Stack:
    """Load the recipe's own model and stack on it."""
    return _stand(recipe if isinstance(recipe, Recipe) else Recipe.read(recipe), None, tell)


def _stand(recipe: Recipe, pipeline: Any, tell: Tell) -> Stack:
    started = time.perf_counter()
    pipe = build(recipe, pipeline)
    built = time.perf_counter()
    provided = provide_factors(recipe, pipe, tell)
    calibrated = time.perf_counter()
    seconds = {"build": built - started, "calibrate": calibrated - built}
    return Stack(recipe, pipe, seconds, provided.factors, provided.weights)
