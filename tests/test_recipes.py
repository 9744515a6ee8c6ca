"""The recipes on the shelf: each is read, planned and written back equal; the tiny ones run."""

import pytest
import yaml

from ditstack.layers import shelf, shelf_names
from ditstack.plan import plan
from ditstack.recipe import Recipe

LIMIT = 20


@pytest.mark.parametrize("name", shelf_names())
def test_a_recipe_on_the_shelf_is_read_planned_and_written_back_equal(name: str) -> None:
    recipe = Recipe.read(name)
    assert Recipe.parse(yaml.safe_load(recipe.to_yaml()), recipe.name) == recipe
    assert [step.stage for step in plan(recipe)] == [stage for stage, _ in recipe.stages()]
    assert recipe.prompts
    text = (shelf() / f"{name}.yaml").read_text()
    assert text.count("\n") <= LIMIT
    assert text.startswith("# ")


@pytest.mark.parametrize("name", [name for name in shelf_names() if name.count("-") >= 3])
def test_the_name_of_a_recipe_says_its_stages(name: str) -> None:
    recipe = Recipe.read(name)
    model, quantize, attention, cache = name.split("-")[:4]
    method = {stage: type(adapter).__module__.rpartition(".")[2] for stage, adapter in recipe.stages()}
    assert (method["model"], method["attention"], method["cache"]) == (model, attention, cache)
    assert ("quantize" in method) == (quantize != "none")
