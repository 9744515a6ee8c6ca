"""distill solver: fitted to what stands, refused when stale, its baseline is the plain model at its own steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import StaleFactors, apply
from ditstack.measure.bench import timed_sample
from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle", "a blue star", "a green square", "a white ring"]


def recipe(folder: Path, **changes: Any) -> Recipe:
    solver = {"method": "solver", "evaluations": 3, "iterations": 1, "batch": 1, "calibrate": "auto"}
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "distill": {**solver, **changes.pop("distill", {})},
        "sampler": {"size": "16x16", "guidance": 3.5, **changes.pop("sampler", {})},
        "calibration": P,
        **changes,
    }
    return Recipe.parse(data, "solver")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))
    return tmp_path


def test_it_runs_its_evaluations_and_no_more(tmp_path: Path) -> None:
    stack = apply(tiny.flux(), recipe(tmp_path, quantize={"method": "torchao", "scheme": "int8"}))
    assert isinstance(stack.pipeline.scheduler, FittedMultistepScheduler)
    assert stack.sample(P[:2]).steps == {"full": 3}


def test_an_item_alone_equals_the_item_in_a_batch(tmp_path: Path) -> None:
    stack = apply(tiny.flux(), recipe(tmp_path))
    together = stack.sample(P[:3], [0, 1, 2]).latents
    torch.testing.assert_close(stack.sample(P[1:2], [1]).latents, together[1:2], rtol=1e-5, atol=1e-5)


def test_the_baseline_is_the_plain_model_at_its_own_steps(tmp_path: Path) -> None:
    plain = recipe(tmp_path, distill={"baseline_steps": 20}).plain()
    assert "distill" not in plain.adapters
    assert plain.sampler.steps == 20


def test_numbers_fitted_to_other_weights_are_refused(tmp_path: Path) -> None:
    apply(tiny.flux(), recipe(tmp_path))
    with pytest.raises(StaleFactors, match="weights"):
        apply(tiny.flux(guidance_embeds=False), recipe(tmp_path, distill={"calibrate": "never"}))


def test_a_cache_between_fitted_evaluations_still_skips(tmp_path: Path) -> None:
    cache = {"method": "svdcache", "interval": 2}
    stack = apply(tiny.flux(), recipe(tmp_path, distill={"evaluations": 6}, cache=cache))
    assert stack.sample(P[:1]).steps == {"full": 3, "forecast": 3}


def test_it_is_warmed_up_and_timed_at_its_own_steps_and_refuses_others(tmp_path: Path) -> None:
    stack = apply(tiny.flux(), recipe(tmp_path))
    assert timed_sample(stack, P[:1]).steps == {"full": 3}
    with pytest.raises(StaleFactors, match="serve no other steps"):
        stack.make(P[:1], [0], stack.recipe.sampler.model_copy(update={"steps": 2}))
    assert stack.sample(P[:1]).steps == {"full": 3}
