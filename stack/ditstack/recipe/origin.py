"""Origin: which installed distribution brought a method, and in which version."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

from ditstack.recipe.adapter import NAMESPACE, Adapter
from ditstack.recipe.recipe import Recipe

LISTS = ("RECORD", "installed-files.txt", "SOURCES.txt")
"""Where a distribution's files are listed, as `importlib.metadata` knows them."""
UNPACKAGED = "no installed distribution"


def origins(recipe: Recipe) -> dict[str, str]:
    """Of each stage, the distribution and version that its method is of: "ditstack-late 0.1.0"."""
    found = {stage: distribution_of(type(adapter)) for stage, adapter in recipe.stages()}
    return {
        stage: UNPACKAGED if one is None else f"{one.metadata['Name']} {one.version}" for stage, one in found.items()
    }


@functools.cache
def distribution_of(kind: type[Adapter]) -> Distribution | None:
    """The distribution whose files, or whose editable folder, hold a method's file; None where it is of none."""
    file = Path(str(importlib.import_module(kind.__module__).__file__)).resolve()
    inside = Path(*kind.__module__.split(".")).with_suffix(".py")
    for one in importlib.metadata.distributions():
        if (folder := _editable_folder(one)) is not None and _project(file) == folder:
            return one
        files = (one.files or ()) if _lists_methods(one) else ()
        listed = (entry for entry in files if entry.parts[:1] == (NAMESPACE,) and Path(entry) == inside)
        if any(Path(str(one.locate_file(entry))).resolve() == file for entry in listed):
            return one
    return None


def _lists_methods(distribution: Distribution) -> bool:
    """Whether a distribution brings any method; its list of files may be long, and is read as text first."""
    return any(NAMESPACE in (distribution.read_text(name) or "") for name in LISTS)


def _project(file: Path) -> Path | None:
    """The nearest folder above a file that is a project of its own."""
    return next((folder for folder in file.parents if (folder / "pyproject.toml").is_file()), None)


def _editable_folder(distribution: Distribution) -> Path | None:
    """The folder that an editable install points to."""
    text = distribution.read_text("direct_url.json")
    told = json.loads(text) if text else {}
    if not told.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(told["url"]).path)).resolve()
