"""The fitted scheduler: its limits are schedulers of diffusers; it runs and is saved without ditstack."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from ditstack.errors import BadPipeline
from ditstack.maths.multistep import Method, adams_bashforth
from ditstack.pipeline.fitted_scheduler import FLOW, FittedMultistepScheduler, process_of
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle", "a blue star"]


def euler(scheduler: FlowMatchEulerDiscreteScheduler) -> FittedMultistepScheduler:
    """Euler's coefficients on a scheduler's present grid."""
    sigmas, times = torch.as_tensor(scheduler.sigmas), torch.as_tensor(scheduler.timesteps)
    return FittedMultistepScheduler.of(Method(times, sigmas, adams_bashforth(sigmas, 1)), FLOW)


def test_with_eulers_coefficients_a_pipeline_makes_eulers_picture_bit_for_bit() -> None:
    pipe = tiny.flux()
    plain = tiny.call(pipe, P, 5, output_type="latent")
    pipe.scheduler = euler(pipe.scheduler)
    assert torch.equal(tiny.call(pipe, P, 5, output_type="latent"), plain)
    assert torch.equal(tiny.call(pipe, P, 5, output_type="latent"), plain), "a second call begins afresh"


def test_a_diffusion_process_with_eulers_coefficients_is_ddim() -> None:
    ddim = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    ddim.set_timesteps(5)
    process, kind = process_of(ddim)
    nodes = torch.cat([process.at(ddim.timesteps.double()), torch.zeros(1, dtype=torch.double)]).float()
    own = FittedMultistepScheduler.of(Method(ddim.timesteps.float(), nodes, adams_bashforth(nodes, 1)), kind)
    x = y = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for t, at in zip(ddim.timesteps, own.timesteps, strict=True):
        out = torch.sin(3 * x)
        x, y = ddim.step(out, int(t), x, return_dict=False)[0], own.step(out, at, y, return_dict=False)[0]
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)
        y = x


def test_another_number_of_steps_is_refused_in_a_sentence() -> None:
    pipe = tiny.flux()
    tiny.call(pipe, P, 4, output_type="latent")
    pipe.scheduler = euler(pipe.scheduler)
    with pytest.raises(BadPipeline, match="fitted to 4 evaluations, and the call asks for 7"):
        tiny.call(pipe, P, 7)


def test_image_to_image_enters_part_way() -> None:
    pipe = tiny.flux_img2img()
    plain = tiny.call(pipe, P, 6, output_type="latent", strength=0.5)
    pipe.scheduler = euler(pipe.scheduler)
    torch.testing.assert_close(tiny.call(pipe, P, 6, output_type="latent", strength=0.5), plain)


def test_it_is_saved_and_loaded_as_schedulers_are(tmp_path: Path) -> None:
    pipe = tiny.flux()
    tiny.call(pipe, P, 4, output_type="latent")
    own = euler(pipe.scheduler)
    own.save_pretrained(tmp_path)
    again: Any = FittedMultistepScheduler.from_pretrained(tmp_path)
    for name, one in own.method.tensors().items():
        assert torch.equal(getattr(again.method, name), one)
