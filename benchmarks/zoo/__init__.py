"""Pipeline classes of diffusers in small, one builder for each: text, pictures, videos, edits and controls."""

import importlib
import pkgutil

from .registry import CASES

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["CASES"]
