"""Times of one's own: a recipe's sigmas or timesteps reach the pipeline, and are counted as its steps."""

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler  # pyright: ignore[reportPrivateImportUsage]

from ditstack import BadPipeline, RecipeError, apply
from ditstack.assembly.sample import sample, warm_up
from ditstack.pipeline.samplers import named
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

SIGMAS = [1.0, 0.9, 0.5, 0.2]
SAID = ["a red circle"]


def flux(**more: Any) -> Recipe:
    return Recipe.parse({"model": "flux", "sampler": {"sigmas": SIGMAS, "size": "16x16"}, **more})


def test_sigmas_are_those_of_the_pipelines_own_argument_and_count_its_steps() -> None:
    pipeline: Any = tiny.flux()
    stack = apply(pipeline, flux())
    made = stack.sample(SAID, [3])
    assert made.steps == {"full": len(SIGMAS)}
    assert stack.report(made).resolved["sampler"]["sigmas"] == SIGMAS
    stack.remove()
    own = {"sigmas": SIGMAS, "num_inference_steps": 4, "width": 16, "height": 16, "max_sequence_length": 64}
    called: Any = pipeline(SAID, generator=torch.Generator().manual_seed(3), output_type="pt", **own)
    want: torch.Tensor = called.images
    assert torch.equal(made.images, want)
    cached = apply(pipeline, flux(cache={"method": "svdcache", "interval": 2}))
    assert cached.sample(SAID).steps == {"full": 2, "forecast": 2}
    warm_up(cached.pipe, SAID, cached.recipe.sampler)


def test_timesteps_reach_a_pipeline_and_a_scheduler_that_take_them_and_no_others() -> None:
    pipeline, told = tiny.pixart(), {"model": "pixart", "sampler": {"timesteps": [999, 700, 300]}}
    with pytest.raises(BadPipeline, match=r"^sampler\.timesteps: a UniPCMultistepScheduler takes no timesteps"):
        apply(pipeline, told)
    pipeline.scheduler = DPMSolverMultistepScheduler()
    stack = apply(pipeline, told)
    assert stack.sample(SAID).steps == {"full": 3}
    assert pipeline.scheduler.timesteps.tolist() == [999, 700, 300]
    with pytest.raises(BadPipeline, match=r"^sampler\.timesteps: a FluxPipeline takes no timesteps; leave them out"):
        apply(tiny.flux(), {"model": "flux", "sampler": {"timesteps": [999, 500]}})
    with pytest.raises(BadPipeline, match=r"^sampler\.sigmas: a WanPipeline takes no sigmas"):
        apply(tiny.wan(), {"model": "wan", "sampler": {"sigmas": SIGMAS}})


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"sigmas": SIGMAS, "steps": 5}, "steps is 5, and sigmas names 4; write steps: 4"),
        ({"sigmas": [1.0, 0.5, 0.5]}, "sigmas must fall from each step to the next"),
        ({"sigmas": SIGMAS, "timesteps": [3, 2, 1, 0]}, "write one of sigmas, timesteps"),
        ({"timesteps": [9, 3], "grid": 50}, "write one of timesteps, grid"),
        ({"sigmas": [1.0, -0.5]}, "greater than or equal to 0"),
        ({"sigmas": []}, "at least 1"),
    ],
)
def test_times_that_cannot_be_meant_are_refused(sampler: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.parse({"model": "flux", "sampler": sampler})


def test_a_sampler_with_times_of_its_own_takes_no_others() -> None:
    with pytest.raises(RecipeError, match=r"sampler\.sigmas: distill solver samples at times of its own"):
        flux(distill={"method": "solver", "evaluations": 4})


def test_another_number_of_steps_names_no_times_any_more() -> None:
    read = flux()
    assert read.sampler.changed(guidance=2.0).sigmas == tuple(SIGMAS)
    fewer = read.sampler.changed(steps=2)
    assert (fewer.steps, fewer.sigmas) == (2, None)
    assert "sigmas" not in named(read.resolved()["sampler"], "unipc-9")
    assert Recipe.parse(read.data()) == read


def test_true_guidance_of_flux_from_a_recipe_counts_both_halves_under_a_cache() -> None:
    pipeline, steps = tiny.flux(), {"steps": 6, "size": "16x16"}
    given = {"true_cfg_scale": 3.0, "negative_prompt": "blurred"}
    plain = apply(pipeline, {"model": {"method": "flux", "arguments": given}, "sampler": steps})
    want = plain.sample(SAID)
    alone = sample(apply(tiny.flux(), {"model": "flux", "sampler": steps}).pipe, SAID, [0], plain.recipe.sampler)
    assert want.macs == 2 * alone.macs
    assert not torch.equal(want.images, alone.images)
    cache = {"method": "svdcache", "interval": 3}
    stack = apply(pipeline, {"model": {"method": "flux", "arguments": given}, "sampler": steps, "cache": cache})
    made = stack.sample(SAID)
    assert made.steps == {"full": 2, "forecast": 4}
    assert stack.pipe.passes.kinds == {"full": 4, "forecast": 8}, "each half by itself"
    assert stack.pipe.passes.macs_ratio == pytest.approx(1 / 3, abs=0.02)
    assert 0 < (made.latents - want.latents).norm() / want.latents.norm() < 1
    with stack.off():
        assert torch.equal(stack.sample(SAID).images, want.images)
