"""Declared: what a method says of its own fields, so that tuning, search and a matrix turn it without knowing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as field_
from typing import Any


@dataclass(frozen=True)
class Knob:
    """The field by which a method trades quality for speed, with what is worth trying.

    Attributes:
        values: of the field, the gentlest first.
        scales: or factors of the value that the recipe or the shelf writes, else of the field's default.
        beside: other fields while it is turned, such as those at which what must be fitted is fitted in less time.
        of_base: other fields that are then those of the base recipe's sampler, by their names there.
    """

    field: str
    values: tuple[Any, ...] = ()
    scales: tuple[float, ...] = ()
    beside: Mapping[str, Any] = field_(default_factory=dict)
    of_base: Mapping[str, str] = field_(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.scales):
            raise ValueError(f"the knob {self.field!r} wants either values or scales")

    def others(self, sampler: Mapping[str, Any]) -> dict[str, Any]:
        """The other fields, on a base recipe with this sampler."""
        return {**self.beside, **{key: sampler[name] for key, name in self.of_base.items() if name in sampler}}

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


@dataclass(frozen=True)
class Trunk:
    """What a cache would stand on, as far as it is known without weights.

    Attributes:
        tokens: of one picture or video, and `text` of its prompt.
        width: of a token in the stream.
        count: transformers, each of which is cached by itself.
        blocks: of all of them.
        linears: of the blocks, those that read tokens: how many are alike, width out, width in, tokens that they read.
    """

    tokens: int
    text: int
    width: int
    count: int
    blocks: int
    linears: tuple[tuple[int, int, int, int], ...]

    @property
    def feature(self) -> int:
        """Numbers of one feature of the image stream, of every transformer."""
        return self.count * self.tokens * self.width

    def corrected(self, rank: int | float, order: int = 0) -> float:
        """Numbers that corrected linears keep of a full step, or of two: what each wrote, and its input at low rank."""
        each = (number * tokens * (rows + _rank(rank, rows, columns)) for number, rows, columns, tokens in self.linears)
        return (order + 1) * sum(each)

    def corrections(self, rank: int | float) -> float:
        """Numbers of both factors of every linear."""
        return sum(number * _rank(rank, rows, columns) * (rows + columns) for number, rows, columns, _ in self.linears)


def _rank(rank: int | float, rows: int, columns: int) -> int:
    """A rank, or the share `rank` of a matrix's smaller width."""
    return rank if isinstance(rank, int) else round(rank * min(rows, columns))
