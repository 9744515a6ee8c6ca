"""Mixed schedules: every kind of step does what its letter says, and a schedule that cannot stand is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ditstack import apply
from ditstack.errors import BadPipeline, RecipeError
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]
STEPS = 7


def stand(**fields: Any) -> Stack:
    """A tiny pipeline with a mixed cache on it, fitted on the spot."""
    cache = {"method": "mixed", "calibrate": "auto", **fields}
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, "cache": cache}
    sampler = {"steps": STEPS, "size": "16x16"}
    recipe = Recipe.parse({**data, "sampler": sampler, "calibration": ["a red star", "a blue ring"]}, "mixed")
    return apply(tiny.FAMILIES["flux"](), recipe)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))


def run(stack: Stack, steps: int = STEPS, **more: Any) -> Tensor:
    return call(stack.pipeline, P, steps, output_type="latent", **more)


def test_every_step_runs_as_its_letter_says_in_both_guidance_passes() -> None:
    stack = stand(schedule="F C S F R C S")
    run(stack, true_cfg_scale=3.0)
    assert stack.pipe.passes.kinds == {"full": 4, "calibrated": 4, "forecast": 4, "reused": 2}
    assert stack.pipe.passes.steps == {"full": 2, "calibrated": 2, "forecast": 2, "reused": 1}


def test_calibrated_steps_alone_at_full_rank_are_the_plain_pipe() -> None:
    for anchor in ("line", "last"):
        stack = stand(schedule="FF 5C", rank=1.0, trust=1.0, anchor=anchor)
        with stack.off():
            plain = run(stack)
        assert float((run(stack) - plain).norm() / plain.norm()) < 1e-4


def test_forecast_and_reused_steps_alone_are_the_caches_that_know_only_them() -> None:
    for letters, predictor in (("FSSFSSF", "taylor"), ("FRRFRRF", "reuse")):
        cache = {"method": "svdcache", "schedule": [0, 3, 6], "predictor": predictor}
        data = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": STEPS, "size": "16x16"}}
        other = apply(tiny.FAMILIES["flux"](), Recipe.parse({**data, "cache": cache}, "other"))
        stack = stand(schedule=letters)
        assert not stack.recipe.adapters["cache"].wants_factors
        torch.testing.assert_close(run(stack), run(other), rtol=1e-5, atol=1e-6)


def test_a_forecast_hears_what_a_calibrated_step_told_and_a_full_step_ends_it() -> None:
    from ditstack.maths.predictors import Steered

    steered = Steered(trust=0.5)
    steered.keep(torch.tensor(0.0), 0)
    steered.keep(torch.tensor(2.0), 2)
    steered.hear(torch.tensor(6.0), 4)  # the line says 4, half of the rest is believed
    assert [float(steered.at(t)) for t in (2, 4, 6)] == [2.0, 5.0, 8.0]
    steered.keep(torch.tensor(6.0), 6)
    assert float(steered.at(8)) == 8.0


def test_attention_rests_on_calibrated_steps_where_it_is_told_to() -> None:
    macs = {}
    for attention in ("recompute", "reuse", "forecast"):
        stack = stand(schedule="FFCCFCC", attention=attention)
        out = run(stack)
        macs[attention] = stack.report().macs_ratio
        assert torch.isfinite(out).all()
    assert macs["reuse"] == macs["forecast"] < macs["recompute"]


@pytest.mark.parametrize(("found", "why"), [("S F", "the first of them F"), ("F X", "wanted F"), ("7", "wanted F")])
def test_a_schedule_that_says_nothing_is_refused(found: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        stand(schedule=found)


def test_a_schedule_for_another_number_of_steps_is_refused() -> None:
    with pytest.raises(RecipeError, match="names 4 steps, and sampler"):
        stand(schedule="FSFS")
    with pytest.raises(BadPipeline, match="names 7 steps, and this generation takes 5"):
        run(stand(schedule="FSSFSSS"), 5)
    run(stand(schedule="FS..."), 5)
