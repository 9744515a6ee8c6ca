"""Mixed: one schedule names full, calibrated, forecast and reused steps, so that ICC and SVD-Cache share one cache.

F  every block runs; the trunk's residual and every linear's output are kept
C  every linear is y = C(y) + A B (x - C(x)), what is not linear is computed anew; the trunk's residual is kept too
S  no block runs; the trunk's residual is extrapolated from the last two steps, F or C, that kept one
R  no block runs; the trunk's residual is that of the last of them

C(.) lies on the line through the last two full steps (`anchor: line`), so that A B corrects what a forecast of every
linear misses; `anchor: last` counts from the last full step, as ICC was published. Calibrated steps are never counted
from: their errors would add up. `ditstack search` finds schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ditstack.adapter import Cache
from ditstack.errors import BadPipeline
from ditstack.facts import Fact
from ditstack.schedule import Word

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.calibrate import Rehearsal
    from ditstack.pipe import Pipe
    from ditstack.predictors import Predictor


def _word(text: str) -> str:
    Word.read(text)
    return text


class Mixed(Cache):
    """A letter for each step."""

    neutral: ClassVar[dict[str, Any] | None] = {"schedule": "F..."}
    trial: ClassVar[dict[str, Any]] = {"schedule": "FSCFRCS"}

    schedule: Annotated[str, AfterValidator(_word)] = "F (SCSF)..."
    """F full, C calibrated, S forecast, R reused: FSCS FSS, F 3(SCS), or FSCS... to the end."""
    rank: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, le=1)] = 0.125
    """Of every linear's A B, or its share of the linear's smaller width; 0 takes C(y) as it is."""
    anchor: Literal["line", "last"] = "line"
    attention: Literal["recompute", "reuse", "forecast"] = "recompute"
    """On calibrated steps: computed anew, that of the last full step, or on the line through the last two."""
    predictor: Literal["taylor", "fitted"] = "taylor"
    """Of the trunk: first order, or first and second with gains tuned on the final latent."""
    factors: str | None = None
    """A factors file; None keeps them in the user's cache folder under the recipe's name."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where factors are missing or stale: fit them now, or refuse."""

    @property
    def word(self) -> Word:
        return Word.read(self.schedule)

    @property
    def steps(self) -> int | None:
        return self.word.steps

    @property
    def corrects(self) -> bool:
        """Whether there is an A B to fit."""
        return self.rank != 0 and "C" in self.word.start + self.word.again

    @property
    def wants_factors(self) -> bool:
        return self.corrects or self.predictor == "fitted"

    @property
    def needs(self) -> frozenset[Fact]:
        plain = frozenset({Fact.BLOCKS, Fact.FREE_TRUNK})
        return plain | {Fact.DENSE_WEIGHTS} if self.corrects else plain

    @property
    def drops(self) -> frozenset[Fact]:
        kept = super().drops | {Fact.PASSING}
        return kept if self.attention == "recompute" else kept | {Fact.TRACEABLE}

    def apply(self, pipe: Pipe) -> None:
        from ditstack.cadence import Cadence
        from ditstack.increments import Increments
        from ditstack.trunk import Store, cache_attentions, cache_trunks

        pipe.cadence = Cadence(pipe.clock, self.kinds)
        cache_trunks(pipe, Store(pipe, lambda site: self._predictor(pipe), "step"))
        apart = () if self.attention == "recompute" else cache_attentions(pipe, self.attention == "forecast")
        Increments(pipe, order=self.anchor == "line", apart=apart)

    def kinds(self, steps: int) -> tuple[str, ...]:
        """The kind of every step.

        Raises:
            BadPipeline: the schedule was written for another number of steps.
        """
        if self.steps not in (steps, None):
            raise BadPipeline(
                f"cache.schedule names {self.steps} steps, and this generation takes {steps}; "
                "write a letter for each, or end it with ... to go on to the end"
            )
        return self.word.kinds(steps)

    def fit(self, pipe: Pipe, rehearsal: Rehearsal) -> dict[str, Tensor]:
        """A and B of every linear, and the gains of every step that the trunk's forecast rests on."""
        from ditstack.fitting import Fit, Wish
        from ditstack.gains import tune_gains
        from ditstack.increments import Increments

        assert isinstance(pipe.store, Increments)
        tensors = Fit(pipe, pipe.store, rehearsal, Wish("rrr", self.rank)).tensors() if self.corrects else {}
        if self.predictor == "taylor":
            return tensors
        letters = self.word.letters(rehearsal.sampler.steps)
        return tune_gains(pipe, rehearsal, tensors, letters.count("F") + letters.count("C"), split=False)

    def _predictor(self, pipe: Pipe) -> Predictor:
        from ditstack.predictors import Fitted, Taylor

        if self.predictor == "taylor":
            return Taylor(1)
        assert pipe.factors is not None
        return Fitted(pipe.factors.of("cache")["gains"], None)
