"""The scheduler of a recipe: every setting reaches it, and what it does not take is refused with what it takes."""

from typing import Any

import pytest

from ditstack import BadPipeline, apply
from ditstack.assembly.scheduler import check_scheduler, chosen_scheduler
from ditstack.recipe.recipe import Sampler
from ditstack.testing import tiny_pipelines as tiny


def test_a_pipeline_keeps_its_own_scheduler_where_the_recipe_says_nothing() -> None:
    pipeline = tiny.flux()
    assert chosen_scheduler(pipeline, Sampler()) is pipeline.scheduler


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"settings": {"shfit": 3.0}}, "takes no shfit; shfit: did you mean 'shift'.*it takes .*shift_terminal"),
        ({"settings": {"flow_shift": 3.0}}, "a FlowMatchEulerDiscreteScheduler takes no flow_shift"),
        (
            {"scheduler": "UniPCMultistepScheduler", "settings": {"shift": 3.0}},
            "UniPCMultistepScheduler takes no shift",
        ),
        ({"scheduler": "EulerDiscreteScheduler", "settings": {"base_shift": 1.0}}, "takes no base_shift"),
        (
            {"scheduler": "UniPCMultistepSheduler"},
            "diffusers has no scheduler .*did you mean 'UniPCMultistepScheduler'",
        ),
        ({"scheduler": "FluxPipeline"}, "diffusers has no scheduler 'FluxPipeline'"),
        ({"scheduler": "CosineDPMSolverMultistepScheduler"}, "needs a package that is not installed: .*torchsde"),
        ({"settings": {"time_shift_type": "sideways"}}, "cannot be built from .*sideways"),
    ],
)
def test_what_a_scheduler_does_not_take_is_refused_and_the_pipeline_keeps_its_own(
    sampler: dict[str, Any], said: str
) -> None:
    pipeline = tiny.flux()
    before = pipeline.scheduler
    with pytest.raises(BadPipeline, match=said):
        chosen_scheduler(pipeline, Sampler(**sampler))
    assert pipeline.scheduler is before


def test_a_named_class_is_held_against_its_settings_before_anything_is_loaded() -> None:
    with pytest.raises(BadPipeline, match="takes no shift"):
        check_scheduler(Sampler(scheduler="UniPCMultistepScheduler", settings={"shift": 3.0}))


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler", None])
def test_what_pipelines_read_from_a_schedulers_config_reaches_it_whatever_its_class(name: str | None) -> None:
    settings = {"base_shift": 0.7, "max_shift": 0.8, "use_dynamic_shifting": True}
    made = chosen_scheduler(tiny.flux(), Sampler(scheduler=name, settings=settings))
    assert {key: made.config[key] for key in settings} == settings


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDPMScheduler", "PNDMScheduler", "IPNDMScheduler"])
@pytest.mark.parametrize("family", ["sd3", "wan", "flux"])
def test_a_scheduler_of_a_diffusion_process_is_refused_for_a_flow_model(family: str, name: str) -> None:
    with pytest.raises(BadPipeline, match=rf"a {name} integrates a diffusion process, and this model is a flow.*UniPC"):
        chosen_scheduler(tiny.FAMILIES[family](), Sampler(scheduler=name))


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_a_scheduler_of_flows_is_refused_for_a_diffusion_process(name: str) -> None:
    with pytest.raises(BadPipeline, match=rf"a {name} integrates a flow, and this model is a diffusion process.*DDIM"):
        chosen_scheduler(tiny.dit(), Sampler(scheduler=name))


@pytest.mark.parametrize("name", ["FlowMatchLCMScheduler", "DEISMultistepScheduler", "DPMSolverSinglestepScheduler"])
def test_schedulers_that_can_integrate_a_flow_are_taken(name: str) -> None:
    assert type(chosen_scheduler(tiny.sd3(), Sampler(scheduler=name))).__name__ == name


def test_a_scheduler_whose_step_wants_more_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(BadPipeline, match="RePaintScheduler wants original_image, mask at each step"):
        check_scheduler(Sampler(scheduler="RePaintScheduler"))


def test_a_pipeline_that_shifts_what_its_scheduler_cannot_is_told_to_take_another() -> None:
    stack = apply(tiny.flux(), {"model": "flux", "sampler": {"scheduler": "SASolverScheduler", "steps": 2}})
    with pytest.raises(BadPipeline, match=r"a FluxPipeline gives its scheduler .* which a SASolverScheduler does not"):
        stack.sample(["x"])
