"""halves: guidance's unconditional half runs in full more seldom than the conditional one (as FasterCache, 2410.19355).

Between full steps the conditional half is forecast to first order in the step's index, on graded full steps. Of the
unconditional half its difference to the conditional one is:

    F_u = F_c + D,   D = F_u - F_c extrapolated from the steps on which both ran in full

Outside of `guided` the unconditional half takes the conditional one's answer, which is no guidance at all. Or, from
some step on, the conditional half runs alone on full steps and the other is regressed on it (LinearAG, 2312.12487):

    F_u = a F_u(1) + b F_u(2) + c F_c(1) + d F_c

(1) and (2) being the last full steps; the scalars of each step are least squares over calibration prompts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ditstack.maths import schedule

from ._rows import RowForecasts

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from torch import Tensor

    from ditstack.plugin import Calibration, FeatureCache, Pipe

SCALARS = ".scalars"
TERMS = 4
"""Scalars of a step: see the module's text."""
RIDGE = 1e-6
Share = Annotated[float, Field(ge=0, le=1)]


class Halves(RowForecasts):
    """One full step in `interval` for the conditional half; one in `every` of those for the unconditional one."""

    neutral: ClassVar[dict[str, Any] | None] = {"interval": 1, "every": 1}

    factors_field: ClassVar[str] = "factors"
    unattended: ClassVar[dict[str, Any]] = {"calibrate": "auto"}
    incidental: ClassVar[frozenset[str]] = frozenset({"factors", "calibrate"})
    fittable: ClassVar[dict[str, Any]] = {"regressed": True}

    interval: Annotated[int, Field(ge=1)] | Annotated[float, Field(ge=1)] = 4
    """One step in so many is full for the conditional half, and for models without guidance."""
    every: Annotated[int, Field(ge=1)] = 2
    """Of those full steps, one in so many is full for the unconditional half too."""
    difference: bool = True
    """Whether the halves' difference is forecast; else the unconditional half by itself."""
    guided_from: Share = 0.0
    """The share of the steps before which guidance is off."""
    guided_to: Share = 1.0
    """The share of the steps after which guidance is off, or the unconditional half is `regressed`."""
    regressed: bool = False
    """Whether the unconditional half is regressed on the conditional one after `guided_to`: fitted beforehand."""
    factors: str | None = None
    """A factors file; None keeps them in the user's cache folder under the recipe's name."""
    calibrate: Literal["auto", "never"] = "never"
    """What to do where fitted factors are wanted and missing or stale: fit them now, or refuse."""

    @model_validator(mode="after")
    def _both_before(self) -> Halves:
        if self.regressed and (self.every > 1 or self.guided_from > 0):
            raise ValueError("regressed wants both halves on all full steps before guided_to: write every: 1")
        return self

    @property
    def wants_factors(self) -> bool:
        return self.regressed

    @property
    def fitted_for(self) -> frozenset[str]:
        """There is a row of scalars for every step."""
        return frozenset({"steps"}) if self.regressed else frozenset()

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import cache_trunks

        pipe.policy = policy_of(self, pipe)
        store = self.forecasts(pipe)
        partner = partner_of(pipe.policy)
        if self.regressed:
            store.told = lambda key, time: self._told(pipe, store, key, partner(key), time)
        elif self.difference:
            store.beside = partner
        cache_trunks(pipe, store)

    def full_steps(self, steps: int, unguided: bool) -> tuple[int, ...]:
        """The full steps of one half, of a generation of `steps`."""
        full = schedule.graded(steps, math.ceil(steps / self.interval))
        if unguided and self.regressed:
            return full[: max(2, sum(self.is_guided(step, steps) for step in full))]
        return full[:: self.every] if unguided else full

    def is_guided(self, index: int, steps: int) -> bool:
        """Whether guidance is on at a step."""
        return self.guided_from * steps <= index < max(1, self.guided_to * steps)

    def is_fitted(self, store: FeatureCache, steps: int) -> bool:
        """Whether there are scalars for a generation of so many steps; else both halves run on every full step."""
        return bool(store.factors) and all(len(one) == steps for one in store.factors.values())

    def _told(self, pipe: Pipe, store: FeatureCache, key: Any, other: Any, time: float) -> Tensor | None:
        """What the conditional half, having just run alone, tells of the other."""
        if other is None or not self.is_fitted(store, pipe.clock.steps):
            return None
        (uncond, cond), step = (store.memories[one].known for one in (key, other)), pipe.clock.index  # pyright: ignore
        if cond[-1][1] != time or len(cond) < 2 or len(uncond) < 2:
            return None
        known = (uncond[-1][0], uncond[-2][0], cond[-2][0], cond[-1][0])
        scalars = store.factors[f"{key[0]}{SCALARS}"][step].tolist()
        parts = [scalar * one.float() for scalar, one in zip(scalars, known, strict=True)]
        return sum(parts[1:], parts[0]).to(known[0].dtype)

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """The scalars of every step on which the conditional half is to run alone, both halves running on them."""
        from ditstack.plugin import FeatureCache

        store, steps = FeatureCache.on(pipe), calibration.sampler.steps
        products = Products(store, partner_of(pipe.policy), self.full_steps(steps, False))

        def run(place: range) -> None:
            products.past.clear()
            calibration.latents(place)

        store.listeners.append(products)
        try:
            with store.trial({}):
                calibration.gather("both halves", products.sums, run)
        finally:
            store.listeners.remove(products)
        return products.scalars(steps)

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        from ditstack.plugin import FeatureCache

        FeatureCache.on(pipe).take(tensors)

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        wrong = [f"{name}: unknown" for name in tensors if not name.endswith(SCALARS)]
        shapes = {name: tuple(one.shape) for name, one in tensors.items() if name.endswith(SCALARS)}
        wrong += [
            f"{name}: found the shape {one}; wanted {TERMS} for each step"
            for name, one in shapes.items()
            if one[1:] != (TERMS,)
        ]
        return wrong + [f"{site}{SCALARS}: missing" for site in sites_of(pipe) if f"{site}{SCALARS}" not in tensors]


