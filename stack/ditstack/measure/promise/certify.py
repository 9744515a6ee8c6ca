"""Certify: the cheapest setting of a recipe that is proved to keep its promise.

Learn-then-test (arXiv 2110.01052) with fixed sequence testing: settings are tested on the same prompts, the safest
first, each at the whole confidence, until one cannot be proved; the last that was proved is the cheapest. That a wrong
one is certified has at most the chance 1 - confidence, whatever the model, the prompts and the settings are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ditstack.calibration.calibrate import check_ready
from ditstack.calibration.certificate import Attempt, Certificate, certificate_file, laid_over, said
from ditstack.calibration.conditions import digest
from ditstack.calibration.promised import watch
from ditstack.calibration.run import Bar, Tell
from ditstack.errors import BadFile
from ditstack.folders import own_folder
from ditstack.maths import conformal
from ditstack.measure.promise.ladder import Changes, front, is_ordered, settings
from ditstack.measure.promise.trials import Found, Trials
from ditstack.recipe.recipe import Recipe
from ditstack.recipe.sections import Promise
from ditstack.stack import Stack, apply, load

SEED = 20_000_000
"""Pictures of a certificate are seeded from here on, far from those that are made and from those of factors."""
FORGIVEN = 1
"""The usual number of calibration pictures forgives so many broken ones."""
ORDERED_ON = 32
"""Prompts that put settings in order, where it is not known."""


def pictures_wanted(promise: Promise) -> tuple[int, int]:
    """How many pictures prove a promise: the fewest that can, and the usual number."""
    return tuple(conformal.pictures_for(promise.share, promise.confidence, broken) for broken in (0, FORGIVEN))  # pyright: ignore[reportReturnType]


def prompts_wanted(recipe: Recipe, ordered: bool = False) -> tuple[int, int]:
    """How many calibration prompts a recipe's promise wants: the fewest, and the usual number.

    Args:
        ordered: whether some put settings in order anyway.
    """
    assert recipe.quality.promise is not None
    least, usual = pictures_wanted(recipe.quality.promise)
    more = ORDERED_ON if ordered or not is_ordered(recipe) else 0
    return least + more, usual + more


def certify(
    recipe: Recipe,
    prompts: Sequence[str],
    tell: Tell,
    bar: Bar = lambda part, done, count: None,
    found: Candidates | None = None,
    written: Callable[[Certificate], Certificate] = lambda one: one,
) -> Certificate | None:
    """Find the cheapest setting that is proved to keep the recipe's promise, and keep its certificate.

    Killed, it goes on where it was when it is called again.

    Args:
        found: finds what is tried; None tries what the promise or the recipe's knob names.
        written: the certificate as it is kept.

    Returns:
        None where not even the safest setting is proved.

    Raises:
        BadFile: there are too few prompts to prove anything.
        RecipeError, Incompatible: a setting that the promise names cannot be tried.
        Unfinished: another process certifies the same recipe.
    """
    promise = recipe.quality.promise
    assert promise is not None
    if found is None:
        check_ready(laid_over(recipe, settings(recipe)[0]))
    ordered_on = 0 if is_ordered(recipe) and found is None else ORDERED_ON
    most = conformal.most_broken(max(0, len(prompts) - ordered_on), promise.share, promise.confidence)
    if most < 0:
        raise BadFile(_too_few(promise, len(prompts), ordered_on))
    file = certificate_file(recipe)
    with own_folder(file.with_suffix(".partial"), "calibrate") as kept:
        run = Certification(recipe, promise, prompts, tell, bar, kept, ordered_on, most, found)
        certificate = run.certificate()
        if certificate is not None:
            certificate = written(certificate)
            certificate.save(file)
    shutil.rmtree(kept, ignore_errors=True)
    return certificate


def _too_few(promise: Promise, found: int, ordered_on: int) -> str:
    least, usual = (one + ordered_on for one in pictures_wanted(promise))
    order = f"{ordered_on} of them to put settings in order, " if ordered_on else ""
    return (
        f"the promise ({promise}) wants at least {least} calibration prompts, better {usual}, {order}of which "
        f"{FORGIVEN} may be broken; found {found}; give --prompts FILE, or promise a smaller share"
    )


@dataclass
class Certification:
    """One search for the cheapest setting.

    Attributes:
        kept: the folder of what was made.
        ordered_on: so many of the prompts put settings in order; the others prove.
        most: how many of the others may be broken.
    """

    recipe: Recipe
    promise: Promise
    prompts: Sequence[str]
    tell: Tell
    bar: Bar
    kept: Path
    ordered_on: int
    most: int
    found: Candidates | None = None
    passed_over: list[Attempt] = field(default_factory=list)
    _last: tuple[Stack, Changes] | None = None

    def certificate(self) -> Certificate | None:
        """The certificate; None where no setting is proved."""
        count = len(self.prompts) - self.ordered_on
        self.tell(f"promise: {self.promise}: {count} prompts, of which {self.most} may be broken")
        ladder = self._ordered() if self.ordered_on else settings(self.recipe)
        best, tested = self._sequence(ladder)
        if best is None:
            self.tell("; ".join(map(str, tested)))
            return None
        chosen = best.attempt
        return Certificate(
            recipe=self.recipe.name,
            promise=self.promise,
            changes=chosen.changes,
            pictures=chosen.pictures,
            broken=chosen.broken,
            proved=conformal.proved(chosen.broken, chosen.pictures, self.promise.confidence),
            macs=chosen.macs,
            prompts=f"{digest(list(self.prompts))}, seeds from {SEED}",
            seen=[digest(one) for one in self.prompts],
            tested=tested,
            conditions=best.conditions,
            scores=best.scores,
            ordered_on=self.ordered_on,
            passed_over=self.passed_over,
        )

    def _ordered(self) -> list[Changes]:
        """Settings, the safest first, as a few prompts of their own tell."""
        trials = self.trials(slice(0, self.ordered_on))
        every = settings(self.recipe, trials.flow) if self.found is None else self.found(self, trials.flow)
        self.tell(f"putting {len(every)} settings in order on {self.ordered_on} further prompts")
        found = [self.of(trials, changes, self.ordered_on, "order: ") for changes in every]
        kept = front([(one.attempt, one.low) for one in found])
        self.passed_over = [one.attempt for one in found if one.attempt not in kept]
        return [one.changes for one in kept]

    def _sequence(self, ladder: Sequence[Changes]) -> tuple[Found | None, list[Attempt]]:
        """Settings from the safest to the cheapest, until one is not proved; and the last that was."""
        trials = self.trials(slice(self.ordered_on, None))
        best: Found | None = None
        tested: list[Attempt] = []
        for changes in ladder:
            found = self.of(trials, changes, self.most)
            tested.append(found.attempt)
            self.tell(str(found.attempt))
            if not found.attempt.kept:
                break
            best = found
        return best, tested

    def trials(self, places: slice) -> Trials:
        """Some of the prompts, with their unaccelerated pictures."""
        first, _, _ = places.indices(len(self.prompts))
        trials = Trials(self.recipe, self.prompts[places], SEED + first, self.bar, self.kept)
        trials.make_plain()
        return trials

    def of(self, trials: Trials, changes: Changes, most: int, why: str = "") -> Found:
        """What becomes of a setting; it ends where more than `most` of its pictures are broken."""
        stack = self._stack(changes)
        return trials.of(stack, self.promise.psnr, most, why + said(changes), changes)

    def _stack(self, changes: Changes) -> Stack:
        """A setting standing: on the pipeline of the last one, where they differ in the cache alone."""
        recipe = laid_over(self.recipe, changes)
        alike = self._last is not None and _but_cache(self._last[1]) == _but_cache(changes)
        stack = apply(self._last[0].pipeline, recipe) if self._last is not None and alike else load(recipe)
        watch(stack.pipe)
        self._last = stack, changes
        return stack


def _but_cache(changes: Changes) -> Changes:
    return {stage: fields for stage, fields in changes.items() if stage != "cache"}


Candidates = Callable[[Certification, bool], list[Changes]]
"""Finds what a certification tries, told whether the model's scheduler integrates a flow."""
