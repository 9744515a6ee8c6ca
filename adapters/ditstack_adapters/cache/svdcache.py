"""SVD-Cache: between full steps the features' principal part is forecast and the residual is reused.

F_hat = F_last + (Z_hat - Z_last) V^T with Z = F V   (Chen et al., arXiv 2601.07396)

The default is what wins on the embedded model: full steps with graded gaps, and a first-order forecast of the
whole space in the step's index (on a shifted schedule that is the time before the shift). The paper's own setting, as
we read it, is the recipe `tiny-none-native-svdcache-paper`; docs/svdcache.md measures what else it may mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from ditstack.maths import schedule
from ditstack.plugin import Cache, Capability, Knob, Trunk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ditstack.maths.predictors import Predictor
    from ditstack.plugin import Calibration, Pipe


SCHEDULES = {
    "anyOf": [
        {"enum": ["graded", "even", "paper", "fitted"]},
        {"type": "array", "items": {"type": "integer", "minimum": 0}},
    ]
}
"""What `_schedule` takes, for editors."""


CHOSEN = {"full", "forecast", "gain", "beside"}
"""Factors of a fitted schedule."""


def _schedule(value: Any) -> str | tuple[int, ...]:
    if value in ("graded", "even", "paper", "fitted"):
        return value
    numbers = isinstance(value, (list, tuple)) and all(type(one) is int for one in value)
    if numbers and value and value[0] == 0 and list(value) == sorted(set(value)):
        return tuple(value)
    raise ValueError("wanted graded, even, paper, fitted, or a rising list of full steps that begins with 0")


class SvdCache(Cache):
    """The fields are the method's own terms; see the module's text."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1}
    factors_field: ClassVar[str] = "factors"
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"factors", "calibrate"})
    fittable: ClassVar[dict[str, Any]] = {"schedule": "fitted"}

    interval: Annotated[int, Field(ge=1)] = 4
    """One step in so many is full; 1 runs every step in full."""
    schedule: Annotated[Any, AfterValidator(_schedule), WithJsonSchema(SCHEDULES)] = "graded"
    """Which steps are full: `graded` (dense at first, then ever wider gaps), `even`, `paper`, a list of steps, or
    `fitted`: chosen on calibration prompts, as many as `graded` has, with the order and coordinate of `taylor`."""
    first_enhance: Annotated[int, Field(ge=1)] = 3
    """How many first steps are full on the paper's schedule."""
    last_full: Annotated[int, Field(ge=0)] = 0
    """How many last steps are full besides."""
    predictor: Literal["taylor", "fitted", "holt", "ema", "reuse"] = "taylor"
    """How the principal part is forecast: by differences, gains fitted beforehand, Holt's trend, a running mean (the
    paper's), or not at all."""
    order: Annotated[int, Field(ge=1, le=3)] = 1
    """Of `taylor`: how many differences between full steps are used."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Of `ema` and `holt`: how much of the mean so far is kept at a new full step."""
    coordinate: Literal["sigma", "step"] = "step"
    """What the forecast counts in: the scheduler's sigma, or the step's index."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Width of the principal part; with neither rank nor energy the whole space is forecast."""
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the features' energy that the principal part holds, instead of a rank."""
    granularity: Literal["trunk", "block"] = "trunk"
    """What is forecast: the residual of the whole stack of blocks, or of each block."""
    factors: str | None = None
    """A factors file; None keeps them in the user's cache folder under the recipe's name."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where fitted factors are wanted and missing or stale: fit them now, or refuse."""

    @model_validator(mode="after")
    def _one_size(self) -> SvdCache:
        if self.rank is not None and self.energy is not None:
            raise ValueError("rank and energy both size the subspace; give one of them")
        return self

    @property
    def knob(self) -> Knob:
        return Knob("interval", values=(2, 3, 4, 5, 6, 8))

    def gentlest(self, steps: int) -> dict[str, Any]:
        """All steps but the last but one."""
        return {"schedule": [step for step in range(steps) if step != steps - 2]}

    @property
    def wants_factors(self) -> bool:
        """Gains and a fitted schedule must be; a basis may be: without factors it is found as the generation runs."""
        subspace = self.rank is not None or self.energy is not None
        offline = self.factors is not None or self.calibrate == "auto"
        return "fitted" in (self.predictor, self.schedule) or (subspace and offline)

    @property
    def drops(self) -> frozenset[Capability]:
        inside = frozenset() if self.granularity == "trunk" else frozenset({Capability.TRACEABLE, Capability.PASSING})
        return super().drops | inside

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import FeatureCache, StepPolicy, cache_branches, cache_trunks

        pipe.policy = StepPolicy(pipe.clock, self.kinds)
        store = FeatureCache(pipe, lambda site: self._predictor(site, store.factors), self.coordinate)
        (cache_trunks if self.granularity == "trunk" else cache_branches)(pipe, store)

    def kinds(self, steps: int) -> tuple[str, ...]:
        return schedule.spell(self.full_steps(steps), steps, "forecast")

    def kept(self, trunk: Trunk) -> float:
        known = {"taylor": max(self._orders) + 1, "fitted": 3, "holt": 2}.get(self.predictor, 1)
        if self.rank is not None or self.energy is not None:
            known += 2  # the feature itself, and its principal part
        if self.granularity == "trunk":
            return known * trunk.feature
        return known * 2 * trunk.blocks * (trunk.tokens + trunk.text) * trunk.width

    def full_steps(self, steps: int) -> tuple[int, ...]:
        """The steps that run in full, of a generation of `steps`; of a fitted schedule those that it starts from."""
        if not isinstance(self.schedule, str):
            full = tuple(step for step in self.schedule if step < steps)
        elif self.schedule == "paper":
            full = schedule.paper(steps, self.interval, self.first_enhance)
        else:
            spread = schedule.even if self.schedule == "even" else schedule.graded
            full = spread(steps, math.ceil(steps / self.interval))
        return schedule.ending(full, steps, self.last_full)

    @property
    def fitted_for(self) -> frozenset[str]:
        """There is a row of gains for every full step, and a fitted schedule names its steps."""
        return frozenset({"steps"}) if "fitted" in (self.predictor, self.schedule) else frozenset()

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        from ditstack.plugin import wrong_setting

        matrices = {name: one for name, one in tensors.items() if name not in CHOSEN}
        flat = {name: tuple(x.shape) for name, x in matrices.items() if x.ndim != 2 or not x.is_floating_point()}
        wrong = [f"{name}: found the shape {shape}; wanted a matrix" for name, shape in flat.items()]
        wrong += [f"{name}: unknown" for name in matrices if name != "gains" and not name.endswith(".basis")]
        if self.predictor == "fitted" and ("gains" not in tensors or tensors["gains"].shape[1:] != (4,)):
            wrong.append("gains: missing, or not four for each full step")
        if (self.rank or self.energy) and not any(name.endswith(".basis") for name in tensors):
            wrong.append("there is no basis")
        return wrong + (wrong_setting(tensors) if self.schedule == "fitted" else [])

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """The basis of every site; the schedule, by pictures; the gains of every full step, by the final latent."""
        from ditstack.plugin import FeatureCache, principal_bases, tune_gains

        store, steps = FeatureCache.on(pipe), calibration.sampler.steps
        found = principal_bases(store, calibration, self.rank, self.energy)
        split = bool(found)
        if self.schedule == "fitted":
            found |= self._choose(pipe, calibration, found)
            self.take(pipe, found)
        if self.predictor != "fitted":
            return found
        return tune_gains(store, calibration, found, len(self.full_steps(steps)), split)

    def _choose(self, pipe: Pipe, calibration: Calibration, bases: dict[str, Tensor]) -> dict[str, Tensor]:
        from ditstack.plugin import Setting, choose_setting, plain_gains

        more = {**bases, **(plain_gains(1) if self.predictor == "fitted" else {})}
        steps = calibration.sampler.steps
        start = Setting(steps, self.full_steps(steps), self.order, self.coordinate)
        predictors = [(order, coordinate) for order in self._orders for coordinate in ("step", "sigma")]

        def take(setting: Setting) -> None:
            self.take(pipe, {**more, **setting.tensors()})

        return choose_setting(calibration, take, start, predictors, self.last_full)

    @property
    def _orders(self) -> tuple[int, ...]:
        """Of `taylor`: those that may run."""
        several = self.schedule == "fitted" and self.predictor == "taylor"
        return tuple(dict.fromkeys((self.order, 1, 2))) if several else (self.order,)

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import FeatureCache, follow_setting

        FeatureCache.on(pipe).take(tensors)
        follow_setting(pipe, tensors, self.kinds)

    def _predictor(self, site: str, tensors: Mapping[str, Tensor]) -> Predictor:
        from ditstack.maths.predictors import Fitted, Subspace

        basis = tensors.get(f"{site}.basis")
        if self.predictor == "fitted":
            return Fitted(tensors["gains"], basis)
        inner = self._inner(tensors)
        if self.rank is None and self.energy is None:
            return inner
        return Subspace(inner, basis, self._find_basis)

    def _inner(self, tensors: Mapping[str, Tensor]) -> Predictor:
        from ditstack.maths import predictors

        if self.predictor == "taylor":
            return predictors.Taylor(int(tensors["forecast"][0]) if "forecast" in tensors else self.order)
        if self.predictor == "holt":
            return predictors.Holt(self.beta)
        return predictors.Ema(self.beta) if self.predictor == "ema" else predictors.Reuse()

    def _find_basis(self, feature_BTD: Tensor) -> Tensor:
        from ditstack.maths.lowrank import gram, leading

        return leading(gram(feature_BTD), self.rank, self.energy)
