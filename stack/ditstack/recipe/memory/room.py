"""Room: whether a recipe fits into what a device has, what to change where it does not, and how recipes rank."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from ditstack.errors import Incompatible
from ditstack.recipe.memory.planned import MemoryPlan, gb, planned, with_offload
from ditstack.recipe.recipe import Recipe


@dataclass(frozen=True)
class Fit:
    """A plan beside the bytes that there are.

    Attributes:
        advice: what makes it fit, where something does; empty where it fits already.
    """

    plan: MemoryPlan
    room: float
    advice: str = ""

    @property
    def fits(self) -> bool:
        return self.plan.needs <= self.room

    def __str__(self) -> str:
        where = f"of {gb(self.room)}"
        return f"fits into a device {where}" if self.fits else f"does not fit into a device {where}; {self.advice}"


def room_here(recipe: Recipe) -> int:
    """Bytes of the device that a recipe runs on: of its GPU, or of the computer's memory."""
    import torch

    place = recipe.model.place()
    if place.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(place).total_memory
    return psutil.virtual_memory().total


def fit(recipe: Recipe, device: str = "", room: float = 0) -> Fit | None:
    """Whether a recipe fits; None where the sizes of its model are not known.

    Args:
        device: "cuda" or "cpu"; empty asks the recipe and this machine.
        room: bytes that there are; 0 asks this machine.
    """
    plan = planned(recipe, device)
    if plan is None:
        return None
    room = room or room_here(recipe)
    return Fit(plan, room, "" if plan.needs <= room else _advice(recipe, plan, room))


def _advice(recipe: Recipe, plan: MemoryPlan, room: float) -> str:
    if plan.device != "cuda":
        return "take a GPU, or a smaller model"
    if (found := with_offload(recipe, plan.device, room)) is not None:
        return f"with `--set model.offload={found[0]}` it needs about {gb(found[1].needs)}"
    if plan.decode > room / 2:
        return "no offload helps, since decoding alone takes most of it: ask for fewer frames or a smaller size"
    return "no offload helps: take weights of fewer bits, a smaller size or a smaller model"


def check_room(recipe: Recipe) -> str:
    """What to say before a model is loaded that is planned not to fit; empty where it fits or nothing is known.

    Raises:
        Incompatible: the weights alone are larger than all that the device has.
    """
    found = fit(recipe)
    if found is None or found.fits:
        return ""
    plan = found.plan
    where = "the GPU has" if plan.device == "cuda" else "this computer has"
    if plan.weights > found.room:
        said = f"its weights alone take {gb(plan.weights)}, and {where} {gb(found.room)}; {found.advice}"
        raise Incompatible(f"{recipe.name} cannot be stacked:", [said])
    return f"{recipe.name} is planned to need {gb(plan.needs)}, and {where} {gb(found.room)}; {found.advice}"
