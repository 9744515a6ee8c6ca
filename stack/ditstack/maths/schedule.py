"""Schedules: how the transformer runs on each of a generation's steps."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {"F": "full", "C": "calibrated", "S": "forecast", "R": "reused"}

START, GRADE, CUT = 0.83, 1.15, 0.5
STARTS, GRADES, CUTS = (0.5, 0.67, 1.0), (1.15, 1.0, 1.35), (0.5, 0.0)
"""Of a graded schedule: its first gaps as a share of even ones, how the others grow, and how much the last one lacks.
Chosen on calibration prompts of the embedded model, at 5 to 17 full steps of 20 to 50."""


def paper(steps: int, interval: int, first_enhance: int) -> tuple[int, ...]:
    """The first `first_enhance` steps, then one after every interval - 1 skipped ones (SVD-Cache, arXiv 2601.07396)."""
    full: list[int] = []
    for step in range(steps):
        if step < first_enhance or not full or step - full[-1] >= interval:
            full.append(step)
    return tuple(full)


def even(steps: int, count: int) -> tuple[int, ...]:
    """`count` full steps spread evenly, the first step among them and no dense warm-up."""
    count = min(count, steps)
    return tuple(round(place * steps / count) for place in range(count))


def graded(steps: int, count: int, start: float = START, grade: float = GRADE, cut: float = CUT) -> tuple[int, ...]:
    """`count` full steps, the first step among them: two short and equal gaps, then gaps that grow, the last cut short.

    Pictures are decided early, and a forecast needs two full steps before it has a slope, which it must not stretch
    over a gap longer than the one that it was found in. Fewer than four are spread evenly.
    """
    count = min(count, steps)
    if count < 4:
        return even(steps, count)
    first = max(1, round(start * steps / count))
    full = [0, first, 2 * first]
    for place in range(1, count - 2):
        full.append(round(full[2] + (steps - full[2]) * (place / (count - 2 - cut)) ** grade))
    for place in range(1, count):
        full[place] = min(max(full[place], full[place - 1] + first), steps - (count - place))
    return tuple(full)


def spreads(steps: int, count: int) -> list[tuple[int, ...]]:
    """Ways to spread `count` full steps, the default first: graded by several constants, and even ones."""
    starts = [START, *STARTS]
    found = [graded(steps, count, start, grade, cut) for grade in GRADES for cut in CUTS for start in starts]
    return list(dict.fromkeys([graded(steps, count), even(steps, count), *found]))


def nearby(full: Sequence[int], steps: int) -> list[tuple[int, ...]]:
    """Schedules one move away: a full step, or all from one on, comes one or two steps earlier or later."""
    found = []
    for place, by, along in itertools.product(range(1, len(full)), (-1, 1, -2, 2), (False, True)):
        moved = [step + by * (at >= place if along else at == place) for at, step in enumerate(full)]
        if all(a < b for a, b in itertools.pairwise([*moved, steps])):
            found.append(tuple(moved))
    return list(dict.fromkeys(found))


def even_by_interval(steps: int, interval: int) -> tuple[int, ...]:
    """One full step in `interval`, spread evenly."""
    return even(steps, math.ceil(steps / interval))


def ending(full: tuple[int, ...], steps: int, last_full: int) -> tuple[int, ...]:
    """The same schedule with its last `last_full` steps full."""
    return tuple(sorted({*full, *range(max(0, steps - last_full), steps)}))


def spell(full: Sequence[int], steps: int, skipped: str) -> tuple[str, ...]:
    """The kind of every step: full on those named, `skipped` on the others."""
    return tuple(KINDS["F"] if step in full else skipped for step in range(steps))


@dataclass(frozen=True)
class Word:
    """A schedule spelt out, a letter for each step: F full, C calibrated, S forecast, R reused.

    Attributes:
        start: how it begins.
        again: what follows it until the generation ends; empty where nothing does.
    """

    start: str
    again: str = ""

    @classmethod
    def read(cls, text: str) -> Word:
        """Read "FSCS FSS", with counts "F 3(SCS)", "6S", and "F (SCF)..." or "FSCS..." that go on to the end.

        Raises:
            ValueError: it is none of these, or its first step is not full.
        """
        plain = "".join(text.split())
        endless = plain.endswith("...")
        if tail := re.fullmatch(r"(.*[A-Z)])?\(([^()]*)\)\.\.\.", plain):
            start, again = _unfold(tail[1] or ""), _unfold(tail[2])
        elif endless:
            start, again = "", _unfold(plain.removesuffix("..."))
        else:
            start, again = _unfold(plain), ""
        if not re.fullmatch("F[FCSR]*", start + again) or (endless and not again):
            raise ValueError(
                "wanted F (full), C (calibrated), S (forecast) and R (reused), the first of them F: FSCS FSS, "
                "F 3(SCS), or FSCS... to the end"
            )
        return cls(start, again)

    @property
    def steps(self) -> int | None:
        """The one number of steps that it names; None where it goes on to the end."""
        return None if self.again else len(self.start)

    def letters(self, steps: int) -> str:
        """Its letters for a generation of `steps`."""
        return (self.start + self.again * steps)[:steps]

    def kinds(self, steps: int) -> tuple[str, ...]:
        """The kind of every step."""
        return tuple(KINDS[letter] for letter in self.letters(steps))


def _unfold(text: str) -> str:
    """The letters with counts carried out: 2(SC)F2S is SCSCFSS."""
    while (found := re.search(r"(\d+)(?:\(([A-Z]*)\)|([A-Z]))", text)) is not None:
        text = text[: found.start()] + (found[2] or found[3] or "") * min(int(found[1]), 10_000) + text[found.end() :]
    return text
