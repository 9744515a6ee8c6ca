"""Stack: the handle that `apply` and `load` return: a recipe standing on a pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ditstack.assembly.anatomy import check_parallel, check_uncompiled
from ditstack.assembly.build import build, standing_on, take_down, unchanged
from ditstack.assembly.comparison import Compared, beside, unaccelerated
from ditstack.assembly.departures import Departures
from ditstack.assembly.drift import Drift
from ditstack.assembly.expectations import Expectations
from ditstack.assembly.sample import Pictures, sample
from ditstack.calibration.calibrate import Bar, Tell, aims_before, check_ready, provide_factors, wanting
from ditstack.calibration.certificate import Certificate, certified
from ditstack.calibration.promised import Promised
from ditstack.errors import BadPipeline, StaleFactors
from ditstack.factors import Factors, fingerprint
from ditstack.pipeline.pipe import Off, Pipe
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.origin import origins
from ditstack.recipe.recipe import Recipe, Sampler
from ditstack.report import Report, peak_memory, versions

LOG = logging.getLogger("ditstack")


class Stack:
    """A recipe that stands. Call `pipeline` as ever, or `sample` for pictures with their counts."""

    def __init__(
        self, recipe: Recipe, pipe: Pipe, seconds: dict[str, float], factors: Factors | None = None, weights: str = ""
    ) -> None:
        self.recipe, self.pipe, self.seconds, self.factors = recipe, pipe, seconds, factors
        self._weights = weights
        self._expectations, self._drift, self._refitting = Expectations(pipe), Drift(pipe), False
        self.promised: Promised | None = None
        """What keeps its recipe's promise, where one was asked for."""
        pipe.scheduler = pipe.pipeline.scheduler  # a stage may have fitted another
        check_parallel(pipe)
        pipe.clock.before_call.append(self._look_for_drift)
        self._departures = Departures(pipe)

    def __repr__(self) -> str:
        words = [f"{stage} {adapter.method}" for stage, adapter in self.recipe.stages()]
        gone = "" if standing_on(self.pipeline) is self.pipe else ", removed"
        ran = ", ".join(f"{count} {kind}" for kind, count in self.pipe.passes.steps.items())
        share = f"{self.pipe.passes.macs_ratio:.0%} of the MACs"
        lines = [
            f"Stack {self.recipe.name} on a {type(self.pipeline).__name__}{gone}",
            f"stages: {' > '.join(words)}",
            f"last generation: {ran} steps, {share}" if ran else "no generation yet",
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n  ".join(lines)

    @property
    def notes(self) -> list[str]:
        """What a reader of its pictures should know: of the stack, and of the last call."""
        promised = [] if self.promised is None else self.promised.notes
        return [*self.pipe.notes, *self._departures.notes, *self._drift.notes, *self._expectations.notes, *promised]

    @property
    def departed(self) -> list[str]:
        """Where any call since it stands left what its factors were fitted at, a sentence each."""
        return list(self._departures.seen)

    def _look_for_drift(self, arguments: Mapping[str, Any]) -> None:
        """The pipeline is about to be called: notice what was changed on it since.

        Raises:
            StaleFactors: weights or processors were changed, and factors may not be fitted anew.
            BadPipeline: a transformer was compiled as a whole.
        """
        if self._refitting:
            return
        check_parallel(self.pipe)
        check_uncompiled(self.pipe)
        changed = self._drift.look(self.factors is not None)
        for note in self._drift.notes:
            LOG.warning(note)
        if changed:
            self._follow("; ".join(changed))

    def _follow(self, note: str) -> None:
        """Serve the pipeline as it is now, factors included."""
        if self.factors is not None and not all(
            getattr(one, "calibrate", "auto") == "auto" for _, one in wanting(self.recipe)
        ):
            raise StaleFactors(f"{note}; the factors were fitted to the former ones; call `apply` again")
        self._weights = ""
        self.pipe.passes.recount()
        if self.factors is not None:
            note += "; the factors were refitted"
            self._refitting = True
            try:
                self.factors = provide_factors(self.recipe, self.pipe, anew=True).factors
            finally:
                self._refitting = False
        self._drift.accept()
        LOG.warning(note)
        self.pipe.notes += [note] if note not in self.pipe.notes else []

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline."""
        return self.pipe.pipeline

    @property
    def weights(self) -> str:
        """The fingerprint of the transformer's weights as they run."""
        self._weights = self._weights or fingerprint(self.pipe.transformers)
        return self._weights

    def off(self) -> Off:
        """Switch the cache off: until `on`, or for the length of a `with` block."""
        return Off(self.pipe)

    def on(self) -> None:
        """Switch the cache on again."""
        self.pipe.passes.cache_on = True

    def remove(self) -> None:
        """Give the pipeline back as it was: cache, attention, compiled code and scheduler are taken off.

        Weights that were rounded, or that a LoRA was fused into, stay as they are; that is logged and noted.
        """
        stays = take_down(self.pipe)
        for sentence in stays:
            LOG.warning(f"{sentence}; load the pipeline again to have them as they were")
        self.pipe.notes += [sentence for sentence in stays if sentence not in self.pipe.notes]

    @contextmanager
    def generation(self) -> Iterator[None]:
        """Inside, a denoising loop of your own is accelerated as the pipeline's call is, from `set_timesteps` on."""
        with self.pipe.clock.call():
            yield

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int] | None = None, negative_prompt: str | None = None
    ) -> Pictures:
        """One picture per prompt; seeds count up from the recipe's where none are given."""
        if standing_on(self.pipeline) is not self.pipe:
            raise BadPipeline(
                "this stack was removed, or another recipe was applied since; use what that `apply` returned"
            )
        return self.make(prompts, self._seeds(prompts, seeds), self.recipe.sampler, negative_prompt)

    def compare(
        self, prompts: Sequence[str], seeds: Sequence[int] | None = None, plain: Any = None, negative: str | None = None
    ) -> Compared:
        """Pictures of this stack beside those of its pipeline without it: the report with its figures, and a grid.

        Args:
            plain: a pipeline of the same model, loaded again; needed where this one's weights were rounded.
            negative: the negative prompt of both.

        Raises:
            BadPipeline: nothing unaccelerated is at hand.
        """
        if self.promised is not None:
            self.promised.require_own_sampler()
        with unaccelerated(self.pipe, self.recipe.plain(), plain) as other:
            return beside(self, other, self.recipe.plain().sampler, prompts, self._seeds(prompts, seeds), negative)

    def _seeds(self, prompts: Sequence[str], seeds: Sequence[int] | None) -> list[int]:
        return [self.recipe.seed + place for place in range(len(prompts))] if seeds is None else list(seeds)

    def make(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampler: Sampler,
        negative_prompt: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Pictures:
        """One picture per prompt and seed, sampled as `sampler` says; under a promise each says what was decided.

        Args:
            extra: further arguments of the pipeline's call.
        """
        if self.promised is not None:
            return self.promised.sample(prompts, seeds, sampler, negative_prompt, extra)
        return sample(self.pipe, prompts, seeds, sampler, negative_prompt, extra)

    def promise(self, certificate: Certificate) -> None:
        """From now on pictures are made under a certificate.

        Raises:
            StaleFactors: it was made of something else than what stands.
        """
        certificate.check(self.recipe, self.pipe, self.factors)
        self.promised = Promised(self.pipe, certificate)

    def report(self, pictures: Pictures | None = None) -> Report:
        """What ran in the last generation, and on what."""
        pipe = self.pipe
        denoise = {"denoise": pipe.clock.ended - pipe.clock.first_pass}
        seconds = {**self.seconds, **(pictures.seconds if pictures else denoise)}
        return Report(
            recipe=self.recipe.name,
            resolved=self.recipe.resolved(),
            versions=versions(),
            methods=origins(self.recipe),
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
            each=[asdict(one) for one in pictures.each] if pictures else [],
            compiled=pipe.compiled,
            notes=self.notes,
        )


def apply(
    pipeline: Any,
    recipe: str | Path | Mapping[str, Any] | Recipe,
    tell: Tell = LOG.info,
    changes: Sequence[str] = (),
    promise: bool = False,
) -> Stack:
    """Accelerate a diffusers pipeline that is loaded already, in place.

    A pipeline that carries a stack has its cache, attention and compile stages replaced. Where `apply` raises anything,
    the pipeline is as it was before.

    Args:
        pipeline: of the recipe's model family.
        recipe: a name on the shelf, a path, a dict with the keys of a recipe, or a Recipe.
        tell: told in a sentence what long work is being done, such as calibration.
        changes: such as "cache.interval=5", laid over the recipe.
        promise: take the setting that `ditstack calibrate` certified, and keep the recipe's promise.

    Raises:
        RecipeError, Incompatible, BadPipeline, BadFile, StaleFactors: nothing is changed.
    """
    chosen, certificate = certified(_read(recipe, changes), promise)
    check_ready(chosen, pipeline)
    with unchanged(chosen, pipeline):
        stack = _stand(chosen, pipeline, tell)
        if certificate is not None:
            stack.promise(certificate)
        return stack


def load(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    tell: Tell = LOG.info,
    changes: Sequence[str] = (),
    bar: Bar = lambda part, done, count: None,
    promise: bool = False,
) -> Stack:
    """Load the recipe's own model and stack on it.

    Args:
        tell: told in a sentence what long work is being done, such as calibration.
        bar: told what is being gathered for it, how many prompts are done, and of how many.
        promise: take the setting that `ditstack calibrate` certified, and keep the recipe's promise.
    """
    chosen, certificate = certified(_read(recipe, changes), promise)
    stack = _stand(chosen, None, tell, bar)
    if certificate is not None:
        stack.promise(certificate)
    return stack


def _read(recipe: str | Path | Mapping[str, Any] | Recipe, changes: Sequence[str]) -> Recipe:
    if isinstance(recipe, (str, Path)):
        return Recipe.read(recipe, list(changes))
    if isinstance(recipe, Recipe) and not changes:
        return recipe
    data, name = (recipe.data(), recipe.name) if isinstance(recipe, Recipe) else (recipe, "recipe")
    return Recipe.parse(data, name, list(changes))


def _stand(recipe: Recipe, pipeline: Any, tell: Tell, bar: Bar = lambda part, done, count: None) -> Stack:
    if pipeline is None:
        check_ready(recipe)
    started = time.perf_counter()
    aims = aims_before(recipe, pipeline, tell, bar)
    aimed = time.perf_counter()
    pipe = build(recipe, pipeline)
    built = time.perf_counter()
    provided = provide_factors(recipe, pipe, tell, bar, aims=aims)
    seconds = {"build": built - aimed, "calibrate": time.perf_counter() - built + aimed - started}
    LOG.info("%s is ready: built in %.1f s, factors in %.1f s", recipe.name, *seconds.values())
    return Stack(recipe, pipe, seconds, provided.factors, provided.weights)
