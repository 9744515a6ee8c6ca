"""Trials: the cached run as a function of its schedule and the size of its corrections: how near it ends, its cost.

What a step's own error is, on the uncached trajectory, misleads: errors feed back and cancel. So every candidate runs,
and counts by how near it ends to the uncached run. Factors are fitted once for each size and serve every candidate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ditstack.build import build
from ditstack.errors import BadFile, BadPipeline
from ditstack.factors import Factors, fingerprint
from ditstack.files import write_atomically
from ditstack.quality import relative_l2
from ditstack.recipe import Recipe
from ditstack.rehearsal import Rehearsal
from ditstack.schedule import KINDS

FITTED_ON = 4
"""How many prompts factors are fitted on while candidates are compared."""
WAVE = "F (SC)..."
"""The schedule that the factors of all candidates are fitted on."""


@dataclass(frozen=True)
class Choice:
    """A schedule, a letter for each step, and the size of its corrections: their rank, or where it is set, `macs`."""

    letters: str
    size: int | float


class Notes:
    """What runs have told, by what ran: a file that is replaced whole, so that a killed search goes on where it was.

    Args:
        path: None keeps nothing.
        conditions: what all of it depends on; a file that was begun under others is begun anew.
    """

    def __init__(self, path: Path | None, conditions: dict[str, Any]) -> None:
        self.path, self.conditions = path, conditions
        self.known: dict[str, list[float]] = {}
        if path is not None and path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise BadFile(f"{path} is not a whole file of notes of a search; remove it to begin anew") from None
            if found["conditions"] == conditions:
                self.known = found["known"]

    def add(self, key: str, values: list[float]) -> list[float]:
        self.known[key] = values
        if self.path is not None:
            data = {"conditions": self.conditions, "known": self.known}
            write_atomically(self.path, json.dumps(data).encode())
        return values

    def drop(self) -> None:
        """The search is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Trials:
    """The cached run as a function of a choice, on one pipe."""

    def __init__(self, recipe: Recipe, prompts: Sequence[str], notes: Path | None = None) -> None:
        self.recipe, self.size = recipe, recipe.resolved().get("cache", {}).get(sized_by(recipe), 0)
        self.pipe = build(with_schedule(recipe, Choice("F" * recipe.sampler.steps, self.size)))
        self.rehearsal = Rehearsal(self.pipe, prompts, recipe.sampler, _quiet)
        weights = fingerprint(self.pipe.transformers)
        self.notes = Notes(notes, {"recipe": recipe.resolved(), "prompts": list(prompts), "weights": weights})
        self._aims: dict[range, Tensor] = {}
        self._factors: dict[int | float, Factors] = {}

    def own(self) -> Choice:
        """What the recipe says itself."""
        cache: Any = self.recipe.adapters["cache"]
        return Choice(cache.word.letters(self.recipe.sampler.steps), self.size)

    def scores(self, choice: Choice, places: range) -> list[float]:
        """Of each prompt, -20 log10 of the final latent's relative error: dB, more is better."""
        key = _key(choice, places)
        if key not in self.notes.known:
            self.follow(choice)
            made = self.rehearsal.latents(places)
            misses = relative_l2(made, self._aim(places))
            self.notes.add(key, [-20 * math.log10(max(miss, 1e-9)) for miss in misses])
        return self.notes.known[key]

    def follow(self, choice: Choice) -> None:
        """Let the pipe run like this."""
        assert self.pipe.cadence is not None
        cache: Any = with_schedule(self.recipe, choice).adapters["cache"]
        self.pipe.cadence.follow(cache.kinds)
        self.pipe.factors = self._fitted(choice.size) if "C" in choice.letters else Factors({}, {})

    def shares(self, size: int | float) -> dict[str, float]:
        """What a step of each letter costs of an uncached one; a full one also projects what calibrated ones need."""
        key = f"shares {size}"
        if key not in self.notes.known:
            steps = self.recipe.sampler.steps
            self.follow(Choice(("FFCS" + "S" * steps)[:steps], size))
            self.pipe.macs.clear()
            with self.pipe.without_cache():
                self.rehearsal.latents(range(1))
            self.rehearsal.latents(range(1))
            costs: dict[str, int] = {}
            for (_, kind, _), macs in self.pipe.macs.items():
                costs[kind] = costs.get(kind, 0) + macs
            self.notes.add(key, [costs.get(KINDS[letter], 0) / costs["off"] for letter in "FCS"])
        full, calibrated, forecast = self.notes.known[key]
        return {"F": full, "C": calibrated, "S": forecast, "R": forecast}

    def cost(self, choice: Choice) -> float:
        """Of the whole run, as a share of the uncached one."""
        shares = self.shares(choice.size)
        if "C" not in choice.letters:
            shares = {**shares, "F": 1.0}
        return sum(shares[letter] for letter in choice.letters) / len(choice.letters)

    def refitted(self, choice: Choice, prompts: int, places: range) -> list[float]:
        """The scores with factors fitted on the choice's own schedule."""
        self._factors[choice.size] = self._fit(choice, prompts)
        self.notes.known.pop(_key(choice, places), None)
        return self.scores(choice, places)

    def _fitted(self, size: int | float) -> Factors:
        if size not in self._factors:
            self._factors[size] = self._fit(Choice(WAVE, size), FITTED_ON)
        return self._factors[size]

    def _fit(self, choice: Choice, prompts: int) -> Factors:
        assert self.pipe.cadence is not None
        cache: Any = with_schedule(self.recipe, choice).adapters["cache"]
        self.pipe.cadence.follow(cache.kinds)
        few = Rehearsal(self.pipe, self.rehearsal.prompts[:prompts], self.recipe.sampler, _quiet)
        return Factors(cache.fit(self.pipe, few), {}) if cache.wants_factors else Factors({}, {})

    def _aim(self, places: range) -> Tensor:
        if places not in self._aims:
            self._aims[places] = self.rehearsal.uncached_latents(places)
        return self._aims[places]


def sized_by(recipe: Recipe) -> str:
    """The field that says how large the cache's corrections are."""
    return "rank" if getattr(recipe.adapters.get("cache"), "macs", None) is None else "macs"


def with_schedule(recipe: Recipe, choice: Choice) -> Recipe:
    """The recipe with another schedule and rank.

    Raises:
        BadPipeline: its cache has no schedule of letters.
    """
    data = recipe.resolved()
    if not isinstance(data.get("cache", {}).get("schedule"), str) or not hasattr(recipe.adapters["cache"], "word"):
        raise BadPipeline(f"the cache of {recipe.name} has no schedule of letters (F, C, S, R) that could be searched")
    data["cache"] = {**data["cache"], "schedule": choice.letters, sized_by(recipe): choice.size}
    return Recipe.parse(data, recipe.name)


def _key(choice: Choice, places: range) -> str:
    return f"{choice.letters} {choice.size} {places.start}-{places.stop}"


def _quiet(text: str) -> None:
    """Candidates are many; what each fit has to say is not told."""