def sites_of(pipe: Pipe) -> list[str]:
    """The names that the residuals of all trunks are kept by."""
    lasts = {site: blocks[-1] for site, blocks in pipe.trunks.items()}
    return [site if name == last.hidden else f"{site}.{name}" for site, last in lasts.items() for name in last.places]


class Products:
    """Of what both halves keep at full steps: products of the regressors and of what is wanted, by site and step."""

    def __init__(self, store: FeatureCache, partner: Any, full: Sequence[int]) -> None:
        self.store, self.partner, self.full = store, partner, full
        self.sums: dict[str, Tensor] = {}
        self.past: dict[Any, dict[float, tuple[Tensor, Tensor]]] = {}

    def __call__(self, site: str, feature: Tensor) -> None:
        """A feature is kept, of one half or of both."""
        for key in [key for key in self.store.memories if key[0] == site]:  # pyright: ignore
            other = self.store.memories.get(self.partner(key))
            if other is not None:
                self._add(key, self.store.memories[key].known[-1], other.known[-1])  # pyright: ignore

    def _add(self, key: Any, uncond: tuple[Tensor, float], cond: tuple[Tensor, float]) -> None:
        import torch

        past, step = self.past.setdefault(key, {}), uncond[1]
        if cond[1] != step or step in past:
            return
        past[step] = uncond[0], cond[0]
        place = self.full.index(int(step))
        if place < 2:
            return
        last, before = (past[self.full[place - back]] for back in (1, 2))
        known = (last[0], before[0], last[1], cond[0], uncond[0])
        columns = torch.stack([one.flatten().double() for one in known], 1)
        name = f"{key[0]}/{int(step)}"
        self.sums[name] = self.sums.get(name, 0) + (columns.mT @ columns).cpu()

    def scalars(self, steps: int) -> dict[str, Tensor]:
        """Least squares, a row for each step."""
        import torch

        found: dict[str, Tensor] = {}
        for name, normal in self.sums.items():
            site, _, step = name.rpartition("/")
            rows = found.setdefault(f"{site}{SCALARS}", torch.zeros(steps, TERMS, dtype=torch.float64))
            within, wanted = normal[:-1, :-1], normal[:-1, -1]
            ridge = RIDGE * within.diagonal().mean() * torch.eye(TERMS, dtype=torch.float64)
            rows[int(step)] = torch.linalg.solve(within + ridge, wanted)
        return found


def policy_of(halves: Halves, pipe: Pipe) -> Any:
    """Each row on the schedule of its half."""
    from ditstack.plugin import COPIED, FULL, FeatureCache, RowPolicy

    class Policy(RowPolicy):
        def decide(self, row: Hashable, unguided: bool, last: int) -> str:
            index, steps = self.clock.index, self.clock.steps
            if unguided and not halves.regressed and not halves.is_guided(index, steps):
                return COPIED
            own = unguided and (not halves.regressed or halves.is_fitted(FeatureCache.on(pipe), steps))
            missed = any(last < step <= index for step in halves.full_steps(steps, own))
            return FULL if missed else "forecast"

    return Policy(pipe.clock, pipe.unguided)


def partner_of(policy: Any) -> Any:
    """Of a memory's key (site, branch, row), that of the same picture's conditional half; None where it is that."""

    def partner(key: Any) -> Hashable:
        site, (module, name, rows), place = key
        if name == "uncond":
            return site, (module, "cond", rows), place
        return (site, (module, name, rows), (place + rows // 2) % rows) if key[1:] in policy.unconditional else None

    return partner
