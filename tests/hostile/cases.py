"""Cases: what hostile tests count, and the page that their long run writes: docs/reliability.md, between its marks."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings

from ditstack.errors import DitstackError

LONG = os.environ.get("DITSTACK_HOSTILE") == "long"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: written by scripts/test --hostile -->", "<!-- end of figures -->"
SLOWEST, LARGEST = 10.0, 2 * 2**30
"""Seconds of one case, and bytes of the process."""
KINDS = 13
"""Of cases that a whole run counts."""


@dataclass
class Figure:
    """Of one kind of case: how many there were, how many were refused in a sentence, and the slowest's seconds."""

    cases: int = 0
    refused: int = 0
    slowest: float = 0.0


FIGURES: dict[str, Figure] = {}


def counts(quick: int, long: int) -> settings:
    """So many cases: in the quick profile always the same, in the long one others every time."""
    return settings(
        max_examples=long if LONG else quick,
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@contextmanager
def one_case(kind: str) -> Iterator[None]:
    """One case: it may be refused by an error of ours, takes its time, and ends with nothing else."""
    figure, started = FIGURES.setdefault(kind, Figure()), time.perf_counter()
    try:
        yield
    except DitstackError as error:
        figure.refused += 1
        said = str(error)
    else:
        said = "a result"
    took = time.perf_counter() - started
    figure.cases, figure.slowest = figure.cases + 1, max(figure.slowest, took)
    assert said.strip()
    assert "Traceback" not in said
    assert took < SLOWEST
    assert peak() < LARGEST


def peak() -> int:
    """Bytes of this process at its highest."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_page() -> None:
    """Put the figures of this run into the page; not those of a part of it."""
    if len(FIGURES) < KINDS:
        return
    rows = [
        f"| {kind} | {one.cases:,} | {one.refused:,} | {one.slowest:.2f} s |" for kind, one in sorted(FIGURES.items())
    ]
    total = sum(one.cases for one in FIGURES.values())
    told = (
        f"Last long run: {time.strftime('%Y-%m-%d', time.gmtime())}, "
        f"Python {platform.python_version()}, {total:,} cases; "
        f"the process never held more than {peak() / 2**30:.1f} GiB. None ended in a traceback, in silence, or after "
        f"{SLOWEST:.0f} s."
    )
    table = ["| what was changed at random | cases | refused in a sentence | slowest |", "| --- | ---: | ---: | ---: |"]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(
        "\n".join([before + BEGIN, told, "", *table, *rows, END]) + rest.partition(END)[2], encoding="utf-8"
    )
