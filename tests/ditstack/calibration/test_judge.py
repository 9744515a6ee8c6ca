"""A calibration run makes pictures where the pipe decodes them, final latents where not, by any sampler for a while."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import Recipe, apply
from ditstack.assembly.sample import sample
from ditstack.calibration.run import EQUAL, FRAMES, SEED, CalibrationRun, Judge, Partial
from ditstack.errors import BadPipeline
from ditstack.maths.fidelity import decibels, psnr
from ditstack.recipe.recipe import Sampler
from ditstack.testing import tiny_pipelines as tiny
from families import PROMPTS


def run_of(
    pipeline: Any, partial: Partial | None = None, family: str = "flux", arguments: Any = None
) -> CalibrationRun:
    size = {"size": "32x32", "frames": 49} if family == "wan" else {"size": "16x16"}
    data = {
        "model": {"method": family, "device": "cpu", "arguments": arguments or {}},
        "cache": {"method": "svdcache", "interval": 2},
        "sampler": {"steps": 4, **size},
    }
    recipe = Recipe.parse(data)
    pipe = apply(pipeline, recipe).pipe
    return CalibrationRun(pipe, PROMPTS, recipe.sampler, lambda text: None, partial=partial or Partial())


def test_pictures_are_decoded_and_their_seconds_are_counted() -> None:
    run = run_of(tiny.flux())
    found = run.pictures([1, 2])
    plain = sample(run.pipe, [PROMPTS[1], PROMPTS[0]], [SEED + 1, SEED + 2], run.sampler)
    assert run.decodes
    assert torch.equal(found, plain.images.half())
    assert run.spent.keys() == {"encode", "denoise", "decode"}
    assert not torch.equal(run.uncached_pictures([1, 2]), found)


def test_places_beyond_the_last_prompt_are_the_prompts_again_from_other_noise() -> None:
    run = run_of(tiny.flux())
    first, again = run.latents([0]), run.latents([2])
    assert not torch.equal(first, again)
    plain = sample(run.pipe, PROMPTS[:1], [SEED + 2], run.sampler).latents
    assert torch.equal(again, plain)


def test_of_a_video_a_few_frames_are_looked_at() -> None:
    run = run_of(tiny.FAMILIES["wan"](), family="wan")
    images = sample(run.pipe, PROMPTS[:1], [SEED], run.sampler).images
    found = run.pictures([0])
    assert images.shape[1] == 49
    assert found.shape == (1, FRAMES, *images.shape[2:])
    assert torch.equal(found[:, -1], images[:, 43].half())  # 7 of 8 eighths of 49


@pytest.mark.parametrize("lacking", ["no decoder", "latents are wanted"])
def test_final_latents_stand_for_pictures_where_none_are_decoded(lacking: str) -> None:
    pipeline: Any = tiny.flux()
    if lacking == "no decoder":
        pipeline.register_modules(vae=None)
    run = run_of(pipeline, arguments=None if lacking == "no decoder" else {"output_type": "latent"})
    assert not run.decodes
    found = run.pictures([0])
    assert torch.equal(found, run.latents([0]))
    assert found.ndim == 3
    assert run.uncached_pictures([0]).shape == found.shape


@pytest.mark.parametrize("decodes", [True, False])
def test_pictures_are_judged_as_pictures_and_latents_as_latents(decodes: bool) -> None:
    run = run_of(tiny.flux(), arguments=None if decodes else {"output_type": "latent"})
    nearness = psnr if decodes else decibels
    found = Judge(run, "part").scores("cached", [0, 1], run.pictures)
    assert found == nearness(run.pictures([0, 1]), run.uncached_pictures([0, 1]))
    assert Judge(run, "part").scores("itself", [0], run.uncached_pictures) == [EQUAL]
    assert Judge(run, "part").scores("failed", [0], lambda part: None) == [-EQUAL]


def test_latents_are_judged_where_they_are_asked_for_though_there_are_pictures() -> None:
    run = run_of(tiny.flux())
    found = Judge(run, "part", latents=True).scores("cached", [0, 1], run.latents)
    assert found == decibels(run.latents([0, 1]), run.uncached_latents([0, 1]))


def test_what_was_judged_is_not_made_again_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditstack.calibration.run.PAUSE", 0)
    run = run_of(tiny.flux(), Partial(tmp_path / "p"))
    first = Judge(run, "part").scores("cached", range(6), run.pictures)
    again = Judge(run_of(tiny.flux(), Partial(tmp_path / "p")), "part")
    assert again.scores("cached", range(6), lambda part: pytest.fail("made again")) == first
    assert again.made == 6


def test_another_sampler_serves_for_a_while() -> None:
    run = run_of(tiny.flux())
    own = run.pipe.pipeline.scheduler
    fewer = Sampler(steps=3, size="16x16", scheduler="UniPCMultistepScheduler", settings={"solver_order": 2})
    assert run.flow is True
    with run.solved_by(fewer):
        assert type(run.pipe.pipeline.scheduler).__name__ == "UniPCMultistepScheduler"
        solved = run.uncached_pictures([0])
        assert run.pipe.passes.steps == {"full": 3}
    assert run.pipe.pipeline.scheduler is own
    assert run.sampler.steps == 4
    plain = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "sampler": fewer.model_dump()})
    other = apply(tiny.flux(), plain).pipe
    assert torch.equal(solved, sample(other, PROMPTS[:1], [SEED], plain.sampler).images.half())
    with pytest.raises(BadPipeline), run.solved_by(fewer.changed(scheduler="DDIMScheduler", settings={})):
        pass
    assert run.pipe.pipeline.scheduler is own
