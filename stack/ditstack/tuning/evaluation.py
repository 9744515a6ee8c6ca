"""Schedule evaluation: how near a cached run ends, and what it costs, by its schedule and the size of its corrections.

What a step's own error is, on the uncached trajectory, misleads: errors feed back and cancel. So every candidate runs,
and counts by how near it ends to the uncached run. Factors are fitted once for each size and serve every candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import Tensor

from ditstack.assembly.build import build
from ditstack.calibration.calibrate import wanting
from ditstack.calibration.run import CalibrationRun
from ditstack.errors import BadPipeline
from ditstack.factors import fingerprint
from ditstack.maths.fidelity import decibels
from ditstack.maths.schedule import KINDS, Word
from ditstack.pipeline import samplers
from ditstack.pipeline.clock import now
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.declared import SearchedFields
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack.tuning.kept import SCORES, Kept

CACHE = "cache"
FITTED_ON = 4
"""How many prompts factors are fitted on while candidates are compared."""
WAVE = "F (SC)..."
"""The schedule that the factors of all candidates are fitted on."""
ALL_FULL = "F..."


@dataclass(frozen=True)
class Candidate:
    """A schedule, a letter for each step, and how large its corrections are, in the cache's own words."""

    letters: str
    size: int | float


class ScheduleEvaluation:
    """The cached run as a function of a candidate, on one pipe.

    Args:
        timed: whether a step costs its seconds, not its multiply-accumulates.
        beside: a recipe with another sampler: its uncached run is what is aimed at, and what costs are shares of.
    """

    beside: Recipe | None = None

    def __init__(
        self,
        recipe: Recipe,
        prompts: Sequence[str],
        notes: Path | None = None,
        timed: bool = False,
        beside: Recipe | None = None,
    ) -> None:
        self.timed, self.beside = timed, beside
        cache, fields = searched(recipe)
        self.recipe, self.size = recipe, getattr(cache, fields.size)
        beside_the_cache = _fitted(recipe)  # before it is built: two models never lie in memory together
        self.pipe = build(with_schedule(recipe, Candidate("F" * recipe.sampler.steps, self.size)))
        for adapter, tensors in beside_the_cache:
            adapter.take(self.pipe, tensors)
        self.pipe.scheduler = self.pipe.pipeline.scheduler
        self.calibration = CalibrationRun(self.pipe, prompts, recipe.sampler, _quiet)
        weights = fingerprint(self.pipe.transformers)
        conditions = {"recipe": recipe.resolved(), "prompts": list(prompts), "weights": weights}
        self.notes = Kept(SCORES, notes, conditions | ({"beside": beside.resolved()["sampler"]} if beside else {}))
        self._aims: dict[range, Tensor] = {}
        self._factors: dict[int | float, dict[str, Tensor]] = {}

    def own(self) -> Candidate:
        """What the recipe says itself."""
        cache, fields = searched(self.recipe)
        letters = Word.read(getattr(cache, fields.schedule)).letters(self.recipe.sampler.steps)
        return Candidate(letters, self.size)

    def scores(self, candidate: Candidate, places: range) -> list[float]:
        """Of each prompt, -20 log10 of the final latent's relative error: dB, more is better."""
        key = _key(candidate, places)
        if key not in self.notes.known:
            self.follow(candidate)
            made = self.calibration.latents(places)
            self.notes.add(key, decibels(made, self._aim(places)))
        return self.notes.known[key]

    def follow(self, candidate: Candidate) -> None:
        """Let the pipe run like this."""
        tensors = self._fitted(candidate.size) if "C" in candidate.letters else {}
        cache = self._schedule(candidate)
        if any(self._factors.values()):
            cache.take(self.pipe, tensors)

    def shares(self, size: int | float) -> dict[str, float]:
        """What a step of each letter costs of an uncached one; a full one also projects what calibrated ones need."""
        key = f"{'seconds' if self.timed else 'macs'} {size}"
        if key not in self.notes.known:
            steps = self.recipe.sampler.steps
            self.follow(Candidate(("FF" + "CSCSF" * steps)[:steps], size))
            uncached, cached = self._seconds(cached=False), self._seconds(cached=True)
            costs = {kind: one / uncached["full"] for kind, one in cached.items()}
            costs = costs if self.timed else self.pipe.passes.shares
            self.notes.add(key, [costs.get(KINDS[letter], 0.0) for letter in "FCS"])
        full, calibrated, forecast = self.notes.known[key]
        return {"F": full, "C": calibrated, "S": forecast, "R": forecast}

    def _seconds(self, cached: bool) -> dict[str, float]:
        """The median of a step of one generation, by its kind."""
        took: dict[str, list[float]] = {}
        times: list[float] = []

        def tick(done: int, steps: int) -> None:
            times.append(now())
            if len(times) > 1:
                took.setdefault(self.pipe.passes.by_step[done - 1], []).append(times[-1] - times[-2])

        self.pipe.clock.on_tick.append(tick)
        try:
            (self.calibration.latents if cached else self.calibration.uncached_latents)(range(1))
        finally:
            self.pipe.clock.on_tick.remove(tick)
        return {kind: median(seconds) for kind, seconds in took.items()}

    def cost(self, candidate: Candidate) -> float:
        """Of the whole run, as a share of the uncached one."""
        shares = self.shares(candidate.size)
        if "C" not in candidate.letters:
            shares = {**shares, "F": 1.0}
        steps = (self.beside or self.recipe).sampler.steps
        return sum(shares[letter] for letter in candidate.letters) / steps

    def refit(self, candidate: Candidate, prompts: int) -> None:
        """From now on factors fitted on this candidate's own schedule; what it scored with others is forgotten."""
        self._factors[candidate.size] = self._fit(candidate, prompts)
        known, start = self.notes.known, _key(candidate, range(0)).removesuffix("0-0")
        self.notes.known = {key: values for key, values in known.items() if not key.startswith(start)}

    def _fitted(self, size: int | float) -> dict[str, Tensor]:
        if size not in self._factors:
            self._factors[size] = self._fit(Candidate(WAVE, size), FITTED_ON)
        return self._factors[size]

    def _fit(self, candidate: Candidate, prompts: int) -> dict[str, Tensor]:
        cache = self._schedule(candidate)
        few = CalibrationRun(self.pipe, self.calibration.prompts[:prompts], self.recipe.sampler, _quiet)
        return cache.fit(self.pipe, few) if cache.wants_factors else {}

    def _schedule(self, candidate: Candidate) -> Adapter:
        """Let the pipe's steps run as these letters say; the cache that would have them from its recipe."""
        assert self.pipe.policy is not None
        self.pipe.policy.follow(Word.read(candidate.letters).kinds)
        return with_schedule(self.recipe, candidate).adapters[CACHE]

    def _aim(self, places: range) -> Tensor:
        if places not in self._aims:
            run = self.calibration
            if self.beside is not None:  # built for this alone, so that two models never stay in memory
                plain = self.beside.with_(cache=None)
                run = CalibrationRun(build(plain), run.prompts, plain.sampler, _quiet)
            self._aims[places] = run.uncached_latents(places)
        return self._aims[places]


