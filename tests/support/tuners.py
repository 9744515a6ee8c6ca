"""Tuners on trials that no model makes."""

from typing import Any

import torch

from ditstack.assembly.sample import Pictures
from ditstack.measure.bench import Trial
from ditstack.recipe.recipe import Recipe
from ditstack.report import Estimate
from ditstack.tuning import tune

AXES = {"distill": ["none"], "quantize": ["int8"], "attention": ["native"], "cache": ["reuse"]}


def painter(cache_error: float, step_error: float, better: float = 2.0):
    """A trial without a model: errors and seconds follow the recipe alone.

    Args:
        better: the step errors of UniPC, as a multiple of the own solver's.
    """

    def trial(recipe: Recipe, prompts: list[str], **how: Any) -> Trial:
        interval = getattr(recipe.adapters.get("cache"), "interval", 1)
        missing = 28 - recipe.sampler.steps
        solver = {None: 1.0, "UniPCMultistepScheduler": better}.get(recipe.sampler.scheduler, 2.0)
        steps = step_error * missing * solver
        error = cache_error * (interval - 1) + steps + 0.001 * ("quantize" in recipe.adapters)
        seconds = recipe.sampler.steps / interval * (1.2 if "quantize" in recipe.adapters else 1)
        images = torch.full((len(prompts), 3, 64, 64), 0.5) + error
        took = {"denoise": seconds, "encode": 0.0, "decode": 0.0}
        macs = 1000 * recipe.sampler.steps // interval
        pictures = Pictures(images, images.flatten(1), took, {"full": 1}, macs, list(prompts), [0] * len(prompts))
        pace = None if "against" not in how else raced(28 / seconds, how["pairs"])
        weights = 100 if "quantize" in recipe.adapters else 400
        return Trial(pictures, 1 / interval, 1000, weights, [], pace=pace)

    return trial


def raced(faster: float, pairs: int) -> Estimate:
    """Of interleaved pairs, never of one alone."""
    assert pairs >= 2
    return Estimate(mean=faster, low=0.9 * faster, high=1.1 * faster)


def tuner(*gate: str, max_memory: int = 0, axes: dict[str, list[str]] = AXES) -> tune.Tuner:
    base = Recipe.read("tiny", [f"quality.{one}" for one in gate])
    return tune.Tuner(base, base.quality, list(base.prompts[:4]), axes, max_memory, lambda line: None)
