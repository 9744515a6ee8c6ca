"""Places: what may travel with a picture tells names, never where on a machine something lies."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


def without_places(value: Any) -> Any:
    """Plain data in which no path tells where on a machine it lies."""
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_places(one) for one in value]
    return last_name(value) if isinstance(value, str) else value


def last_name(text: str) -> str:
    """Of an absolute path, or one from `~` or `..`, the last name; other text as it is."""
    places = (PurePosixPath(text), PureWindowsPath(text))
    outside = text.startswith(("~", "..")) or any(one.is_absolute() for one in places)
    return places["\\" in text].name if outside and "\n" not in text else text
