"""Controls: every solver on the model's own noise schedule, within its budget, the best chosen on other prompts."""

from collections.abc import Sequence

import torch

from ditstack import apply, load
from ditstack.assembly.sample import Pictures
from ditstack.measure.bench import Trial
from ditstack.measure.controls import OTHER_SEEDS, Controls, beside, controls, evaluations_of, to_choose_on
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

TINY = Recipe.read("tiny")


def test_every_control_of_the_embedded_model_runs_at_its_own_shift_of_3() -> None:
    seen = {}
    for control in controls(TINY, 5, flow=True):
        stack = load(control.recipe)
        assert stack.sample(["a red circle"]).steps == {"full": 5}
        seen[control.title] = stack.pipeline.scheduler.sigmas
    # s' = 3 s / (1 + 2 s) of s = 1, 4/5, ..., 1/5, and then 0
    even = torch.linspace(1, 1 / 5, 5)
    euler = torch.cat([3 * even / (1 + 2 * even), torch.zeros(1)])
    assert torch.allclose(seen.pop("Euler"), euler)
    thirds = torch.linspace(1, 1 / 3, 3)
    assert torch.allclose(seen.pop("Heun")[:-1], (3 * thirds / (1 + 2 * thirds)).repeat_interleave(2)[1:])
    assert set(seen) == {"DPM-Solver++ 2M", "UniPC, order 2", "UniPC, order 3", "DEIS, order 2"}
    for sigmas in seen.values():
        assert torch.allclose(sigmas[1:], euler[1:], atol=1e-5)
        assert sigmas[1] < sigmas[0] <= 1


def test_controls_of_a_diffusion_process_stay_on_the_grid_of_the_recipes_own_steps() -> None:
    dit = Recipe.parse({"model": {"method": "dit", "source": "nowhere"}, "sampler": {"steps": 50}})
    for control in controls(dit, 36, flow=False):
        stack = apply(tiny.dit(), control.recipe)
        grid = tiny.dit().scheduler  # pyright: ignore[reportAttributeAccessIssue]
        grid.set_timesteps(50)
        stack.pipeline.scheduler.set_timesteps(36)
        assert set(stack.pipeline.scheduler.timesteps.tolist()) < set(grid.timesteps.tolist())
        assert control.recipe.sampler.steps == 36


def test_a_recipes_own_scheduler_and_shift_reach_its_controls_or_the_solver_stands_aside() -> None:
    unipc = TINY.resolved() | {"sampler": {"steps": 20, "scheduler": "UniPCMultistepScheduler"}}
    titles = [one.title for one in controls(Recipe.parse(unipc), 9, flow=True)]
    assert titles[:2] == ["UniPCMultistep", "Euler"]
    assert "UniPC, order 2" not in titles
    shifted = TINY.resolved() | {"sampler": {"steps": 20, "settings": {"shift": 5.0}}}
    (own,) = controls(Recipe.parse(shifted), 9, flow=True)
    assert own.recipe.sampler.settings == {"shift": 5.0}
    sized = TINY.resolved() | {"sampler": {"steps": 20, "settings": {"base_shift": 1.0}}}
    assert all(one.recipe.sampler.settings["base_shift"] == 1.0 for one in controls(Recipe.parse(sized), 9, flow=True))


def test_the_own_solver_goes_by_its_own_name() -> None:
    dit = Recipe.parse({"model": {"method": "dit", "source": "nowhere"}, "sampler": {"steps": 50}})
    titles = [controls(dit, 9, False, own)[0].title for own in ("DDIMScheduler", "DPMSolverMultistepScheduler", "")]
    assert titles == ["DDIM", "DPMSolverMultistep", "its own sampler"]
    named = Recipe.parse({**dit.resolved(), "sampler": {"steps": 9, "scheduler": "UniPCMultistepScheduler"}})
    assert controls(named, 9, False, "DDIMScheduler")[0].title == "UniPCMultistep"

    def sample(recipe: Recipe, prompts: Sequence[str]) -> Trial:
        images = torch.zeros(len(prompts), 3, 8, 8)
        return Trial(Pictures(images, images, {}, {}, 0), 1.0, 0, 0, [], False, "DPMSolverMultistepScheduler")

    assert Controls(dit, ["a"], sample).at(9)[0].title == "DPMSolverMultistep"


def test_as_much_work_is_rounded_up_to_whole_steps() -> None:
    assert evaluations_of(0.25, 28) == 7
    assert evaluations_of(0.257, 28) == 7  # what skipped steps cost is forgiven
    assert evaluations_of(0.72, 28) == 20
    assert evaluations_of(1.2, 28) == 28
    assert evaluations_of(0.0, 28) == 1


def test_the_control_of_a_fitted_sampler_has_as_many_evaluations_of_the_plain_models_steps() -> None:
    recipe = TINY.with_(distill={"method": "solver", "evaluations": 9, "baseline_steps": 28})

    def sample(recipe: Recipe, prompts: Sequence[str]) -> Trial:
        images = torch.full((len(prompts), 3, 8, 8), 0.5 + 1 / recipe.sampler.steps)
        return Trial(Pictures(images, images, {"denoise": 1.0}, {}, 0, list(prompts)), 1.0, 0, 0, [])

    made, baseline = sample(recipe, ["a"]), sample(recipe.plain(), ["a"])
    made.pictures.macs, baseline.pictures.macs = 9, 28
    control = beside(Controls(recipe, ["b"], sample), made, baseline)
    assert control is not None
    assert control.evaluations == 9, "not 9 of 28 of its own 9 steps"


def test_the_best_is_chosen_once_on_other_prompts_and_seeds() -> None:
    asked: list[tuple[str, int]] = []

    def sample(recipe: Recipe, prompts: Sequence[str]) -> Trial:
        asked.append((recipe.name, recipe.seed))
        error = 0.01 if "order 3" in recipe.name else 0.1 if "x" in recipe.name.split() else 0.0
        images = torch.full((len(prompts), 3, 8, 8), 0.5 + error)
        return Trial(Pictures(images, images, {"denoise": 1.0}, {}, 0), 1.0, 0, 0, [])

    found = Controls(TINY, ["a"], sample)
    assert found.best(9).title == found.best(9).title == "UniPC, order 3"
    assert found.best(9).recipe.seed == TINY.seed
    assert len(asked) == 7
    assert {seed for _, seed in asked} == {TINY.seed + OTHER_SEEDS}
    assert found.best(28).recipe == TINY.plain()
    assert not set(to_choose_on(TINY, TINY.prompts)) & set(TINY.prompts)
    assert to_choose_on(Recipe.parse({"model": "tiny"}), ["a", "b"]) == ["a", "b"]