def _fitted(recipe: Recipe) -> list[tuple[Adapter, dict[str, Tensor]]]:
    """What stands beside the cache and is fitted, such as a sampler, with the factors of the recipe without a cache.

    Raises:
        BadFile, StaleFactors: they are not there, and may not be fitted now.
    """
    uncached = recipe.with_(f"{recipe.name} without cache", **{CACHE: None})
    if not (stages := wanting(uncached)):
        return []
    factors = load(uncached).factors
    assert factors is not None
    return [(adapter, factors.of(stage)) for stage, adapter in stages]


def searched(recipe: Recipe) -> tuple[Adapter, SearchedFields]:
    """A recipe's cache, and what it declares of its schedule.

    Raises:
        BadPipeline: its cache has no schedule of letters.
    """
    cache = recipe.adapters.get(CACHE)
    if cache is None or cache.searched is None:
        raise BadPipeline(f"the cache of {recipe.name} has no schedule of letters (F, C, S, R) that could be searched")
    return cache, cache.searched


def over(recipe: Recipe, word: str) -> Recipe:
    """The recipe on another sampler, such as "unipc-20"; a schedule of other steps begins with every step full.

    Raises:
        RecipeError: the word names no solver.
        BadPipeline: its cache has no schedule of letters.
    """
    cache, fields = searched(recipe)
    data = recipe.resolved()
    sampler = samplers.named(data["sampler"], word)
    own = {fields.schedule: ALL_FULL} if cache.schedule_steps not in (None, sampler["steps"]) else {}
    return Recipe.parse({**data, "sampler": sampler, CACHE: {**data[CACHE], **own}}, f"{recipe.name} {word}")


def with_schedule(recipe: Recipe, candidate: Candidate) -> Recipe:
    """The recipe with another schedule and size of corrections.

    Raises:
        BadPipeline: its cache has no schedule of letters.
    """
    _, fields = searched(recipe)
    return recipe.with_(recipe.name, **{CACHE: {fields.schedule: candidate.letters, fields.size: candidate.size}})


def _key(candidate: Candidate, places: range) -> str:
    return f"{candidate.letters} {candidate.size} {places.start}-{places.stop}"


def _quiet(text: str) -> None:
    """Candidates are many; what each fit has to say is not told."""
