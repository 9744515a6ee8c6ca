"""Schedules: on which of a generation's steps the transformer runs in full."""

from __future__ import annotations

import math

GRADE = 1.15
"""Chosen on calibration prompts of the embedded model, at 12, 9 and 7 full steps of 50."""


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


def graded(steps: int, count: int, grade: float = GRADE) -> tuple[int, ...]:
    """`count` full steps whose gaps grow: the i-th is at steps (i / count)^grade, the first step among them.

    Pictures are decided early, and a forecast needs two full steps before it has a slope.
    """
    count = min(count, steps)
    full: list[int] = []
    for place in range(count):
        wanted = round(steps * (place / count) ** grade)
        full.append(max(wanted, full[-1] + 1) if full else 0)
    return tuple(full)


def even_by_interval(steps: int, interval: int) -> tuple[int, ...]:
    """One full step in `interval`, spread evenly."""
    return even(steps, math.ceil(steps / interval))


def ending(full: tuple[int, ...], steps: int, last_full: int) -> tuple[int, ...]:
    """The same schedule with its last `last_full` steps full."""
    return tuple(sorted({*full, *range(max(0, steps - last_full), steps)}))
