"""What a promise tries: the cache's knob, what it names, or fewer steps; in order, without the dearer of equals."""

from typing import Any

import pytest

from ditstack.calibration.certificate import Attempt, laid_over, said
from ditstack.errors import Incompatible, RecipeError
from ditstack.measure.promise.certify import ORDERED_ON, pictures_wanted, prompts_wanted
from ditstack.measure.promise.ladder import front, is_ordered, settings
from ditstack.recipe.recipe import Recipe


def recipe(tries: dict[str, Any], name: str = "tiny-none-native-svdcache") -> Recipe:
    return Recipe.read(name).with_(quality={"promise": {"psnr": 32, "tries": tries}})


def test_interval_schedule_solver_steps_and_precision_are_tried_in_every_combination() -> None:
    found = settings(
        recipe(
            {
                "cache": {"interval": [2, 4], "schedule": ["graded", "even"]},
                "sampler": ["euler-28", "unipc-20"],
                "quantize": ["none", "int8"],
            }
        )
    )
    assert len(found) == 16
    assert {said(one) for one in found} >= {
        "28 steps; quantize none; cache interval 2, schedule graded",
        "20 steps by UniPC, order 2; quantize torchao, scheme int8; cache interval 4, schedule even",
    }
    stood = laid_over(recipe({}), found[-1])
    assert stood.sampler.scheduler == "UniPCMultistepScheduler"
    assert stood.sampler.guidance == recipe({}).sampler.guidance
    assert stood.resolved()["cache"]["schedule"] == "even"
    assert stood.resolved()["quantize"]["scheme"] == "int8"


def test_a_sampler_that_is_laid_over_leaves_nothing_of_another_ones_settings() -> None:
    base = recipe({}).with_(sampler={"scheduler": "UniPCMultistepScheduler", "settings": {"solver_order": 3}})
    (one,) = settings(base.with_(quality={"promise": {"psnr": 32, "tries": {"sampler": ["euler-9"]}}}))
    assert laid_over(base, one).sampler.scheduler is None
    assert laid_over(base, one).sampler.settings == {}


@pytest.mark.parametrize(
    ("tries", "sentence"),
    [
        ({"model": ["tiny"]}, r"quality\.promise\.tries\.model: unknown; wanted sampler, quantize, attention, cache"),
        ({"sampler": ["unipc"]}, r"wanted a solver and its steps, such as unipc-20"),
        ({"quantize": ["int9"]}, r"unknown word 'int9' at quantize"),
        ({"cache": {"intervall": [2]}}, r"cache\.intervall: unknown key; did you mean 'interval'"),
        ({"cache": {"interval": []}}, r"quality\.promise\.tries\.cache"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_sentence(tries: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        settings(recipe(tries))


def test_a_setting_that_cannot_be_stacked_is_refused_before_anything_is_made() -> None:
    with pytest.raises(Incompatible, match="attention sage requires that the model runs on a CUDA GPU"):
        settings(recipe({"attention": ["native", "sage"]}))


def test_settings_of_which_the_order_is_not_known_want_prompts_of_their_own() -> None:
    knob, named = recipe({}), recipe({"quantize": ["none", "int8"]})
    assert knob.quality.promise is not None
    assert is_ordered(knob)
    assert prompts_wanted(knob) == pictures_wanted(knob.quality.promise)
    assert not is_ordered(named)
    assert prompts_wanted(named) == tuple(one + ORDERED_ON for one in prompts_wanted(knob))
    assert not is_ordered(recipe({}, "tiny"))


def test_settings_that_something_cheaper_is_as_safe_as_are_passed_over() -> None:
    def one(macs: float, weights: int = 8) -> Attempt:
        return Attempt(changes={}, pictures=32, broken=0, macs=macs, kept=True, weights=weights)

    safe, dear, light, heavy, cheap = one(0.5), one(0.6), one(0.25, 2), one(0.25, 8), one(0.1)
    found = front([(dear, 49.0), (safe, 50.0), (heavy, 40.0), (light, 40.0), (cheap, 20.0)])
    assert found == [safe, light, cheap]
    assert front([(heavy, 40.1), (light, 40.0)]) == [heavy, light], "the heavier one is safer"


def test_a_promise_is_the_same_whatever_was_tried_for_it() -> None:
    one, other = (recipe(tries).quality.promise for tries in ({}, {"sampler": ["unipc-9"]}))
    assert one is not None
    assert one.same_as(other)
    assert not one.same_as(None)
    assert other is not None
    assert not one.same_as(other.model_copy(update={"psnr": 33.0}))
