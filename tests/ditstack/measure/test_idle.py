"""Idle: what a stage must have done to count: rounded, thinned, skipped."""

import torch

from ditstack.assembly.sample import Pictures
from ditstack.measure.bench import Trial, trial
from ditstack.measure.idle import idle
from ditstack.recipe.recipe import Recipe

EVERY = {
    "quantize": {"method": "torchao", "scheme": "int8"},
    "attention": {"method": "sparse", "keep": 0.5},
    "cache": {"method": "reuse"},
}


def made(weight_bytes: int, macs_ratio: float, attended: float | None) -> Trial:
    images = torch.zeros(1, 3, 8, 8)
    pictures = Pictures(images, images, {"denoise": 1.0}, {}, 0)
    return Trial(pictures, macs_ratio, 0, weight_bytes, [], attended=attended)


def test_each_stage_that_did_nothing_says_so() -> None:
    recipe, baseline = Recipe.read("tiny").with_("every", **EVERY), made(100, 1.0, None)
    assert idle(recipe, made(50, 0.25, 0.9), baseline) == []
    assert idle(recipe, made(100, 1.0, 0.96), baseline) == [
        "idle: quantize rounded nothing; the weights take as many bytes as before",
        "idle: attention made 96.0% of all products",
        "idle: cache skipped nothing; every step ran in full",
    ]
    assert idle(recipe.plain(), made(100, 1.0, None), baseline) == [], "what is not there cannot be idle"


def test_the_shelfs_sparse_recipe_of_the_embedded_model_skips_something_real() -> None:
    recipe = Recipe.read("tiny-int8-sparse-svdcache", ["sampler.steps=3", "sampler.guidance=1.0"])
    found = trial(recipe, list(recipe.prompts[:1]))
    assert found.attended is not None
    assert found.attended < 0.95
