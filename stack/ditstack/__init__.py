"""ditstack: stack accelerations on Diffusion Transformers, and see what each stack costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ditstack.errors import BadFile, BadPipeline, DitstackError, Incompatible, RecipeError, StaleFactors
    from ditstack.recipe.recipe import Recipe
    from ditstack.report import Report
    from ditstack.stack import Stack, apply, load

_ROOMS = {
    "errors": ("BadFile", "BadPipeline", "DitstackError", "Incompatible", "RecipeError", "StaleFactors"),
    "recipe.recipe": ("Recipe",),
    "report": ("Report",),
    "stack": ("Stack", "apply", "load"),
}

__version__: str

__all__ = [  # noqa: RUF022
    "apply", "load", "Recipe", "Stack", "Report",
    "DitstackError", "BadFile", "BadPipeline", "Incompatible", "RecipeError", "StaleFactors",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: reading a recipe should not wait for diffusers."""
    import importlib
    import importlib.metadata

    if name == "__version__":
        return importlib.metadata.version("ditstack")
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"ditstack.{room}"), name)
    raise AttributeError(f"module 'ditstack' has no attribute {name!r}")
