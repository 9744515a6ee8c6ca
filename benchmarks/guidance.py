"""A guidance cache with fitted coefficients: the unconditional half is not run, it is regressed (LinearAG, 2312.12487).

On some full steps the conditional half runs alone. The unconditional half's residual over the trunk is then

    F_u = a F_u(1) + b F_u(2) + c F_c(1) + d F_c(2) + e F_c

(1) and (2) being the last two steps on which both halves ran in full; the five scalars of each such step are least
squares over calibration prompts, without a cache. What comes out counts as a full step for the forecasts after it.

It is measured here (`benchmarks/rows.py`) and is no method of the shelf: see docs/promise.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ditstack import plugin
from ditstack.maths.predictors import Taylor
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load

FIT_SEED = 50_000
RIDGE = 1e-6

Steps = tuple[int, ...]
Halves = tuple[dict[int, Tensor], dict[int, Tensor]]
"""What the unconditional and the conditional half kept, by step."""
Coefficients = dict[tuple[str, int], tuple[Steps, list[float]]]
"""Of each site and step on which the conditional half runs alone: the last steps on which both ran, and the scalars."""


class TwoSchedules(plugin.RowPolicy):
    """Each half of guidance has full steps of its own."""

    def __init__(self, pipe: plugin.Pipe, cond: Sequence[int], uncond: Sequence[int]) -> None:
        super().__init__(pipe.clock, pipe.unguided)
        self.cond, self.uncond = frozenset(cond), frozenset(uncond)

    def decide(self, row: Hashable, unguided: bool, last: int) -> str:
        full = self.uncond if unguided else self.cond
        return plugin.FULL if self.clock.index in full else "forecast"

    def partner_of(self, key: Any) -> Any:
        """Of a memory's key (site, branch, row), that of the same picture's conditional half; None where it is that."""
        site, (module, name, rows), place = key
        if name == "uncond":
            return site, (module, "cond", rows), place
        return (site, (module, name, rows), (place + rows // 2) % rows) if key[1:] in self.unconditional else None


class Regressed(plugin.FeatureCache):
    """Rows whose partner has just run in full are regressed on it, and remembered as if they had run."""

    def __init__(self, pipe: plugin.Pipe, policy: TwoSchedules, coefficients: Coefficients) -> None:
        super().__init__(pipe, lambda site: Taylor(1), "step")
        self.partner_of, self.coefficients = policy.partner_of, coefficients
        self.seen: Callable[[str, bool, int, Tensor], None] = lambda site, unguided, step, feature: None
        self._past: dict[Hashable, dict[int, Tensor]] = {}

    def forget(self) -> None:
        super().forget()
        self._past = {}

    def _keep(self, site: str, key: Hashable, feature: Tensor) -> None:
        super()._keep(site, key, feature)
        self._past.setdefault(key, {})[int(self._time())] = feature
        self.seen(site, self.partner_of(key) is not None, int(self._time()), feature)

    def _at(self, key: Any, time: float) -> Tensor:
        other = self.partner_of(key)
        if other is not None and self._kept_at[key] != time and self._kept_at.get(other) == time:
            both, scalars = self.coefficients[key[0], int(time)]
            known = regressors((self._past[key], self._past[other]), both, int(time))
            regressed = torch.stack([a * x for a, x in zip(scalars, known, strict=True)]).sum(0)
            self.memories[key].keep(regressed, time)
            self._kept_at[key] = time
        return self.memories[key].at(time)


def regressors(known: Halves, both: Steps, step: int) -> list[Tensor]:
    uncond, cond = known
    return [*(uncond[one] for one in both), *(cond[one] for one in both), cond[step]]


def standing(recipe: Recipe, cond: Steps, uncond: Steps, coefficients: Coefficients) -> Stack:
    """A plain recipe's stack under the guidance cache."""
    stack = load(recipe)
    policy = stack.pipe.policy = TwoSchedules(stack.pipe, cond, uncond)
    plugin.cache_trunks(stack.pipe, Regressed(stack.pipe, policy, coefficients))
    return stack


def recorded(recipe: Recipe, prompts: Sequence[str]) -> dict[str, Halves]:
    """What both halves keep at every site on every step, without a cache, a row for each prompt."""
    every = tuple(range(recipe.sampler.steps))
    stack = standing(recipe, every, every, {})
    found: dict[str, tuple[dict[int, list[Tensor]], dict[int, list[Tensor]]]] = {}

    def see(site: str, unguided: bool, step: int, feature: Tensor) -> None:
        uncond, cond = found.setdefault(site, ({}, {}))
        (uncond if unguided else cond).setdefault(step, []).append(feature)

    Regressed.on(stack.pipe).seen = see
    for place, prompt in enumerate(prompts):
        stack.sample([prompt], [FIT_SEED + place])
    return {site: (_joined(uncond), _joined(cond)) for site, (uncond, cond) in found.items()}


def _joined(half: dict[int, list[Tensor]]) -> dict[int, Tensor]:
    return {step: torch.cat(rows) for step, rows in half.items()}


def fitted(record: dict[str, Halves], cond: Steps, uncond: Steps) -> Coefficients:
    """The scalars of every step on which the conditional half runs alone."""
    found: Coefficients = {}
    for step in (one for one in cond if one not in uncond):
        both = tuple(one for one in uncond if one < step)[-2:]
        for site, known in record.items():
            columns = [one.flatten().double() for one in (*regressors(known, both, step), known[0][step])]
            found[site, step] = both, _solved(torch.stack([one @ other for one in columns for other in columns]))
    return found


def _solved(products: Tensor) -> list[float]:
    """Least squares, from the products of the regressors and of what is wanted, which is the last."""
    normal = products.unflatten(0, (math.isqrt(len(products)), -1))
    within, wanted = normal[:-1, :-1], normal[:-1, -1]
    ridge = RIDGE * within.diagonal().mean() * torch.eye(len(within), dtype=torch.float64)
    return torch.linalg.solve(within + ridge, wanted).tolist()
