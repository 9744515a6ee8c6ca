"""Solvers follow the model's own noise schedule, whatever pipeline asks them, and reach the same solution."""

import copy
from typing import Any

import diffusers
import pytest
import torch

from ditstack.assembly.solvers import NEARLY_CLEAN, is_flow, solver
from ditstack.errors import BadPipeline
from ditstack.maths.schedule import even
from ditstack.testing import tiny_pipelines as tiny

PROMPTS = ["a red circle"]
MULTISTEP = {
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {"solver_order": 3},
    "DEISMultistepScheduler": {},
}
FLOWS = ("flux", "flux_img2img", "sd3", "qwen_image", "ltx", "auraflow")


def with_solver(family: str, name: str, settings: dict[str, Any]) -> tuple[Any, Any, torch.Tensor]:
    """A pipeline's own scheduler and the solver's after three steps, and the picture."""
    pipe: Any = tiny.FAMILIES[family]()
    own = copy.deepcopy(pipe.scheduler)
    pipe.scheduler = solver(getattr(diffusers, name), pipe.scheduler, settings)
    picture = tiny.call(pipe, PROMPTS, steps=3)
    asked: Any = tiny.FAMILIES[family]()
    asked.scheduler = own
    tiny.call(asked, PROMPTS, steps=3)
    return asked.scheduler, pipe.scheduler, picture


@pytest.mark.parametrize(
    ("family", "name"),
    [*(("flux", name) for name in MULTISTEP), *((family, "UniPCMultistepScheduler") for family in FLOWS[1:])],
)
def test_a_multistep_solver_takes_sigmas_and_times_from_the_models_own_scheduler(family: str, name: str) -> None:
    own, made, picture = with_solver(family, name, MULTISTEP[name])
    assert type(made).__name__ == name
    assert torch.equal(made.timesteps, own.timesteps)
    assert torch.allclose(made.sigmas[1:-1], own.sigmas[1:-1])
    assert float(made.sigmas[0]) > float(made.sigmas[1])
    assert float(made.sigmas[-1]) <= NEARLY_CLEAN
    assert torch.isfinite(picture).all()


def test_heuns_method_follows_a_flow_whose_own_times_are_whole_numbers() -> None:
    pipe: Any = tiny.wan()
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 5.0}
    own: Any = diffusers.UniPCMultistepScheduler(**config)  # pyright: ignore[reportPrivateImportUsage]
    pipe.scheduler = solver(diffusers.FlowMatchHeunDiscreteScheduler, own, {})  # pyright: ignore[reportPrivateImportUsage]
    assert torch.isfinite(tiny.call(pipe, PROMPTS, steps=3)).all()
    own.set_timesteps(3)
    assert not own.timesteps.is_floating_point()
    assert pipe.scheduler.timesteps.unique().tolist() == own.timesteps.unique().tolist()


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_heuns_method_visits_every_sigma_twice_but_the_first_and_the_last(family: str) -> None:
    own, made, picture = with_solver(family, "FlowMatchHeunDiscreteScheduler", {})
    assert len(made.timesteps) == 2 * len(own.timesteps) - 1
    assert torch.allclose(made.timesteps.unique(), own.timesteps.unique())
    assert torch.isfinite(picture).all()


@pytest.mark.parametrize("name", [*MULTISTEP, "FlowMatchHeunDiscreteScheduler"])
def test_every_solver_converges_on_the_equation_that_euler_solves(name: str) -> None:
    """dx/dsigma = x - sigma from x = 3 at sigma = 1, whose solution at 0 is 1 + exp(-1)."""
    own: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)  # pyright: ignore[reportPrivateImportUsage]
    made = solver(getattr(diffusers, name), own, MULTISTEP.get(name, {}))
    exact, errors = 1 + torch.tensor(-1.0, dtype=torch.float64).exp(), {}
    for kind, scheduler in (("euler", own), ("solver", made)):
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 40, 40).tolist())
        x = torch.full((1, 1), 3.0, dtype=torch.float64)
        for time in scheduler.timesteps:
            x = scheduler.step(x - time / 1000, time, x, return_dict=False)[0]
        errors[kind] = float((x - exact).abs())
    assert errors["solver"] < 0.5 * errors["euler"]


@pytest.mark.parametrize(("name", "last"), [("DDIMScheduler", 0), ("UniPCMultistepScheduler", 0)])
def test_fewer_steps_of_a_diffusion_process_lie_on_the_grid_of_more(name: str, last: int) -> None:
    pipe: Any = tiny.dit()
    pipe.scheduler.set_timesteps(50)
    fine = pipe.scheduler.timesteps.clone()
    pipe.scheduler = solver(getattr(diffusers, name), pipe.scheduler, {}, grid=50)
    picture = tiny.call(pipe, PROMPTS, steps=36)
    assert pipe.scheduler.timesteps.tolist() == fine[list(even(50, 36))].tolist()
    assert torch.isfinite(picture).all()
    assert len(pipe.scheduler.timesteps) == 36


def test_all_steps_of_the_grid_are_ddim_itself() -> None:
    own: Any = tiny.dit()
    pipe: Any = tiny.dit()
    pipe.scheduler = solver(diffusers.DDIMScheduler, pipe.scheduler, {}, grid=20)  # pyright: ignore[reportPrivateImportUsage]
    assert torch.allclose(tiny.call(own, PROMPTS, steps=20), tiny.call(pipe, PROMPTS, steps=20), atol=1e-6)


def test_a_flow_has_no_grid_and_a_schedule_that_is_asked_for_is_kept() -> None:
    own: Any = tiny.flux().scheduler
    with pytest.raises(BadPipeline, match="not rounded"):
        solver(type(own), own, {}, grid=50)
    asked = solver(diffusers.UniPCMultistepScheduler, own, {"use_flow_sigmas": True, "flow_shift": 2.0})  # pyright: ignore[reportPrivateImportUsage]
    assert not hasattr(asked, "own")
    assert is_flow(asked)
