"""What tune makes of the distill stage: samplers of few steps beside fewer steps and caches; the cheapest wins."""

from typing import Any

import pytest

from ditstack.recipe.recipe import Recipe
from ditstack.tuning import options, tune
from tuners import AXES, painter, tuner


def test_what_the_distill_stage_brings_itself_goes_before_the_base_recipes_sampler() -> None:
    base = Recipe.read("tiny")
    found = {str(one): one.recipe(base) for one in options.distilled(base, ["solver", "lora"])}
    by_steps = {(recipe.adapters["distill"].method, recipe.sampler.steps) for recipe in found.values()}
    assert by_steps == {
        ("solver", 12),
        ("solver", 9),
        ("solver", 7),
        ("solver", 5),
        ("lora", 4),
        ("lora", 3),
        ("lora", 2),
    }
    assert {recipe.sampler.guidance for name, recipe in found.items() if name.startswith("solver")} == {3.0}
    assert {recipe.sampler.guidance for name, recipe in found.items() if name.startswith("lora")} == {1.0}
    assert all(recipe.plain().sampler.steps == 28 for recipe in found.values() if recipe.sampler.guidance == 3.0)


def test_unnamed_only_what_needs_no_fit_is_tried_and_a_base_with_its_own_keeps_that() -> None:
    base = Recipe.read("tiny")
    assert {one.changes["distill"]["method"] for one in options.distilled(base, [])} == {"lora"}
    assert (
        options.distilled(Recipe.read("tiny", ["distill.method=lora", "distill.preset=tiny-4step"]), ["solver"]) == []
    )


def test_in_tuning_a_fit_is_hurried_and_happens_unasked() -> None:
    for one in options.distilled(Recipe.read("tiny"), ["solver"]):
        assert one.changes["distill"]["iterations"] == 2
        assert one.changes["distill"]["calibrate"] == "auto"


def test_a_word_that_names_its_evaluations_is_tried_at_those_alone() -> None:
    found = options.distilled(Recipe.read("tiny"), ["solver.7", "lora.2"])
    solver, lora = (one.changes["distill"] for one in found)
    assert (solver["evaluations"], solver["iterations"], solver["baseline_steps"]) == (7, 2, 28), "as hurried"
    assert (lora["preset"], lora["steps"]) == ("tiny-4step", 2)
    assert {str(one) for one in options.options(Recipe.read("tiny"), {"cache": ["svdcache.3"]})["cache"]} == {
        "svdcache interval 3"
    }


def fitted(error: float) -> Any:
    """Trials in which a fitted sampler is off by so much for each evaluation that 13 have more; no cache serves."""
    unfitted = painter(0.02, 0.0015)

    def trial(recipe: Recipe, prompts: list[str], **how: Any) -> Any:
        distill = recipe.adapters.get("distill")
        if distill is None or distill.method != "solver":
            return unfitted(recipe, prompts, **how)
        made = unfitted(recipe.with_(distill=None, sampler={"steps": recipe.sampler.steps}), prompts, **how)
        made.pictures.images[:] = 0.5 + (0.5 if "cache" in recipe.adapters else error * (13 - recipe.sampler.steps))
        return made

    return trial


@pytest.mark.parametrize(("gate", "evaluations"), [(30, 5), (36, 9), (40, 12)])
def test_the_cheapest_sampler_that_keeps_the_gate_is_chosen(
    gate: int, evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "trial", fitted(0.0036))
    choice = tuner(f"psnr_min={gate}", axes={**AXES, "distill": ["none", "solver"]}).choose()
    assert choice is not None
    assert choice.run.option.changes["distill"]["evaluations"] == evaluations
    assert choice.run.speedup == pytest.approx(28 / evaluations)


def test_its_recipe_reads_back_as_what_was_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(tune, "trial", fitted(0.0036))
    search = tuner("psnr_min=36", axes={**AXES, "distill": ["solver"]})
    choice = search.choose()
    assert choice is not None
    path = tmp_path / "tuned.yaml"
    path.write_text(tune.written(choice, search.base, "tiny"))
    again = Recipe.read(path)
    tried = choice.run.option.recipe(search.base)
    assert (again.adapters, again.sampler) == (tried.adapters, tried.sampler)
