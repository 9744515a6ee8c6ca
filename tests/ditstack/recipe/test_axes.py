"""Words of an axis: methods, schemes, none; what means nothing or two things is answered with what to write."""

import pytest

from ditstack.errors import RecipeError
from ditstack.recipe import axes
from ditstack.recipe.recipe import Recipe


def test_a_word_is_a_method_as_the_shelf_writes_it_or_a_scheme_or_none() -> None:
    assert axes.fields("quantize", "none", "tiny") is None
    assert axes.fields("quantize", "nf4", "tiny") == {"method": "bitsandbytes", "scheme": "nf4"}
    assert axes.fields("cache", "reuse", "tiny") == {"method": "reuse", "interval": 4}
    assert axes.fields("attention", "native", "tiny") == {"method": "native"}
    assert (axes.fields("cache", "icc", "tiny") or {})["calibrate"] == "auto"
    assert (axes.fields("distill", "lora", "tiny") or {})["preset"] == "tiny-4step"
    assert axes.fields("cache", "svdcache", "tiny") != axes.fields("cache", "svdcache", "tiny", few_steps=True)


def test_a_scheme_that_two_methods_know_is_that_of_the_one_without_extra_packages() -> None:
    assert axes.fields("quantize", "int8", "tiny") == {"method": "torchao", "scheme": "int8"}
    assert axes.fields("quantize", "bitsandbytes.int8", "tiny") == {"method": "bitsandbytes", "scheme": "int8"}


def test_a_method_with_its_knob_at_a_value_is_a_word() -> None:
    solver = axes.fields("distill", "solver.5", "tiny") or {}
    assert (solver["evaluations"], solver["calibrate"]) == (5, "auto"), "what it lacks is fitted on first use"
    assert (axes.fields("cache", "svdcache.2", "tiny") or {})["interval"] == 2
    lora = axes.fields("distill", "lora.3", "tiny") or {}
    assert (lora["preset"], lora["steps"]) == ("tiny-4step", 3)
    assert not axes.holds("quantize", "torchao.int8"), "a scheme is no value of a knob"


@pytest.mark.parametrize(
    ("stage", "word", "hint"),
    [
        ("distill", "solver.1", "solver.1 sets evaluations to 1: input should be greater than or equal to 2"),
        ("distill", "solver.few", "solver.few sets evaluations to few: input should be a valid integer"),
        ("quantize", "torchao.nf4", "torchao has no knob; write torchao"),
    ],
)
def test_a_value_that_a_knob_does_not_take_is_refused_with_its_field(stage: str, word: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=hint):
        axes.fields(stage, word, "tiny")


@pytest.mark.parametrize(("word", "hint"), [("nf5", "did you mean 'nf4'"), ("torchao.nf4", "unknown word")])
def test_an_unknown_word_is_answered_with_what_there_is(word: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=hint):
        axes.fields("quantize", word, "tiny")


def test_axes_are_read_in_the_order_of_stages_with_every_mistake_at_once() -> None:
    assert axes.parse(["cache=none,reuse", "quantize=int8"]) == {"quantize": ["int8"], "cache": ["none", "reuse"]}
    with pytest.raises(RecipeError) as caught:
        axes.parse(["cash=none", "cache=", "cache=none", "cache=reuse"])
    assert len(caught.value.reasons) == 3


def test_a_stage_is_plain_where_it_changes_nothing() -> None:
    recipe = Recipe.read("tiny-int8-native-svdcache")
    assert axes.is_plain(recipe, "attention")
    assert axes.is_plain(recipe, "distill")
    assert not axes.is_plain(recipe, "cache")
    assert axes.is_plain(Recipe.read("tiny-int8-native-svdcache", ["cache.interval=1"]), "cache")
