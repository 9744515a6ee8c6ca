"""Places: what travels with a picture or report tells names and kinds, never where something lies, nor objects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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


def described(value: Any) -> Any:
    """Plain data; a picture, a tensor or another object becomes a sentence that tells it from another one."""
    if isinstance(value, Mapping):
        return {str(key): described(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(one) for one in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return f"a {_kind(value)}{_content(value)}"


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None) or getattr(value, "size", None)
    sides = " x ".join(str(side) for side in shape) if isinstance(shape, tuple) else ""
    return f"{type(value).__name__} of {sides}" if sides else type(value).__name__


def _content(value: Any) -> str:
    """The beginning of a hash, where there are bytes to be had."""
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    if not hasattr(value, "tobytes"):
        return ""
    return f", sha256 {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
