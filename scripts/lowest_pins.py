"""Print `name==version` for every lower bound in pyproject.toml, of the package and of the extras that tests need.

usage: lowest_pins.py [NAME==VERSION ...]      what is named here is taken as it is named
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

KEPT = {"ruff", "pyright", "playwright"}
"""Not pinned: tools that only read or look are no part of what runs."""


def pins(project: dict, *chosen: str) -> list[str]:
    """Of the direct dependencies, and of those of the extra `test`, which names further extras of the package."""
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["test"]]]
    for own in [one for one in wanted if one.name == project["name"]]:
        wanted += [Requirement(text) for extra in sorted(own.extras) for text in extras[extra]]
    others = KEPT | {project["name"]} | {Requirement(text).name for text in chosen}
    named = [one for one in wanted if one.name not in others]
    bounds = [(one.name, bound) for one in named for bound in one.specifier]
    return [*chosen, *(f"{name}=={bound.version}" for name, bound in bounds if bound.operator == ">=")]


if __name__ == "__main__":
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(pins(tomllib.loads(text)["project"], *sys.argv[1:])))
