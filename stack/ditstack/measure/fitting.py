"""Fitting: the shelf for a device of so many bytes: what fits first, then the fastest that is known, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ditstack.errors import BadFile, DitstackError
from ditstack.files import is_there, read_text
from ditstack.measure.check import Outcome, file_of
from ditstack.recipe.adapter import Cache
from ditstack.recipe.layers import about
from ditstack.recipe.memory.planned import gb
from ditstack.recipe.memory.room import Fit, fit
from ditstack.recipe.recipe import Recipe

TOY = 10**8
"""Parameters below which a model is there to try things on: it stands behind the others."""
CALIBRATED = 0.41
"""What a calibrated step takes of a full one: measured at rank D/8 on a 12-block FLUX, docs/speed.md."""


@dataclass(frozen=True)
class Ranked:
    """A recipe on a device of a given size.

    Attributes:
        faster: than the plain model with all its steps: measured here by `ditstack check`, or planned from passes of
            the network. Kernels and rounded products are not in a plan.
    """

    recipe: str
    fit: Fit
    faster: float
    measured: bool
    why: str

    @property
    def toy(self) -> bool:
        return self.fit.plan.parameters < TOY

    def row(self) -> dict[str, Any]:
        plan = self.fit.plan
        return {
            "recipe": self.recipe,
            "fits": self.fit.fits,
            "needs_bytes": round(plan.needs),
            "room_bytes": round(self.fit.room),
            "offload": plan.offload,
            "advice": self.fit.advice,
            "faster": round(self.faster, 3),
            "measured": self.measured,
            "why": self.why,
            "about": about(self.recipe),
        }


def ranking(names: list[str], room: float, device: str = "cuda") -> list[Ranked]:
    """Recipes on a device of so many bytes: those that fit first, of those the fastest first, then the smallest.

    Models that are there to try things on stand behind the others of each half.
    """
    found = [one for name in names if (one := _ranked(name, room, device)) is not None]
    return sorted(
        found, key=lambda one: (not one.fit.fits, one.toy, -round(one.faster, 2), one.fit.plan.needs, one.recipe)
    )


def not_ranked(names: list[str], ranked: list[Ranked]) -> str:
    """A sentence that names the recipes of whose models no size is known; empty where there are none."""
    left_out = sorted({*names} - {one.recipe for one in ranked})
    return f"not ranked, as the size of their models is not known: {', '.join(left_out)}" if left_out else ""


def _ranked(name: str, room: float, device: str) -> Ranked | None:
    try:
        recipe = Recipe.read(name)
        found = fit(recipe, device, room)
    except DitstackError:
        return None
    if found is None:
        return None
    if (outcome := _remembered(recipe)) is not None:
        psnr = outcome.to_baseline["psnr"]
        kept = "kept" if outcome.ok else "missed"
        why = f"measured here: {outcome.speedup:.2f}x, PSNR {psnr.mean:.1f} (from {psnr.low:.1f}), gate {kept}"
        return Ranked(name, found, outcome.speedup, True, why)
    faster, said = _planned_speed(recipe)
    gate = ", ".join(f"{key} {limit:g}" for key, limit in recipe.quality.limits().items())
    return Ranked(
        name, found, faster, False, f"planned: {said}; quality " + (f"gate {gate}" if gate else "not measured")
    )


def _remembered(recipe: Recipe) -> Outcome | None:
    path = file_of(recipe)
    try:
        return Outcome.model_validate_json(read_text(path)) if is_there(path) else None
    except (BadFile, ValidationError):
        return None


def _planned_speed(recipe: Recipe) -> tuple[float, str]:
    """How many times fewer passes of the network than the plain model takes, and of what kinds its steps are."""
    base, sampler = _base_of(recipe), recipe.sampler
    before = base.sampler.steps * _passes(base)
    cache = recipe.adapters.get("cache")
    kinds = cache.kinds(sampler.steps) if isinstance(cache, Cache) else ("full",) * sampler.steps
    if kinds is None:
        return before / (sampler.steps * _passes(recipe)), f"{sampler.steps} steps, of which the pictures decide"
    counts = Counter(kinds)
    work = (counts["full"] + CALIBRATED * counts["calibrated"]) * _passes(recipe)
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return before / work, f"{said} steps"


def _base_of(recipe: Recipe) -> Recipe:
    """The family's own recipe: the plain model with all its steps."""
    try:
        return Recipe.read(recipe.model.method)
    except DitstackError:
        return recipe.plain()


def _passes(recipe: Recipe) -> int:
    return 2 if (recipe.sampler.guidance or 0) > 1 else 1


def ranking_lines(ranked: list[Ranked]) -> list[str]:
    """One line for each: whether it fits, what it needs, its name, why it stands there, and what would make it fit."""
    named = max((len(one.recipe) for one in ranked), default=0)
    lines = []
    for one in ranked:
        fits, needs = "fits" if one.fit.fits else "no  ", gb(one.fit.plan.needs)
        more = f"; {one.fit.advice}" if one.fit.advice else ""
        lines.append(f"{fits}  {needs:>8}  {one.recipe:{named}}  {one.faster:5.2f}x  {one.why}{more}")
    return lines
