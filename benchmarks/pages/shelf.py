"""The shelf as a table: which recipe for which model and GPU, as each recipe says of itself."""

from __future__ import annotations

from ditstack.recipe.adapter import STAGES, methods
from ditstack.recipe.layers import read_layers, shelf, shelf_names
from ditstack.recipe.memory.planned import MemoryPlan, gb, planned, with_offload
from ditstack.recipe.recipe import Recipe
from lines import head, line


def table() -> str:
    """A table for each model."""
    lines: list[str] = []
    for model in methods("model"):
        named = [name for name in shelf_names() if read_layers(name, []).data["model"]["method"] == model]
        if named:
            lines += [f"### {model}", "", *head(["recipe", "what for", "the machine must have"])]
            lines += [line([f"`{name}`", _says(name), "; ".join(_wants(name)) or "nothing more"]) for name in named]
            lines.append("")
    return "\n".join(lines)


def _says(name: str) -> str:
    """The comment that the recipe opens with."""
    first = (shelf() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip().replace("|", "\\|")


def _wants(name: str) -> list[str]:
    """The machine's part of what its stages need, and the packages."""
    recipe = Recipe.read(name)
    found: list[str] = []
    for stage in STAGES:
        adapter = recipe.adapters.get(stage)
        if adapter is not None:
            found += sorted(one.sentence for one in adapter.needs if one.probe is not None)
            found += [f"ditstack[{adapter.extra}]"] if getattr(adapter, "extra", "") else []
    return list(dict.fromkeys(found))


ROOMS = (16, 24, 48, 80)
"""GPUs' memories in GB."""


def memory() -> str:
    """What each recipe of a large model needs, and what fits where."""
    lines = head(["recipe", "needs", *(f"{room} GB" for room in ROOMS)])
    for name in shelf_names():
        recipe = Recipe.read(name)
        plan = planned(recipe, "cuda")
        if plan is not None and recipe.model.method != "tiny":
            lines.append(line([f"`{name}`", gb(plan.needs), *(_fits(recipe, plan, room * 1e9) for room in ROOMS)]))
    return "\n".join(lines)


def _fits(recipe: Recipe, plan: MemoryPlan, room: float) -> str:
    if plan.needs <= room:
        return "fits"
    found = with_offload(recipe, "cuda", room)
    return f"offload: {found[0]}" if found else "no"
