"""StepPolicy: of each pass of a transformer, how it runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ditstack.pipeline.clock import Clock

if TYPE_CHECKING:
    from ditstack.pipeline.passes import PassInputs

FULL, CALIBRATED, REUSED, OFF = "full", "calibrated", "reused", "off"
COPIED = "copied"
"""The kind of a row that takes the answer of its partner in guidance."""
UNDECIDED = "undecided"
"""The kind of a pass that decides for itself, when its first block has run."""


class StepPolicy:
    """Says of each pass how it runs, from a schedule, and follows every guidance branch by itself.

    A branch that has not run in full since the last full step of the schedule runs in full now, whatever the schedule
    says: so a branch that a guider left out, or that appears late, never forecasts from nothing. A step that the
    schedule calls "undecided" is settled inside the pass, by the cache.

    Args:
        kinds: the kind of every step of a generation of so many steps; "full" runs and is remembered.
        steps: the one number of steps that it serves; None serves any.
    """

    by_row = False
    """Whether it tells rows of one batch apart, where the transformer's batch can be cut into rows."""
    by_layer = False
    """Whether it tells layers of one pass apart; then `layer` and `of_layer` speak of every linear."""

    def __init__(self, clock: Clock, kinds: Callable[[int], Sequence[str]], steps: int | None = None) -> None:
        self.clock, self.kinds, self.steps = clock, kinds, steps
        self.on_forget: list[Callable[[], None]] = []
        self._ran: dict[Hashable, int] = {}
        self._plans: dict[int, tuple[str, ...]] = {}

    def begin(self, inputs: PassInputs) -> str:
        """The kind of a pass that begins; a policy of another kind may look at what the transformer is given."""
        return self.kind()

    def rows(self, inputs: PassInputs) -> Sequence[str] | None:
        """The kind of every row of a pass that begins; None where all are alike, and `begin` tells."""
        return None

    def partner(self, row: int, batch: int) -> int:
        """Whose answer a copied row takes."""
        raise NotImplementedError

    @property
    def variant(self) -> Hashable:
        """What tells passes of one kind apart that cost differently; True of a branch that has not run in full yet.

        A cache may make more of its first full pass.
        """
        return self.clock.branch not in self._ran

    def outcomes(self, planned: str) -> tuple[str, ...]:
        """The kinds that a pass planned like this may turn out to be."""
        return (FULL, REUSED) if planned == UNDECIDED else (planned,)

    def end(self, kind: str) -> str:
        """A pass has ended; how it really ran. One that never decided ran every block, and kept nothing."""
        if kind == FULL:
            self._ran[self.clock.branch] = self.clock.index
        return FULL if kind == UNDECIDED else kind

    def kind(self) -> str:
        """Of the present step and branch."""
        index, plan = self.clock.index, self.plan(self.clock.steps)
        since = self._ran.get(self.clock.branch)
        missed = since is None or FULL in plan[since + 1 : index + 1]
        return FULL if missed else plan[index]

    def layer(self, linear: str) -> str:
        """The layer that a linear belongs to."""
        raise NotImplementedError

    def of_layer(self, linear: str) -> str:
        """How the layer of a linear runs in the present pass."""
        raise NotImplementedError

    def scheduled(self, linear: str) -> str:
        """How a linear is to run at the present step."""
        return self.plan(self.clock.steps)[self.clock.index]

    def plan(self, steps: int) -> tuple[str, ...]:
        """The kind of every step, as scheduled."""
        if steps not in self._plans:
            self._plans[steps] = tuple(self.kinds(steps))
        return self._plans[steps]

    def follow(self, kinds: Callable[[int], Sequence[str]]) -> None:
        """Another schedule, from the next generation on."""
        self.kinds, self._plans = kinds, {}

    def forget(self) -> None:
        """A generation begins or has ended."""
        self._ran.clear()
        for forget in self.on_forget:
            forget()


class FirstHalf:
    """Which rows of a pass are unconditional, of a pipeline that puts those before the others where it guides.

    Args:
        guidance: the argument of the pipeline's call that holds the scale; above 1 it guides.
    """

    def __init__(self, clock: Clock, guidance: str) -> None:
        self.guidance, self.guides = guidance, False
        clock.before_call.append(self._look)

    def _look(self, arguments: Mapping[str, Any]) -> None:
        scale = arguments.get(self.guidance)
        self.guides = isinstance(scale, int | float) and scale > 1

    def __call__(self, inputs: PassInputs) -> list[bool]:
        rows = len(inputs.hidden_states)
        half = rows // 2 if self.guides and rows % 2 == 0 else 0
        return [place < half for place in range(rows)]


class RowPolicy(StepPolicy):
    """Says of each row of a pass how it runs, and follows every row of every guidance branch by itself.

    A row that has not run in full yet runs in full, whatever is decided of it.

    Args:
        unguided: which rows of a pass are unconditional; for families that batch the halves of guidance. Passes that
            the pipeline names "uncond" are so as a whole.
    """

    by_row = True

    def __init__(self, clock: Clock, unguided: Callable[[PassInputs], Sequence[bool]]) -> None:
        super().__init__(clock, lambda steps: ())
        self.unguided = unguided
        self.unconditional: set[tuple[Hashable, int]] = set()
        """The rows of the generation that are, each a branch and a place in its batch."""
        self._last: dict[tuple[Hashable, int], int] = {}

    def decide(self, row: Hashable, unguided: bool, last: int) -> str:
        """The kind of one row at the present step.

        Args:
            row: tells it from every other row of the generation.
            last: the step at which it last ran in full.
        """
        raise NotImplementedError

    def rows(self, inputs: PassInputs) -> list[str]:
        kinds = []
        for place, unguided in enumerate(self._unguided(inputs)):
            row = (self.clock.branch, place)
            if unguided:
                self.unconditional.add(row)
            last = self._last.get(row)
            kind = FULL if last is None else self.decide(row, unguided, last)
            if kind == FULL:
                self._last[row] = self.clock.index
            kinds.append(kind)
        return kinds

    def _unguided(self, inputs: PassInputs) -> Sequence[bool]:
        rows, (_, name, _) = len(inputs.hidden_states), self.clock.branch  # pyright: ignore[reportGeneralTypeIssues]
        if name in (0, "cond_uncond"):  # the first pass of a step, which may hold both halves
            return self.unguided(inputs)
        return [name == "uncond"] * rows

    def partner(self, row: int, batch: int) -> int:
        """The same picture's conditional row: in the same batch, or that of the pass before."""
        (_, name, _) = self.clock.branch  # pyright: ignore[reportGeneralTypeIssues]
        return row if name == "uncond" else (row + batch // 2) % batch

    def forget(self) -> None:
        self._last.clear()
        self.unconditional.clear()
        super().forget()
