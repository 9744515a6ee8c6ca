"""Promise: the cheapest setting of a recipe that is proved to keep its promise, and whether fresh pictures agree.

Learn-then-test (arXiv 2110.01052) with fixed sequence testing: settings are tested on the same prompts, the safest
first, each at the whole confidence, until one cannot be proved; the last that was proved is the cheapest. That a wrong
one is certified has at most the chance 1 - confidence, whatever the model, the prompts and the settings are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ditstack.calibration.calibrate import Bar, Tell, check_ready
from ditstack.calibration.certificate import Attempt, Certificate, certificate_file, certified, conditions_of, said
from ditstack.calibration.conditions import digest
from ditstack.calibration.promised import scores, watch
from ditstack.errors import BadFile
from ditstack.maths import conformal, fidelity
from ditstack.recipe.recipe import Recipe
from ditstack.recipe.sections import Promise
from ditstack.stack import Stack, apply, load

BATCH = 16
SEED = 20_000_000
"""Pictures of a certificate are seeded from here on, far from those that are made and from those of factors."""
FORGIVEN = 1
"""The usual number of calibration pictures forgives so many broken ones."""
FRESH = 30_000_000
"""Where the seeds of a check begin."""


def pictures_wanted(promise: Promise) -> tuple[int, int]:
    """How many calibration pictures a promise wants: the fewest that can prove it, and the usual number."""
    return tuple(conformal.pictures_for(promise.share, promise.confidence, broken) for broken in (0, FORGIVEN))  # pyright: ignore[reportReturnType]


def settings(recipe: Recipe) -> list[dict[str, Any]]:
    """What is tested, the safest first: each value of the cache's knob, else the recipe as it is."""
    cache = recipe.adapters.get("cache")
    knob = cache.knob if cache is not None else None
    if knob is None:
        return [{}]
    return [{"cache": {knob.field: value}} for value in knob.settings(getattr(cache, knob.field))]


@dataclass
class Trials:
    """Pictures of prompts, with and without acceleration.

    Attributes:
        first_seed: of the first prompt; they count up.
    """

    recipe: Recipe
    prompts: Sequence[str]
    first_seed: int
    tell: Tell = lambda text: None
    bar: Bar = lambda part, done, count: None
    macs: int = 0
    """Of all unaccelerated pictures."""
    _plain: list[Tensor] = field(default_factory=list)

    def make_plain(self) -> None:
        """The unaccelerated pictures, which everything is compared with."""
        stack = load(self.recipe.plain())
        for made, _ in self._batches(stack, "plain"):
            self._plain.append(made.images)
            self.macs += made.macs

    def broken(self, stack: Stack, psnr: float, most: int, part: str) -> tuple[Attempt, dict[str, list[float]]]:
        """How many pictures of a stack are under `psnr`; it ends where more than `most` are. And their scores."""
        broken = pictures = macs = 0
        found: dict[str, list[float]] = {}
        for (made, at), plain in zip(self._batches(stack, part), self._plain, strict=False):
            each = fidelity.psnr(made.images, plain)
            broken, pictures, macs = broken + sum(one < psnr for one in each), at + len(each), macs + made.macs
            for name, values in scores(stack.pipe, made).items():
                found.setdefault(name, []).extend(values)
            if broken > most:
                break
        share = macs / pictures / (self.macs / len(self.prompts))
        return Attempt(changes={}, pictures=pictures, broken=broken, macs=share, kept=broken <= most), found

    def _batches(self, stack: Stack, part: str) -> Iterator[tuple[Any, int]]:
        for at in range(0, len(self.prompts), BATCH):
            prompts = self.prompts[at : at + BATCH]
            yield stack.sample(prompts, [self.first_seed + at + place for place in range(len(prompts))]), at
            self.bar(part, at + len(prompts), len(self.prompts))


def certify(
    recipe: Recipe, prompts: Sequence[str], tell: Tell, bar: Bar = lambda part, done, count: None
) -> Certificate | None:
    """Find the cheapest setting that is proved to keep the recipe's promise, and keep its certificate.

    Returns:
        None where not even the safest setting is proved.

    Raises:
        BadFile: there are too few prompts to prove anything.
    """
    promise = recipe.quality.promise
    assert promise is not None
    most = conformal.most_broken(len(prompts), promise.share, promise.confidence)
    if most < 0:
        least, usual = pictures_wanted(promise)
        raise BadFile(
            f"the promise ({promise}) wants at least {least} calibration prompts, better {usual}, of which "
            f"{FORGIVEN} may be broken; found {len(prompts)}; give --prompts FILE, or promise a smaller share"
        )
    first = settings(recipe)[0]
    check_ready(recipe.with_(recipe.name, **first) if first else recipe)
    tell(f"promise: {promise}: {len(prompts)} prompts, of which {most} may be broken")
    trials = Trials(recipe, prompts, SEED, tell, bar)
    trials.make_plain()
    best, tested = _sequence(recipe, trials, promise, most)
    if best is None:
        tell("; ".join(map(str, tested)))
        return None
    certificate = _certificate(recipe, promise, prompts, best, tested)
    certificate.save(certificate_file(recipe))
    return certificate


Best = tuple[Attempt, dict[str, list[float]], dict[str, str]]


def _certificate(
    recipe: Recipe, promise: Promise, prompts: Sequence[str], best: Best, tested: list[Attempt]
) -> Certificate:
    chosen, found, conditions = best
    return Certificate(
        recipe=recipe.name,
        promise=promise,
        changes=chosen.changes,
        pictures=chosen.pictures,
        broken=chosen.broken,
        proved=conformal.proved(chosen.broken, chosen.pictures, promise.confidence),
        macs=chosen.macs,
        prompts=f"{digest(list(prompts))}, seeds from {SEED}",
        seen=[digest(one) for one in prompts],
        tested=tested,
        conditions=conditions,
        scores=found,
    )


def _sequence(recipe: Recipe, trials: Trials, promise: Promise, most: int) -> tuple[Best | None, list[Attempt]]:
    """Settings from the safest to the cheapest, until one is not proved; the last that was, with its conditions."""
    best: Best | None = None
    tested: list[Attempt] = []
    stack: Stack | None = None
    for changes in settings(recipe):
        one = recipe.with_(recipe.name, **changes) if changes else recipe
        stack = load(one) if stack is None else apply(stack.pipeline, one)
        watch(stack.pipe)
        outcome, found = trials.broken(stack, promise.psnr, most, said(changes))
        tested.append(outcome.model_copy(update={"changes": changes}))
        trials.tell(str(tested[-1]))
        if not outcome.kept:
            break
        best = tested[-1], found, conditions_of(one, stack.pipe, stack.factors)
    return best, tested


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
    trials = Trials(recipe, fresh, FRESH, tell)
    tell(f"{len(fresh)} pictures of the plain baseline")
    trials.make_plain()
    stack = load(chosen)
    stack.promise(certificate)
    tell(f"{len(fresh)} pictures under the certificate")
    tested, found = trials.broken(stack, certificate.promise.psnr, len(fresh), "certified")
    return Coverage(certificate, tested.pictures, tested.broken, certificate.drift(found))
