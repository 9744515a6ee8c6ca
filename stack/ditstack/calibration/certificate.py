"""Certificate: which setting of a recipe was proved to keep its promise, on what, and for what it serves.

It is a file of factors beside the recipe's own: checked whole when it is read, and refused where the weights, the
stages, the sampler or the scheduler differ from those that it was made with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from ditstack.assembly.departures import CALLED
from ditstack.calibration.calibrate import default_file
from ditstack.calibration.conditions import PROMPTS, conditions, digest
from ditstack.errors import BadFile, StaleFactors
from ditstack.factors import Factors
from ditstack.files import is_there
from ditstack.maths.conformal import unlike
from ditstack.pipeline.pipe import Pipe
from ditstack.pipeline.samplers import SAMPLER, title
from ditstack.recipe.recipe import Recipe
from ditstack.recipe.sections import Promise
from ditstack.report import FILED

SAID, SUM = "certificate", "fitted tensors"
ALARM = 0.01
"""A drift is told of where so great a difference, or a greater one, has at most this chance."""
FEWEST = 16
"""Pictures before a drift can be told."""


class Attempt(BaseModel):
    """One setting on the calibration prompts."""

    model_config = FILED

    changes: dict[str, Any]
    """Of the recipe: fields by stage."""
    pictures: int
    """Fewer than all where so many were broken before that the rest could not prove it any more."""
    broken: int
    macs: float
    """As a share of the unaccelerated run's."""
    kept: bool
    weights: int | None = None
    """Bytes of the transformers' weights as they run."""

    def __str__(self) -> str:
        verdict = "proved" if self.kept else "not proved"
        return f"{said(self.changes)}: {self.broken} of {self.pictures} broken, {self.macs:.2f} of the MACs: {verdict}"


