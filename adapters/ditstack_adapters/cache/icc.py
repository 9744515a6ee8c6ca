"""ICC: between full steps every linear is corrected at low rank; attention and what is not linear is computed anew.

y = C(y) + A B (x - C(x)), C(.) from the last full step   (Chen et al., arXiv 2505.05829)

A B is the weight that runs, truncated (`svd`), truncated under channel scales (`ca`, `cd`: the paper's), or the
reduced-rank regression of increments along the cached schedule (`rrr`), the default: it is fitted to the pipe as built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ditstack.maths import schedule
from ditstack.plugin import Cache, Capability, Knob, Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Calibration, Pipe


class Icc(Cache):
    """One full step in `interval`, the others calibrated."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}
    factors_field: ClassVar[str] = "factors"
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"factors", "calibrate", "moments_gb"})

    interval: Annotated[int, Field(ge=1)] = 2
    """One step in so many is full; 1 runs every step in full."""
    last_full: Annotated[int, Field(ge=0)] = 0
    """How many last steps are full besides."""
    rank: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, le=1)] = 0.125
    """Of every linear's A B, or its share of the linear's smaller width; 0 reuses outputs as they were."""
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What a calibrated step may cost, as a share of a full one: ranks then go where they pay, and `rank` is unused."""
    factors_by: Literal["svd", "ca", "cd", "rrr", "rrr_observed"] = "rrr"
    """`rrr_observed` regresses on outputs as they come, for linears that round what they read."""
    anchor: Literal["last", "line", "fitted"] = "last"
    """What increments count from: the last full step, as published, or the line through two, for twice the memory;
    `fitted` takes the line where prompts set aside gain clearly by it."""
    attention: Literal["recompute", "reuse", "forecast"] = "recompute"
    """On calibrated steps: computed anew, that of the last full step, or on the line through the last two."""
    weighting: Literal["sensitivity", "none"] = "sensitivity"
    """Of rrr: whether an error counts by what it does to the transformer's output."""
    factors: str | None = None
    """A factors file; None keeps them in the user's cache folder under the recipe's name."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where factors are missing or stale: fit them now, or refuse."""
    moments_gb: Annotated[float, Field(ge=0, strict=False)] = 8.0
    """GB of a GPU that what calibration adds up may take; the rest is added up in the host's memory, more slowly."""

    @model_validator(mode="after")
    def _ranks_that_can_be_compared(self) -> Icc:
        if self.macs is not None and not (self.factors_by.startswith("rrr") and self.weighting == "sensitivity"):
            raise ValueError("macs needs factors_by: rrr (or rrr_observed) and weighting: sensitivity")
        if self.anchor == "fitted" and self.rank == 0 and self.macs is None:
            raise ValueError("anchor: fitted needs a rank; without factors write anchor: last or line")
        return self

    @property
    def knob(self) -> Knob:
        return Knob("interval", values=(2, 3, 4, 5, 6, 8))

    @property
    def wants_factors(self) -> bool:
        return self.interval > 1 and (self.rank != 0 or self.macs is not None)

    @property
    def needs(self) -> frozenset[Capability]:
        plain = frozenset({Capability.BLOCKS, Capability.FREE_TRUNK})
        return plain | {Capability.DENSE_WEIGHTS} if self.wants_factors else plain

    @property
    def drops(self) -> frozenset[Capability]:
        kept = super().drops | {Capability.PASSING}
        return kept if self.attention == "recompute" else kept | {Capability.TRACEABLE}

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import LowRankLinears, StepPolicy, cache_attentions

        pipe.policy = StepPolicy(pipe.clock, self.kinds)
        apart = () if self.attention == "recompute" else cache_attentions(pipe, self.attention == "forecast")
        LowRankLinears(pipe, order=int(self.anchor == "line"), apart=apart)
        pipe.budget = self.macs

    def kinds(self, steps: int) -> tuple[str, ...]:
        return schedule.spell(self.full_steps(steps), steps, schedule.KINDS["C"])

    def kept(self, trunk: Trunk) -> float:
        rank = 1.0 if self.macs is not None else self.rank  # ranks that follow a budget are known only once fitted
        return trunk.corrected(rank, order=int(self.anchor != "last"))

    def weighs(self, trunk: Trunk) -> float:
        return trunk.corrections(self.rank) if self.macs is None else self.macs * trunk.corrections(1.0)

    def full_steps(self, steps: int) -> tuple[int, ...]:
        """As published: every `interval`-th step from the first on."""
        return schedule.ending(tuple(range(0, steps, self.interval)), steps, self.last_full)

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        from ditstack.plugin import wrong_anchored, wrong_corrections

        return (wrong_anchored if self.anchor == "fitted" else wrong_corrections)(pipe, tensors)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """A and B of every linear."""
        from ditstack.plugin import Fit, LowRankLinears, Wish, fit_anchored

        wish = Wish(self.factors_by, self.rank, self.macs, self.weighting == "sensitivity", self.moments_gb)
        if self.anchor == "fitted":
            return fit_anchored(pipe, LowRankLinears.on(pipe), calibration, wish)
        return Fit(pipe, LowRankLinears.on(pipe), calibration, wish).tensors()

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import LowRankLinears, take_anchored

        take_anchored(pipe, LowRankLinears.on(pipe), tensors)
