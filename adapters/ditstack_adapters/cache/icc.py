"""ICC: between full steps every linear is corrected at low rank; attention and what is not linear is computed anew.

y = C(y) + A B (x - C(x)), C(.) from the last full step   (Chen et al., arXiv 2505.05829)

A B is the weight that runs, truncated (`svd`), truncated under channel scales (`ca`, `cd`: the paper's), or the
reduced-rank regression of increments along the cached schedule (`rrr`), the default: it is fitted to the pipe as built.
Which layers are full on which steps is a period, the paper's matrices of steps times layers from a file, or learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ditstack.maths import schedule
from ditstack.plugin import Cache, Capability, Knob, Trunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from ditstack.plugin import Calibration, Frame, Pattern, Pipe

PERIOD, LEARNED = "period", "learned"


def _pattern(text: str) -> str:
    if text in (PERIOD, LEARNED) or text.endswith((".yaml", ".yml")):
        return text
    raise ValueError(f"found {text!r}; wanted {PERIOD}, {LEARNED}, or a file whose name ends with .yaml")


class Icc(Cache):
    """One full step in `interval`, the others calibrated."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}
    factors_field: ClassVar[str] = "factors"
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"factors", "calibrate", "moments_gb"})

    interval: Annotated[int, Field(ge=1)] = 2
    """One step in so many is full; 1 runs every step in full."""
    pattern: Annotated[str, AfterValidator(_pattern)] = PERIOD
    """Which layers (a block's attention, its MLP) are full on which steps: all on those of `interval`; `learned` on
    calibration prompts, for the same work; or a YAML file with lines such as `"*.ff": F (CCF)...`, C calibrated."""
    full_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of a learned pattern: the share of its layers' work that runs in full; None takes one part in `interval`."""
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
        if self.pattern != PERIOD and (self.macs is not None or self.attention != "recompute"):
            raise ValueError(f"pattern: {self.pattern} needs a rank instead of macs, and attention: recompute")
        if self.full_share is not None and self.pattern != LEARNED:
            raise ValueError(f"full_share is of pattern: {LEARNED}; found pattern: {self.pattern}")
        if self.pattern != PERIOD and self.anchor == "fitted":
            raise ValueError(f"pattern: {self.pattern} needs anchor: last or line")
        return self

    @property
    def knob(self) -> Knob | None:
        return None if self._from_file or self.full_share is not None else Knob("interval", values=(2, 3, 4, 5, 6, 8))

    @property
    def _from_file(self) -> bool:
        return self.pattern not in (PERIOD, LEARNED)

    @property
    def wants_factors(self) -> bool:
        corrects = self.rank != 0 or self.macs is not None
        return corrects if self._from_file else self.interval > 1 and (corrects or self.pattern == LEARNED)

    @property
    def fitted_for(self) -> frozenset[str]:
        """A learned pattern names its steps."""
        return frozenset({"steps"}) if self.pattern == LEARNED else frozenset()

    @property
    def needs(self) -> frozenset[Capability]:
        plain = frozenset({Capability.BLOCKS, Capability.FREE_TRUNK})
        return plain | {Capability.DENSE_WEIGHTS} if self.rank != 0 and self.wants_factors else plain

    @property
    def drops(self) -> frozenset[Capability]:
        kept = super().drops | {Capability.PASSING}
        plain = self.attention == "recompute" and self.pattern == PERIOD
        return kept if plain else kept | {Capability.TRACEABLE}

    def inspect(self) -> None:
        from ditstack.plugin import PatternFile

        if self._from_file:
            PatternFile.read(self.pattern)

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import LayerPolicy, LowRankLinears, StepPolicy, cache_attentions, find_layers

        if self.pattern == PERIOD:
            pipe.policy = StepPolicy(pipe.clock, self.kinds)
        else:
            pipe.policy = LayerPolicy(pipe.clock, find_layers(pipe), self._columns(pipe))
        apart = () if self.attention == "recompute" else cache_attentions(pipe, self.attention == "forecast")
        LowRankLinears(pipe, order=int(self.anchor == "line"), apart=apart)
        pipe.budget = self.macs

    def kinds(self, steps: int) -> tuple[str, ...]:
        """A step is full where all layers are."""
        from ditstack.plugin import PatternFile

        if self._from_file:
            return PatternFile.read(self.pattern).kinds(steps)
        return schedule.spell(self.full_steps(steps), steps, schedule.KINDS["C"])

    def _columns(self, pipe: Pipe) -> Callable[[int], dict[str, tuple[bool, ...]]]:
        """By layer, the steps on which it is full: those of the file; before one is learned, the period's."""
        from ditstack.plugin import PatternFile, find_layers

        layers = tuple(find_layers(pipe))
        if self._from_file:
            file = PatternFile.read(self.pattern)
            return lambda steps: file.columns(layers, steps)
        return lambda steps: dict.fromkeys(layers, tuple(kind == schedule.KINDS["F"] for kind in self.kinds(steps)))

    def kept(self, trunk: Trunk) -> float:
        rank = 1.0 if self.macs is not None else self.rank  # ranks that follow a budget are known only once fitted
        return trunk.corrected(rank, order=int(self.anchor != "last"))

    def weighs(self, trunk: Trunk) -> float:
        return trunk.corrections(self.rank) if self.macs is None else self.macs * trunk.corrections(1.0)

    def full_steps(self, steps: int) -> tuple[int, ...]:
        """As published: every `interval`-th step from the first on."""
        return schedule.ending(tuple(range(0, steps, self.interval)), steps, self.last_full)

    def _file(self, pipe: Pipe) -> Callable[[int], Pattern]:
        """The file's pattern for so many steps."""
        from ditstack.plugin import Pattern

        columns = self._columns(pipe)
        return lambda steps: Pattern(columns(steps))

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        from ditstack.plugin import wrong_along, wrong_anchored, wrong_corrections, wrong_patterned

        if self.pattern == LEARNED:
            return wrong_patterned(pipe, tensors, self.rank)
        if self._from_file:
            return wrong_along(pipe, tensors, self._file(pipe))
        return (wrong_anchored if self.anchor == "fitted" else wrong_corrections)(pipe, tensors)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """A and B of every linear, and the pattern where it is learned."""
        from ditstack.plugin import Fit, LowRankLinears, Wish, fit_along, fit_anchored, fit_patterned

        wish = Wish(self.factors_by, self.rank, self.macs, self.weighting == "sensitivity", self.moments_gb)
        if self.pattern == LEARNED:
            frame = self._frame(calibration.sampler.steps)
            return fit_patterned(pipe, LowRankLinears.on(pipe), calibration, wish, frame)
        if self._from_file:
            given = self._file(pipe)(calibration.sampler.steps)
            return fit_along(pipe, LowRankLinears.on(pipe), calibration, wish, given)
        if self.anchor == "fitted":
            return fit_anchored(pipe, LowRankLinears.on(pipe), calibration, wish)
        return Fit(pipe, LowRankLinears.on(pipe), calibration, wish).tensors()

    def _frame(self, steps: int) -> Callable[[Mapping[str, float]], Frame]:
        """What a learned pattern may cost."""
        from ditstack.plugin import Frame

        if self.full_share is None:
            return lambda saved: Frame(steps, self.interval, saved, self.last_full)
        share = max(self.full_share, 1 / steps)
        return lambda saved: Frame.of_share(steps, share, saved, self.last_full)

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import LowRankLinears, take_anchored, take_patterned

        if self.pattern == PERIOD:
            take_anchored(pipe, LowRankLinears.on(pipe), tensors)
        else:
            take_patterned(pipe, LowRankLinears.on(pipe), tensors, self._columns(pipe))