class Certificate(BaseModel):
    """What is proved, of the chosen setting.

    Attributes:
        scores: of each calibration picture, what can be told of it without an unaccelerated run, by name.
    """

    model_config = FILED | {"arbitrary_types_allowed": True}

    recipe: str
    promise: Promise
    changes: dict[str, Any]
    """Of the recipe, to the chosen setting: fields by stage."""
    pictures: int
    """That it was tested on."""
    broken: int
    proved: float
    """The share that they prove at the promise's confidence."""
    macs: float
    """As a share of the unaccelerated run's."""
    prompts: str
    """A digest of the prompts, and how they were seeded."""
    seen: list[str]
    """A short digest of each of them."""
    tested: list[Attempt]
    """Every setting, the safest first; the first that was not proved ended it."""
    ordered_on: int = 0
    """Further prompts, on which settings were put in that order; 0 where it was known beforehand."""
    passed_over: list[Attempt] = []
    """Settings that were as dear as another one and less safe, on those prompts."""
    conditions: dict[str, str] = {}
    scores: dict[str, list[float]] = {}

    def __str__(self) -> str:
        return (
            f"{said(self.changes)}: {self.broken} of {self.pictures} pictures under {self.promise.psnr:g} dB; "
            f"{self.proved:.4f} of all pictures keep it with confidence {self.promise.confidence:g}; "
            f"{self.macs:.2f} of the MACs"
        )

    @property
    def digest(self) -> str:
        """What tells it from every other one."""
        return digest(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Beside the factors, atomically and under a checksum."""
        tensors = {f"score/{name}": torch.tensor(each, dtype=torch.float64) for name, each in self.scores.items()}
        stated = self.model_dump_json(exclude={"scores", "conditions"})
        Factors(tensors, {**self.conditions, SAID: stated}).save(path)

    @classmethod
    def load(cls, path: Path) -> Certificate:
        """Read a file.

        Raises:
            BadFile: there is none, or it is damaged, or no certificate.
        """
        if not is_there(path):
            raise BadFile(f"there is no certificate {path}; `ditstack calibrate` makes one of a recipe with a promise")
        found = Factors.load(path)
        try:
            stated = json.loads(found.conditions[SAID])
        except KeyError:
            raise BadFile(f"{path} holds factors and no certificate; name another file, or move it away") from None
        known = {name: one for name, one in found.conditions.items() if name != SAID}
        scores = {name.removeprefix("score/"): one.tolist() for name, one in found.tensors.items()}
        return cls(**stated, conditions=known, scores=scores)

    def fresh(self, prompts: Sequence[str]) -> list[str]:
        """Those that it was not made on."""
        seen = set(self.seen)
        return [one for one in prompts if digest(one) not in seen]

    def recipe_of(self, recipe: Recipe) -> Recipe:
        """The recipe at the setting that is certified."""
        return laid_over(recipe, self.changes)

    def check(self, recipe: Recipe, pipe: Pipe, factors: Factors | None) -> None:
        """Refuse to promise anything of what runs where it is something else.

        Raises:
            StaleFactors: another promise, or other weights, stages or ways of sampling, each named.
        """
        if not self.promise.same_as(recipe.quality.promise):
            raise StaleFactors(
                f"the certificate is of another promise: {self.promise}; "
                f"the recipe's is {recipe.quality.promise}; run `ditstack calibrate` again"
            )
        now, known = Factors({}, self.conditions), conditions_of(recipe, pipe, factors)
        if now.differing(known):
            try:
                now.check(known)
            except StaleFactors as error:
                rest = str(error).partition("\n")[2]
                raise StaleFactors(
                    "the certificate does not fit what runs, so nothing is promised; run `ditstack calibrate` again:\n"
                    + rest
                ) from None

    def outside(self, sampler: Mapping[str, Any], others: Sequence[str] = ()) -> str:
        """Why a call is outside of the promise, in a sentence; else nothing.

        Args:
            sampler: how it is called; every field that a call may change.
            others: further arguments that calibration did not use, such as "negative_prompt".
        """
        certified = {key: self.conditions.get(f"sampler.{key}", "") for key in CALLED}
        asked = {key: "" if (value := sampler.get(key)) is None else str(value) for key in CALLED}
        left = [f"{key} {asked[key]} (certified: {certified[key]})" for key in CALLED if asked[key] != certified[key]]
        return ", ".join([*left, *others])

    def drift(self, scores: Mapping[str, Sequence[float]]) -> str:
        """What differs so much from calibration that the prompts may be of another kind, in a sentence; else nothing.

        A test for each score, the alarm shared among them.
        """
        shared = [name for name in self.scores if len(scores.get(name, ())) >= FEWEST]
        found = {name: unlike(scores[name], self.scores[name]) for name in shared}
        odd = [f"{name} (p = {chance:.1g})" for name, chance in found.items() if chance * len(found) <= ALARM]
        if not odd:
            return ""
        return (
            f"the pictures differ from those of calibration in {', '.join(odd)}: "
            "prompts of another kind are outside of the promise; calibrate on prompts like these"
        )


def certificate_file(recipe: Recipe) -> Path:
    """Where a recipe's certificate is kept."""
    return default_file(recipe).with_name(f"{recipe.name}.promise.safetensors")


def certified(recipe: Recipe, promise: bool = True) -> tuple[Recipe, Certificate | None]:
    """The recipe at the setting that keeps its promise, and the certificate; the recipe itself where none is asked for.

    Raises:
        BadFile: it promises nothing, or no setting was certified yet.
    """
    if not promise:
        return recipe, None
    if recipe.quality.promise is None:
        raise BadFile(
            f"recipe {recipe.name} promises nothing; write quality: {{promise: {{psnr: 32}}}}, "
            "or --set quality.promise.psnr=32"
        )
    certificate = Certificate.load(certificate_file(recipe))
    return certificate.recipe_of(recipe), certificate


def conditions_of(recipe: Recipe, pipe: Pipe, factors: Factors | None) -> dict[str, str]:
    """All that a picture depends on but its prompt and seed: the conditions of factors, and the factors themselves."""
    found = conditions(recipe, pipe, also=("vae",))
    found.pop(PROMPTS)
    return {**found, SUM: _digest({} if factors is None else factors.tensors)}


def laid_over(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with fields by stage laid over it; `sampler` is another one, whole."""
    if SAMPLER in changes:
        recipe = Recipe.parse({**recipe.data(), SAMPLER: changes[SAMPLER]}, recipe.name)
    rest = {stage: fields for stage, fields in changes.items() if stage != SAMPLER}
    return recipe.with_(recipe.name, **rest) if rest else recipe


def said(changes: Mapping[str, Any]) -> str:
    """A setting, in a few words."""
    words = [title(fields) if stage == SAMPLER else f"{stage} {_fields(fields)}" for stage, fields in changes.items()]
    return "; ".join(words) or "the recipe as it is"


def _fields(fields: Any) -> str:
    if not isinstance(fields, Mapping):
        return "none"
    return ", ".join(f"{one}" if key == "method" else f"{key} {one}" for key, one in fields.items())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    told = hashlib.sha256()
    for name, one in sorted(tensors.items()):
        told.update(f"{name} {tuple(one.shape)} {one.dtype}".encode())
        told.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()[:16]
