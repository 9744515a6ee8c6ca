"""Print `name==version` for every lower bound in pyproject.toml, of the package and of the extras that tests need."""

from __future__ import annotations

from pathlib import Path

import tomli
from packaging.requirements import Requirement

KEPT = {"torch", "ruff", "pyright", "playwright"}
"""Not pinned: the build of torch is chosen elsewhere, and tools that only read or look are no part of what runs."""


def pins(project: dict) -> list[str]:
    """Of the direct dependencies, and of those of the extra `test`, which names further extras of the package."""
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["test"]]]
    for own in [one for one in wanted if one.name == project["name"]]:
        wanted += [Requirement(text) for extra in sorted(own.extras) for text in extras[extra]]
    named = [one for one in wanted if one.name not in KEPT | {project["name"]}]
    return [f"{one.name}=={bound.version}" for one in named for bound in one.specifier if bound.operator == ">="]


if __name__ == "__main__":
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(pins(tomli.loads(text)["project"])))
