"""Solvers of diffusers read as multistep methods: what is read makes the same latents, and what is none is refused."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from ditstack.assembly.linear import unrolled
from ditstack.assembly.solvers import solver
from ditstack.maths.multistep import adams_bashforth
from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler, derivative, output_of, process_of

FLOW_MATCH = FlowMatchEulerDiscreteScheduler(shift=3.0)
DIFFUSION = {kind: DDIMScheduler(clip_sample=False, prediction_type=kind) for kind in ("epsilon", "v_prediction")}


def latents(scheduler: Any) -> torch.Tensor:
    """What a scheduler makes of noise with a model that is not linear."""
    scheduler.set_timesteps(7)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        x = scheduler.step(torch.sin(2 * x) + t / 1000, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("kind", [UniPCMultistepScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("own", [FLOW_MATCH, *DIFFUSION.values()], ids=["flow", *DIFFUSION])
def test_what_is_read_of_a_solver_makes_its_latents(kind: Any, order: int, own: Any) -> None:
    process, predicted = process_of(own)
    grid = None if own is FLOW_MATCH else 50
    made = solver(kind, own, {"solver_order": order}, grid)
    made.set_timesteps(7)
    method = unrolled(made, process, predicted, 0.0)
    assert method is not None
    ours = FittedMultistepScheduler.of(method, predicted)
    theirs = solver(kind, own, {"solver_order": order}, grid)
    torch.testing.assert_close(latents(ours), latents(theirs), rtol=1e-3, atol=1e-3)


def test_the_corrector_of_unipc_reads_further_back_than_its_order_and_dpm_does_not() -> None:
    reach = {}
    for kind in (UniPCMultistepScheduler, DPMSolverMultistepScheduler):
        made = solver(kind, FLOW_MATCH, {"solver_order": 2})
        made.set_timesteps(7)
        method = unrolled(made, process_of(FLOW_MATCH)[0], "flow_prediction", 0.0)
        assert method is not None
        reach[kind] = int((method.coefficients[4].abs() > 5e-3).sum())
    assert reach[UniPCMultistepScheduler] > reach[DPMSolverMultistepScheduler] >= 2


def test_eulers_method_is_read_bit_for_bit() -> None:
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    own.set_timesteps(5)
    method = unrolled(own, process_of(own)[0], "flow_prediction", 0.0)
    assert method is not None
    torch.testing.assert_close(method.coefficients, adams_bashforth(method.nodes, 1, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [FlowMatchHeunDiscreteScheduler, EulerAncestralDiscreteScheduler])
def test_what_evaluates_twice_a_step_or_adds_noise_is_no_such_method(kind: Any) -> None:
    made = kind()
    made.set_timesteps(4)
    process = process_of(DIFFUSION["epsilon"])[0]
    assert unrolled(made, process, "epsilon", 0.0) is None


@pytest.mark.parametrize("kind", ["flow_prediction", "epsilon", "v_prediction", "sample"])
def test_what_a_model_says_and_the_derivative_are_each_others_inverse(kind: str) -> None:
    out, x, s = torch.randn(3), torch.randn(3), torch.tensor(0.7)
    torch.testing.assert_close(output_of(derivative(out, x, s, kind), x, s, kind), out)
