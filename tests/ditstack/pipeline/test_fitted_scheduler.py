"""The fitted scheduler: its limits are schedulers of diffusers; it runs and is saved without ditstack."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

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


def test_a_flow_of_unipc_is_a_flow_though_it_carries_the_alphas_of_a_diffusion_process() -> None:
    process, kind = process_of(UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type=FLOW, flow_shift=5.0))
    assert kind == FLOW
    assert process.at(torch.tensor([952.0])) == torch.tensor(0.952)


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


def test_entered_part_way_a_step_gives_what_it_lacks_to_the_oldest_output_it_has() -> None:
    times, nodes = torch.tensor([900.0, 600.0, 300.0, 100.0]), torch.tensor([0.9, 0.6, 0.3, 0.1, 0.0])
    rows = torch.tensor([[1.0, 0, 0], [1.4, -0.4, 0], [1.6, -0.8, 0.2], [1.5, -0.7, 0.2]])
    own = FittedMultistepScheduler.of(Method(times, nodes, rows), FLOW)
    own.set_begin_index(2)
    x, out = torch.ones(1, 3), [torch.full((1, 3), 2.0), torch.full((1, 3), 5.0)]
    x = own.step(out[0], times[2], x, return_dict=False)[0]
    torch.testing.assert_close(x, torch.full((1, 3), 1 - 0.2 * 2.0))  # 1.6 - .8 + .2 = 1
    x = own.step(out[1], times[3], x, return_dict=False)[0]
    torch.testing.assert_close(x, torch.full((1, 3), 0.6 - 0.1 * (1.5 * 5.0 - 0.5 * 2.0)))


def test_a_foreign_diffusion_pipeline_runs_it_without_any_hook() -> None:
    pipe = tiny.dit()
    pipe.scheduler = DDIMScheduler(clip_sample=False)
    plain = tiny.call(pipe, P, 5)
    process, kind = process_of(pipe.scheduler)
    nodes = torch.cat([process.at(pipe.scheduler.timesteps.double()), torch.zeros(1, dtype=torch.double)]).float()
    method = Method(pipe.scheduler.timesteps.float(), nodes, adams_bashforth(nodes, 1))
    pipe.scheduler = FittedMultistepScheduler.of(method, kind)
    torch.testing.assert_close(tiny.call(pipe, P, 5), plain, rtol=1e-3, atol=1e-3)


def test_it_is_saved_and_loaded_as_schedulers_are(tmp_path: Path) -> None:
    pipe = tiny.flux()
    tiny.call(pipe, P, 4, output_type="latent")
    own = euler(pipe.scheduler)
    own.save_pretrained(tmp_path)
    again: Any = FittedMultistepScheduler.from_pretrained(tmp_path)
    for name, one in own.method.tensors().items():
        assert torch.equal(getattr(again.method, name), one)
