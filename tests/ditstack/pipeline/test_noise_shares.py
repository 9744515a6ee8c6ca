"""The share of noise is sigma of a flow, and sigma / (1 + sigma) of a diffusion process: never clamped."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from ditstack.pipeline.clock import noise_shares


def test_of_a_flow_it_is_sigma_itself() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(5)
    assert noise_shares(scheduler) == pytest.approx(torch.as_tensor(scheduler.sigmas).tolist()[:5])


def test_of_a_diffusion_process_it_tells_every_step_apart() -> None:
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    sigmas = torch.as_tensor(scheduler.sigmas).double()[:10]
    assert sigmas.max() > 2  # where a clamp would say 1 of several steps
    assert noise_shares(scheduler) == pytest.approx((sigmas / (1 + sigmas)).tolist())
    assert len(set(noise_shares(scheduler))) == 10


def test_where_a_scheduler_has_no_sigmas_its_alphas_tell_the_same() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps]
    sigmas = ((1 - alphas) / alphas).sqrt()
    assert noise_shares(scheduler) == pytest.approx((sigmas / (1 + sigmas)).tolist())
