"""A method's file is its manual: for people who ask, and for editors that complete a recipe."""

from typing import Any, ClassVar

import jsonschema
import pytest
import yaml

from ditstack.errors import RecipeError
from ditstack.recipe import manual
from ditstack.recipe.adapter import STAGES, Adapter, find, methods
from ditstack.recipe.layers import shelf
from ditstack.recipe.recipe import Gate, Sampler, Sections

METHODS = [(stage, method) for stage in STAGES for method in methods(stage)]


def undescribed(schema: Any, path: str = "") -> list[str]:
    """The properties of a schema, at any depth, that say nothing of themselves."""
    if isinstance(schema, list):
        return [one for part in schema for one in undescribed(part, path)]
    if not isinstance(schema, dict):
        return []
    properties = schema.get("properties", {})
    silent = [f"{path}.{name}" for name, one in properties.items() if not one.get("description")]
    return silent + [one for key, part in schema.items() for one in undescribed(part, f"{path}.{key}")]


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_every_field_of_a_method_says_what_it_means(stage: str, method: str) -> None:
    assert not undescribed(find(stage, method).model_json_schema())


@pytest.mark.parametrize("section", [Sections, Sampler, Gate])
def test_every_field_of_a_recipe_says_what_it_means(section: type) -> None:
    assert not undescribed(section.model_json_schema())


def test_a_field_without_a_docstring_is_found() -> None:
    class Silent(Adapter):
        neutral: ClassVar[dict[str, Any] | None] = None
        loud: int = 1
        """Said."""
        silent: int = 1

    assert undescribed(Silent.model_json_schema()) == [".silent"]


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_a_manual_names_source_defaults_and_what_is_allowed(stage: str, method: str) -> None:
    found = manual.manual(f"{stage}/{method}")
    assert found.about
    assert {one.name for one in found.fields} == set(find(stage, method).model_fields)
    assert all(one.meaning and one.allowed not in ("", "any") for one in found.fields)


def test_the_manual_of_svdcache_in_figures() -> None:
    found = manual.manual("svdcache")
    assert "arXiv 2601.07396" in found.about
    fields = {one.name: (one.default, one.allowed) for one in found.fields}
    assert fields["interval"] == ("4", "integer >= 1")
    assert fields["energy"] == ("none", "number > 0, <= 1, or none")
    assert fields["predictor"] == ("taylor", "taylor | fitted | holt | ema | reuse")


def test_a_word_that_names_no_method_or_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="did you mean 'svdcache'"):
        manual.manual("svdcash")
    with pytest.raises(RecipeError, match="no method is called 'cache/native'"):
        manual.manual("cache/native")
    monkeypatch.setattr(manual, "methods", lambda stage: ["twofold"] if stage in ("cache", "quantize") else [])
    with pytest.raises(RecipeError, match="quantize/twofold, cache/twofold"):
        manual.manual("twofold")


CHECK = jsonschema.Draft202012Validator(manual.schema())


@pytest.mark.parametrize("path", sorted(shelf().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_on_the_shelf_fits_the_schema(path: Any) -> None:
    assert not [error.message for error in CHECK.iter_errors(yaml.safe_load(path.read_text()))]


RIGHT = [
    "{extends: tiny, cache: {interval: 3}}",
    "{extends: ./mine.yaml, cache: none, compile: null}",
    "{model: tiny, cache: {method: svdcache, schedule: [0, 1, 4]}}",
    "{model: tiny, distill: {method: lora, preset: tiny-4step}}",
]
WRONG = [
    "{model: tiny, cash: svdcache}",
    "{model: tiny, cache: svdcash}",
    "{model: tiny, cache: {method: svdcache, intervall: 3}}",
    "{model: tiny, cache: {method: svdcache, interval: 0}}",
    "{model: tiny, cache: {method: reuse, rank: 3}}",
    "{extends: tiny, cache: {intervall: 3}}",
    "{model: tiny, sampler: {steps: many}}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_the_schema_takes_what_may_be_written(text: str) -> None:
    assert CHECK.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("text", WRONG)
def test_the_schema_refuses_what_a_recipe_would(text: str) -> None:
    assert not CHECK.is_valid(yaml.safe_load(text))
