"""Layers of a recipe: files that extend one another and `--set` overrides, merged, each key with its origin."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ditstack.errors import BadFile, RecipeError
from ditstack.files import expand, is_there, read_text
from ditstack.recipe import documents
from ditstack.recipe.adapter import STAGES, suggest

Data = dict[str, Any]
SET = "--set"
DEEPEST_SET, MOST_LAYERS = 8, 20
"""Keys in the path of one `--set`, and recipes that extend one another."""


@dataclass
class Layered:
    """Merged data, in which layer each dotted path was last written, and what was wrong already while reading."""

    name: str
    file: str
    files: list[str] = field(default_factory=list)
    """The layers, oldest first; every `--set` belongs to the last one."""
    data: Data = field(default_factory=dict)
    origin: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def plain(cls, name: str, data: Mapping[str, Any]) -> Layered:
        layered = cls(name, name)
        layered.add(data, name)
        return layered

    def where(self, path: str) -> str:
        """The file (or "--set") that the nearest known part of `path` was written in."""
        while path and path not in self.origin:
            path = path.rpartition(".")[0]
        return self.files[self.origin[path]] if path else self.file

    def suppose(self, path: tuple[str, str], value: Any, because: str) -> None:
        """Write a value in the layer that wrote `because`, unless `path` is written there or in a later one."""
        (section, key), layer = path, self.origin[because]
        found = self.data.setdefault(section, {}) or {}
        if not isinstance(found, dict) or (found.get(key) is not None and self.origin[".".join(path)] >= layer):
            return
        self.data[section] = {**found, key: value}
        self.origin[".".join(path)] = layer

    def add(self, data: Mapping[str, Any], file: str) -> None:
        """Lay one more layer on top."""
        if self.files[-1:] != [SET]:
            self.files.append(file)
        normal = {key: _stage_fields(value) if key in STAGES else value for key, value in data.items()}
        for stage in STAGES:
            if stage in normal and not isinstance(normal[stage], (dict, type(None))):
                self.reasons.append(f"{file}: {stage}: found {normal[stage]!r}; write a method's name or a mapping")
                normal.pop(stage)
        _merge(self.data, normal, (), len(self.files) - 1, self.origin)


def shelf() -> Path:
    """The folder of the shipped recipes: inside the wheel, or at the root of a checkout."""
    inside = Path(__file__).parents[1] / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "recipes"


def shelf_names() -> list[str]:
    return sorted(path.stem for path in shelf().glob("*.yaml"))


def read_layers(name_or_path: str | Path, changes: list[str]) -> Layered:
    """Read a recipe with all that it extends, then lay the "path=value" changes over it."""
    path = locate(str(name_or_path), Path.cwd())
    layered = Layered(path.stem, path.name)
    for data, file in _chain(path, ()):
        layered.add({key: value for key, value in data.items() if key != "extends"}, file)
    for change in changes:
        _set(layered, change)
    return layered


def plain_layers(data: Mapping[str, Any], name: str, changes: Sequence[str] = ()) -> Layered:
    """Plain data over the recipe that it extends, if it does, and "path=value" changes over both."""
    above = data.get("extends")
    layered = read_layers(above, []) if isinstance(above, (str, Path)) else Layered(name, name)
    layered.name, layered.file = name, name
    layered.add({key: value for key, value in data.items() if key != "extends"}, name)
    for change in changes:
        _set(layered, change)
    return layered


def locate(name_or_path: str, beside: Path) -> Path:
    """A recipe's file: a path if there is one, else the shelf."""
    try:
        as_path = beside / expand(name_or_path)
        if as_path.suffix in (".yaml", ".yml") and is_there(as_path, "the recipe"):
            return as_path.resolve()
    except (BadFile, OSError, RuntimeError) as error:
        raise RecipeError(f"no recipe {name_or_path[:80]!r}", [str(error)]) from None
    if name_or_path in shelf_names():
        return shelf() / f"{name_or_path}.yaml"
    hint = suggest(name_or_path[:80], shelf_names())
    raise RecipeError(f"no recipe {name_or_path[:80]!r}", [f"neither a .yaml file nor a name on the shelf; {hint}"])


def about(name: str) -> str:
    """What a recipe on the shelf says of itself: the comment at its head."""
    lines = (shelf() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in head)


def is_recipe(name_or_path: str) -> bool:
    """Whether a recipe can be read under this name or path."""
    return expand(name_or_path).suffix in (".yaml", ".yml") or name_or_path in shelf_names()


def _chain(path: Path, seen: tuple[Path, ...]) -> list[tuple[Data, str]]:
    """The layers of `path`, oldest first."""
    if path in seen:
        names = " -> ".join(one.name for one in (*seen[seen.index(path) :], path))
        raise RecipeError(f"recipe {seen[0].stem} cannot be used:", [f"{path.name}: extends: a cycle: {names}"])
    if len(seen) >= MOST_LAYERS:
        raise RecipeError(f"recipe {seen[0].stem} cannot be used:", [f"it extends more than {MOST_LAYERS} recipes"])
    data = _load(path)
    above = data.get("extends")
    if above is None:
        return [(data, path.name)]
    if not isinstance(above, str):
        raise RecipeError(
            f"recipe {path.stem} cannot be used:", [f"{path.name}: extends: found {above!r}; name one recipe"]
        )
    return [*_chain(locate(above, path.parent), (*seen, path)), (data, path.name)]


def _load(path: Path) -> Data:
    try:
        data = documents.parse(read_text(path, documents.LARGEST, "the recipe"))
    except (documents.Unreadable, BadFile) as error:
        raise RecipeError(f"recipe {path.name} cannot be read:", [str(error)]) from None
    if not isinstance(data, dict):
        raise RecipeError(
            f"recipe {path.name} cannot be read:", [f"found {type(data).__name__}; wanted keys and values"]
        )
    return data


def _set(layered: Layered, change: str) -> None:
    path, equals, value = change.partition("=")
    keys, shown = path.strip().split("."), change if len(change) <= 80 else f"{change[:77]}..."
    if not equals or not all(keys) or len(keys) > DEEPEST_SET or len(path) > documents.LONGEST_KEY:
        layered.reasons.append(f"--set {shown}: write it as path=value, such as cache.interval=7")
        return
    try:
        data: Any = documents.parse(value)
    except documents.Unreadable as error:
        layered.reasons.append(f"--set {shown}: the value is not valid YAML: {error}")
        return
    for key in reversed(keys):
        data = {key: data}
    layered.add(data, SET)


def _stage_fields(value: Any) -> Any:
    """`cache: svdcache` is short for `cache: {method: svdcache}`; `cache: none` leaves the stage out."""
    if value in (None, "none") or (isinstance(value, dict) and value.get("method") == "none"):
        return None
    return {"method": value} if isinstance(value, str) else value


def _merge(base: Data, over: Mapping[str, Any], path: tuple[str, ...], layer: int, origin: dict[str, int]) -> None:
    for key, value in over.items():
        here = (*path, str(key))
        origin[".".join(here)] = layer
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _other_method(old, value):
            _merge(old, value, here, layer, origin)
        elif isinstance(value, dict):
            base[key] = {}
            _merge(base[key], value, here, layer, origin)
        else:
            base[key] = value


def _other_method(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return {"method"} <= new.keys() & old.keys() and new["method"] != old["method"]
