"""Mixed: one schedule names full, calibrated, forecast and reused steps, so that ICC and SVD-Cache share one cache.

F  every block runs; the trunk's residual and every linear's output are kept
C  every linear is y = C(y) + A B (x - C(x)), what is not linear is computed anew
S  no block runs; the trunk's residual is extrapolated from the last two full steps and what a C since then has told
R  no block runs; the trunk's residual is that of the last full step

C(.) lies on the line through the last two full steps (`anchor: line`), so that A B corrects what a forecast of every
linear misses; `anchor: last` counts from the last full step, as ICC was published. Linears are never counted from a
calibrated step: its errors would add up. Of what it finds beyond the trunk's own forecast a share, `trust`, is
believed: its errors and the forecast's are of one size, and partly cancel. `ditstack search` finds schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ditstack.maths.schedule import Word
from ditstack.plugin import BadPipeline, Cache, Capability, SearchedFields, Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Calibration, Pipe


def _word(text: str) -> str:
    Word.read(text)
    return text


class Mixed(Cache):
    """A letter for each step."""

    neutral: ClassVar[dict[str, Any] | None] = {"schedule": "F..."}
    trial: ClassVar[dict[str, Any]] = {"schedule": "FSCFRCS"}
    factors_field: ClassVar[str] = "factors"
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"factors", "calibrate", "moments_gb"})

    schedule: Annotated[str, AfterValidator(_word)] = "F (SCSF)..."
    """F full, C calibrated, S forecast, R reused: FSCS FSS, F 3(SCS), or FSCS... to the end."""
    rank: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, le=1)] = 0.125
    """Of every linear's A B, or its share of the linear's smaller width; 0 takes C(y) as it is."""
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What a calibrated step may cost, as a share of a full one: ranks then go where they pay, and `rank` is unused."""
    trust: Annotated[float, Field(gt=0, le=1)] = 0.6
    """The share of what a calibrated step finds beyond the trunk's own forecast that is believed."""
    anchor: Literal["line", "last"] = "line"
    """What calibrated steps count from: the line through the last two full steps, or the last full step."""
    attention: Literal["recompute", "reuse", "forecast"] = "recompute"
    """On calibrated steps: computed anew, that of the last full step, or on the line through the last two."""
    factors: str | None = None
    """A factors file; None keeps them in the user's cache folder under the recipe's name."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where factors are missing or stale: fit them now, or refuse."""
    moments_gb: Annotated[float, Field(ge=0, strict=False)] = 8.0
    """GB of a GPU that what calibration adds up may take; the rest is added up in the host's memory, more slowly."""

    @property
    def word(self) -> Word:
        return Word.read(self.schedule)

    @property
    def searched(self) -> SearchedFields:
        return SearchedFields(schedule="schedule", size="rank" if self.macs is None else "macs")

    def gentlest(self, steps: int) -> dict[str, Any]:
        """All steps but the last but one."""
        return {"schedule": "F" * (steps - 2) + "SF"}

    @property
    def schedule_steps(self) -> int | None:
        return self.word.steps

    @property
    def wants_factors(self) -> bool:
        """Whether there is an A B to fit."""
        return (self.rank != 0 or self.macs is not None) and "C" in self.word.start + self.word.again

    @property
    def needs(self) -> frozenset[Capability]:
        plain = frozenset({Capability.BLOCKS, Capability.FREE_TRUNK})
        return plain | {Capability.DENSE_WEIGHTS} if self.wants_factors else plain

    @property
    def drops(self) -> frozenset[Capability]:
        kept = super().drops | {Capability.PASSING}
        return kept if self.attention == "recompute" else kept | {Capability.TRACEABLE}

    def apply(self, pipe: Pipe) -> None:
        from ditstack.maths.predictors import Steered
        from ditstack.plugin import FeatureCache, LowRankLinears, StepPolicy, cache_attentions, cache_trunks

        pipe.policy = StepPolicy(pipe.clock, self.kinds, self.schedule_steps)
        cache_trunks(pipe, FeatureCache(pipe, lambda site: Steered(self.trust), "step"))
        apart = () if self.attention == "recompute" else cache_attentions(pipe, self.attention == "forecast")
        LowRankLinears(pipe, order=self.anchor == "line", apart=apart)
        pipe.budget = self.macs

    def kinds(self, steps: int) -> tuple[str, ...]:
        """The kind of every step.

        Raises:
            BadPipeline: the schedule was written for another number of steps.
        """
        if self.schedule_steps not in (steps, None):
            raise BadPipeline(
                f"cache.schedule names {self.schedule_steps} steps, and this generation takes {steps}; "
                "write a letter for each, or end it with ... to repeat it to the end"
            )
        return self.word.kinds(steps)

    def kept(self, trunk: Trunk) -> float:
        line = 3 * trunk.feature  # two full steps and what a calibrated one has told
        if not self.wants_factors:
            return line
        return line + trunk.corrected(1.0 if self.macs is not None else self.rank, order=int(self.anchor == "line"))

    def weighs(self, trunk: Trunk) -> float:
        return trunk.corrections(self.rank) if self.macs is None else self.macs * trunk.corrections(1.0)

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        from ditstack.plugin import wrong_corrections

        return wrong_corrections(pipe, tensors)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """A and B of every linear."""
        from ditstack.plugin import Fit, LowRankLinears, Wish

        wish = Wish("rrr", self.rank, self.macs, room_gb=self.moments_gb)
        return Fit(pipe, LowRankLinears.on(pipe), calibration, wish).tensors()

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import LowRankLinears

        LowRankLinears.on(pipe).take(tensors)
