"""Declared: what a method says of its own fields, so that tuning, search and a matrix turn it without knowing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Knob:
    """The field by which a method trades quality for speed, with what is worth trying.

    Attributes:
        values: of the field, the gentlest first.
        scales: or factors of the value that the recipe or the shelf writes, else of the field's default.
    """

    field: str
    values: tuple[Any, ...] = ()
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.scales):
            raise ValueError(f"the knob {self.field!r} wants either values or scales")

    def settings(self, own: Any) -> tuple[Any, ...]:
        """What to try where the field is `own` now; whole numbers stay whole."""
        if self.values:
            return self.values
        scaled = (max(1, round(own * one)) if isinstance(own, int) else round(own * one, 6) for one in self.scales)
        return tuple(dict.fromkeys(scaled))


@dataclass(frozen=True)
class SearchedFields:
    """The fields that `ditstack search` changes.

    Attributes:
        schedule: takes a letter for each step, as `ditstack.maths.schedule.Word` reads them.
        size: says how large the corrections of calibrated steps are.
    """

    schedule: str
    size: str
