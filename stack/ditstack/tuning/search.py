"""Search: schedules and sizes of corrections that a budget pays for, by local moves; other prompts judge the winner."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import paired
from ditstack.maths.schedule import even, graded, spreads
from ditstack.recipe.recipe import Recipe
from ditstack.tuning.evaluation import Candidate, ScheduleEvaluation, with_schedule

BATCH = 12
"""How many prompts run at once."""
ROOM = 0.025
"""How much of a budget may be exceeded, relatively: the paths around the blocks run on every step."""

Progress = Callable[[int, int, float], None]
"""Told of the candidates tried, of how many, and of the best one's score."""


@dataclass
class SearchResult:
    """What a search ends with.

    Attributes:
        gain: of the final latent over the start, in dB, on prompts that the search never saw; with its 95 % interval.
        cost: of the uncached run.
        score: of the final latent, in dB, on prompts that the search never saw.
    """

    recipe: Recipe
    start: Candidate
    best: Candidate
    gain: tuple[float, float, float]
    cost: float
    score: float = 0.0


class Search:
    """Local moves from good starts; a candidate that loses on the first prompts runs on no others.

    Args:
        budget: what the whole run may cost, as a share of the uncached one.
        tries: how many candidates are looked at.
    """

    def __init__(self, evaluation: ScheduleEvaluation, budget: float, sizes: list[int | float], tries: int) -> None:
        self.evaluation, self.budget, self.sizes, self.tries = evaluation, budget * (1 + ROOM), sizes, tries
        count = len(evaluation.calibration.prompts)
        kept = count - max(2, count // 3)
        self.parts = _parts(0, kept)
        self.unseen = _parts(kept, count)
        self.rng = random.Random(0)

    def run(self, progress: Progress = lambda done, count, score: None) -> SearchResult:
        starts = list(dict.fromkeys(self.starts()))
        if not starts:
            raise BadPipeline(f"a budget of {self.budget:.3g} of the uncached run's cost allows no schedule; give more")
        start = starts[0]
        for one in starts:
            if self.promising(one, start) and self.score(one) > self.score(start):
                start = one
            progress(0, self.tries, self.score(start))
        best = start
        for done in range(self.tries):
            trial = self.neighbour(best)
            if self.promising(trial, best) and self.score(trial) > self.score(best):
                best = trial
            progress(done + 1, self.tries, self.score(best))
        return self.conclude(start, best)

    def starts(self) -> Iterator[Candidate]:
        """The recipe's own schedule; those that `schedule: fitted` of svdcache starts from, with as many full steps as
        are paid for; even and graded ones with calibrated steps in place of one.
        """
        steps = self.evaluation.recipe.sampler.steps
        own = self.evaluation.own()
        if self.affords(own):
            yield own
        for size in self.sizes:
            most = max((k for k in range(1, steps + 1) if self.affords(spelt(even(steps, k), steps, size))), default=0)
            fewer = max(1, most - 1)
            fulls = [*spreads(steps, most), even(steps, fewer), graded(steps, fewer)] if most else []
            for full in fulls:
                yield self.filled(spelt(full, steps, size))

    def filled(self, candidate: Candidate) -> Candidate:
        """The same, with calibrated steps in the middle of its longest gaps for what the budget leaves."""
        while (after := candidate.letters.replace("F", "C").split("C")) and max(map(len, after)) > 1:
            start, gap = max(_gaps(candidate.letters), key=lambda one: one[1])
            trial = _set(candidate, {start + gap // 2: "C"})
            if not self.affords(trial):
                break
            candidate = trial
        return candidate

    def neighbour(self, candidate: Candidate) -> Candidate:
        """A candidate near by that the budget pays for: letters moved, exchanged for others, or another size."""
        for _ in range(1000):
            trial = candidate
            for _ in range(self.rng.choice((1, 1, 2))):
                trial = self._moved(trial)
            if trial != candidate and self.affords(trial) and trial.letters[0] == "F":
                return trial
        return candidate

    def _moved(self, candidate: Candidate) -> Candidate:
        letters, rng = candidate.letters, self.rng
        at = rng.choice([i for i, one in enumerate(letters) if i and one in "FC"] or [len(letters) - 1])
        move = rng.choice(("step", "step", "step", "swap", "cheaper", "dearer", "rest", "size"))
        if move == "step":
            to = at + rng.choice((-2, -1, 1, 2))
            return _set(candidate, {at: letters[to], to: letters[at]}) if 0 < to < len(letters) else candidate
        if move == "swap":
            to = rng.randrange(1, len(letters))
            return _set(candidate, {at: letters[to], to: letters[at]})
        if move == "cheaper":
            others = {
                i: "C" for i in rng.sample(range(1, len(letters)), rng.choice((0, 1, 2, 3))) if letters[i] in "SR"
            }
            return _set(candidate, {at: "S" if letters[at] == "C" else "C", **others})
        if move == "dearer":
            spared = [i for i, one in enumerate(letters) if one == "C" and i != at]
            taken = rng.sample(spared, min(len(spared), rng.choice((1, 2, 3))))
            return _set(candidate, {at: "F", **dict.fromkeys(taken, "S")})
        if move == "rest":
            skipped = rng.choice([i for i, one in enumerate(letters) if one in "SR"] or [at])
            return _set(candidate, {skipped: "S" if letters[skipped] == "R" else "R"})
        return Candidate(letters, rng.choice(self.sizes))

    def affords(self, candidate: Candidate) -> bool:
        return self.evaluation.cost(candidate) <= self.budget

    def promising(self, trial: Candidate, best: Candidate) -> bool:
        return _mean(self.evaluation.scores(trial, self.parts[0])) > _mean(self.evaluation.scores(best, self.parts[0]))

    def score(self, candidate: Candidate) -> float:
        return _mean([one for part in self.parts for one in self.evaluation.scores(candidate, part)])

    def conclude(self, start: Candidate, best: Candidate) -> SearchResult:
        """Fit the winner's factors on its own schedule, and ask the prompts that the search never saw."""
        evaluation = self.evaluation
        before = [one for part in self.unseen for one in evaluation.scores(start, part)]
        evaluation.refit(best, prompts=self.unseen[0].start)
        after = [one for part in self.unseen for one in evaluation.scores(best, part)]
        gain = paired(after, before)
        recipe = with_schedule(evaluation.recipe, best)
        return SearchResult(recipe, start, best, gain, evaluation.cost(best), _mean(after))


def spelt(full: tuple[int, ...], steps: int, size: int | float) -> Candidate:
    """Forecast steps between the full ones."""
    return Candidate("".join("F" if step in full else "S" for step in range(steps)), size)


def _set(candidate: Candidate, letters: dict[int, str]) -> Candidate:
    return Candidate("".join(letters.get(i, one) for i, one in enumerate(candidate.letters)), candidate.size)


def _gaps(letters: str) -> list[tuple[int, int]]:
    """Where runs of skipped steps start, and how long they are."""
    runs: list[tuple[int, int]] = []
    for i, one in enumerate(letters):
        if one in "SR" and i and letters[i - 1] in "SR":
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        elif one in "SR":
            runs.append((i, 1))
    return runs


def _parts(start: int, stop: int) -> list[range]:
    return [range(at, min(at + BATCH, stop)) for at in range(start, stop, BATCH)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
