"""Lines of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def line(cells: list[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def head(cells: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(cells), line(["---"] * len(cells))]


def signed(gain: Sequence[float]) -> str:
    """A gain with its interval."""
    mean, low, high = gain
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
