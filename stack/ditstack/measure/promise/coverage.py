"""Coverage: whether fresh prompts agree with a recipe's certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ditstack.calibration.calibrate import check_ready
from ditstack.calibration.certificate import Certificate, certified
from ditstack.errors import BadFile
from ditstack.maths import conformal
from ditstack.measure.promise.trials import Trials
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load

FRESH = 30_000_000
"""Where the seeds of a check begin."""


@dataclass(frozen=True)
class Coverage:
    """A certificate on fresh prompts."""

    certificate: Certificate
    pictures: int
    broken: int
    drift: str = ""

    @property
    def ok(self) -> bool:
        """Whether so many broken ones are still likely where the promise is kept: else it is refuted."""
        promise = self.certificate.promise
        return self.surprise > 1 - promise.confidence

    @property
    def surprise(self) -> float:
        """How probable it is that so many or more are broken where the promise is just kept."""
        share = self.certificate.promise.share
        return 1 - conformal.chance(self.broken - 1, self.pictures, share) if self.broken else 1.0

    def figures(self) -> dict[str, Any]:
        """For machines."""
        promise = self.certificate.promise.model_dump()
        return {**promise, "pictures": self.pictures, "broken": self.broken, "ok": self.ok, "drift": self.drift}

    def __str__(self) -> str:
        promise = self.certificate.promise
        kept = 1 - self.broken / self.pictures
        verdict = "agrees with the promise" if self.ok else f"refutes the promise (p = {self.surprise:.2g})"
        told = (
            f"promise: {self.broken} of {self.pictures} fresh pictures under {promise.psnr:g} dB: {kept:.4f} kept, "
            f"promised {promise.share:g}; it {verdict}"
        )
        return f"{told}; {self.drift}" if self.drift else told


def coverage(recipe: Recipe, prompts: Sequence[str], tell: Callable[[str], None]) -> Coverage:
    """Whether fresh prompts agree with the recipe's certificate.

    Raises:
        BadFile, StaleFactors: there is no certificate, or it does not fit what runs.
    """
    chosen, certificate = certified(recipe)
    assert certificate is not None
    if not (fresh := certificate.fresh(prompts)):
        raise BadFile(f"all {len(prompts)} prompts were used by the certificate; give others, or more")
    check_ready(chosen)
    trials = Trials(recipe, fresh, FRESH)
    tell(f"{len(fresh)} pictures of the plain baseline")
    trials.make_plain()
    stack = load(chosen)
    stack.promise(certificate)
    tell(f"{len(fresh)} pictures under the certificate")
    found = trials.of(stack, certificate.promise.psnr, len(fresh), "certified", certificate.changes)
    return Coverage(certificate, found.attempt.pictures, found.attempt.broken, certificate.drift(found.scores))
