"""Records: what a transformer was called with, and what became of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ditstack.pipeline.macs import Stated
from ditstack.pipeline.rows import cut


@dataclass(frozen=True)
class PassInputs:
    """What a transformer was called with."""

    transformer: str
    """Its name in the pipeline."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    parameters: Sequence[str] = ()
    """The names of what it takes, in order."""

    @property
    def hidden_states(self) -> Any:
        """The noisy picture: a tensor, or a list of them."""
        return self.args[0] if self.args else self.kwargs.get("hidden_states", next(iter(self.kwargs.values()), None))

    def of_rows(self, names: Sequence[str], rows: Sequence[int]) -> PassInputs:
        """What it would be called with for some rows of its batch.

        Args:
            names: the arguments that have a row for each of the batch.
        """
        batch = len(self.hidden_states)
        return PassInputs(
            self.transformer, *cut(self.args, self.kwargs, self.parameters, names, rows, batch), self.parameters
        )

    @property
    def shapes(self) -> tuple[Hashable, ...]:
        """Of every tensor among the arguments: passes of one kind and of equal shapes cost the same."""
        return tuple(tuple(one.shape) for one in tree_leaves((self.args, self.kwargs)) if isinstance(one, Tensor))


@dataclass(frozen=True)
class Cost:
    """MACs of one pass: those counted as it ran, or as one like it did, and those that its attention kernels stated."""

    counted: int
    stated: tuple[Stated, ...] = ()

    @cached_property
    def macs(self) -> int:
        """All of them. Reading it waits for the device where a kernel stated its share as a tensor."""
        return self.counted + sum(one.macs for one in self.stated)

    def share(self, part: int, whole: int) -> Cost:
        """Of `part` of its `whole` rows."""
        return Cost(self.macs * part // whole)


@dataclass(frozen=True)
class PassRecord:
    """One pass of a transformer, written when it has ended.

    Attributes:
        step: of the pipeline's call, from 0.
        branch: the guidance branch, as the clock names it.
        rows: pictures (or videos) in the batch.
        planned: its kind by the step policy when it began; "undecided" where the pass itself has to tell.
        ran: its kind in the end; a pass without a cache is "full".
        cost: what it took, with what a cache computes for later steps.
        full_cost: what it would take in full and without a cache.
        members: the places of its rows in the batch that the transformer was called with.
        batch: how many rows that batch has.
        again: whether these rows had run in the same pass before, and were found to be due.
    """

    step: int
    transformer: str
    branch: Hashable
    rows: int
    planned: str
    ran: str
    cost: Cost
    full_cost: Cost
    members: Sequence[int] = ()
    batch: int = 0
    again: bool = False

    def macs_of(self, picture: int, pictures: int) -> int | None:
        """What it took for one picture of a generation; None where it ran for others.

        Halves of guidance that share a batch lie one behind the other, each with all pictures in their order. The
        shares of all rows add up to the whole.
        """
        if self.batch % pictures:
            own, count = [picture], pictures  # rows and pictures have nothing to do with each other
        else:
            own, count = [at for at, row in enumerate(self.members) if row % pictures == picture], self.rows
        total = self.cost.macs
        return sum(total * (at + 1) // count - total * at // count for at in own) if own else None
