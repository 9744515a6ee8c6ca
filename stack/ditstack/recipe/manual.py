"""Manual: what a method's fields are, as its own file says it: for people, and as a JSON schema for their editors."""

from __future__ import annotations

import difflib
import inspect
import sys
from dataclasses import dataclass
from typing import Any

from ditstack.errors import RecipeError
from ditstack.recipe.adapter import STAGES, Adapter, find, methods, suggest
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.recipe import Sections

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class FieldOf:
    """One field of a method: a key in the recipe."""

    name: str
    default: str
    """As YAML writes it; empty where a recipe must give a value."""
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Manual:
    """A method by its own words.

    Attributes:
        about: of its file: what it computes, the equation, the source.
        summary: of its class.
    """

    stage: str
    method: str
    about: str
    summary: str
    fields: tuple[FieldOf, ...]

    @classmethod
    def of(cls, stage: str, method: str) -> Manual:
        kind = find(stage, method)
        properties = kind.model_json_schema()["properties"] if kind.model_fields else {}
        fields = tuple(_field(name, kind, one) for name, one in properties.items())
        about = inspect.getdoc(sys.modules[kind.__module__]) or ""
        return cls(stage, method, about, inspect.getdoc(kind) or "", fields)


def named(word: str) -> list[tuple[str, str]]:
    """The (stage, method) pairs that "svdcache" or "cache/svdcache" names; none where it names no method."""
    stage, slash, method = word.rpartition("/")
    if slash and stage not in STAGES:
        return []
    return [(one, method) for one in ((stage,) if slash else STAGES) if method in methods(one)]


def names_a_method(word: str) -> bool:
    """Whether `word` names a method, or is misspelt and nearer to one than to a recipe."""
    recipes = set(shelf_names())
    alone = {method for stage in STAGES for method in methods(stage)} - recipes
    near = difflib.get_close_matches(word.rpartition("/")[2], sorted(alone | recipes), n=1)
    return bool(named(word)) or "/" in word or (near != [] and near[0] in alone)


def manual(word: str) -> Manual:
    """The manual of the one method that `word` names.

    Raises:
        RecipeError: none does, or several do.
    """
    found = named(word)
    if len(found) == 1:
        return Manual.of(*found[0])
    known = [method for stage in STAGES for method in methods(stage)]
    hint = f"write one of {', '.join('/'.join(one) for one in found)}" if found else suggest(word, known)
    raise RecipeError(f"{'several methods are' if found else 'no method is'} called {word!r}:", [hint])


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe's file: every stage with its methods, and what else a recipe may say.

    A file that extends another may give a method's fields without naming the method again.
    """
    shared: dict[str, Any] = {}
    rest = _plain(Sections.model_json_schema(), shared)["properties"]
    extends: dict[str, Any] = {"anyOf": [{"enum": shelf_names()}, {"type": "string"}]}
    extends["description"] = "The recipe that this one is laid over: a name on the shelf, or a path beside this file."
    stages = {stage: _stage(stage, shared) for stage in STAGES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of ditstack",
        "type": "object",
        "additionalProperties": False,
        "properties": {"extends": extends, **stages, **rest},
        "$defs": shared,
    }


def _stage(stage: str, shared: dict[str, Any]) -> dict[str, Any]:
    mappings, every = [], {}
    for method in methods(stage):
        kind = find(stage, method)
        found = _plain(kind.model_json_schema(), shared)
        fields = found.get("properties", {})
        every |= {name: {} for name in fields}
        word = {"const": method, "description": _first(inspect.getdoc(sys.modules[kind.__module__]))}
        mappings.append(
            {
                "title": f"{stage}: {method}",
                "type": "object",
                "properties": {"method": word, **fields},
                "required": ["method"],
                "additionalProperties": False,
            }
        )
    unnamed = {"type": "object", "properties": every, "additionalProperties": False}
    words: list[Any] = [*methods(stage), "none", None]
    left_out = {"type": "object", "properties": {"method": {"const": "none"}}, "required": ["method"]}
    return {"anyOf": [{"enum": words}, *mappings, left_out, unnamed]}


def _plain(found: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """A schema whose definitions are moved to `shared`."""
    shared.update(found.pop("$defs", {}))
    return found


def _first(text: str | None) -> str:
    return (text or "").split("\n\n")[0].replace("\n", " ")


def _field(name: str, kind: type[Adapter], found: dict[str, Any]) -> FieldOf:
    default = "" if kind.model_fields[name].is_required() else _word(found.get("default"))
    return FieldOf(name, default, allowed(found), " ".join(found.get("description", "").split()))


def allowed(found: dict[str, Any]) -> str:
    """What a property of a JSON schema takes, in words: "integer >= 1, or none"."""
    if "anyOf" in found:
        return ", or ".join(allowed(one) for one in found["anyOf"])
    if "enum" in found or "const" in found:
        return " | ".join(_word(one) for one in found.get("enum", [found.get("const")]))
    if "$ref" in found:
        return found["$ref"].rpartition("/")[2]
    kind = found.get("type", "any")
    if kind == "array":
        inner = found.get("items") or (found.get("prefixItems") or [{}])[0]
        return f"list of {allowed(inner)}"
    words = {"null": "none", "boolean": "true | false", "object": "mapping"}.get(kind, kind)
    bounds = ", ".join(f"{sign} {found[key]:g}" for key, sign in BOUNDS.items() if key in found)
    return f"{words} {bounds}".strip()


def _word(value: Any) -> str:
    """A value as YAML has it, but for None, which a reader knows as none."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
