"""Tuning and explaining: the fastest that keeps the gate; fewer steps where no cache is better; or nothing."""

from pathlib import Path

import pytest
import torch

from ditstack.assembly.sample import Pictures
from ditstack.measure.bench import Trial
from ditstack.measure.explain import ladder, text
from ditstack.recipe.recipe import Recipe
from ditstack.tuning import options, tune

AXES = {"quantize": ["int8"], "attention": ["native"], "cache": ["reuse"]}


def painter(cache_error: float, step_error: float):
    """A trial without a model: errors and seconds follow the recipe alone."""

    def trial(recipe: Recipe, prompts: list[str], *_: object) -> Trial:
        interval = getattr(recipe.adapters.get("cache"), "interval", 1)
        missing = 28 - recipe.sampler.steps
        error = cache_error * (interval - 1) + step_error * missing + 0.001 * ("quantize" in recipe.adapters)
        seconds = recipe.sampler.steps / interval * (1.2 if "quantize" in recipe.adapters else 1)
        images = torch.full((len(prompts), 3, 64, 64), 0.5) + error
        took = {"denoise": seconds, "encode": 0.0, "decode": 0.0}
        pictures = Pictures(images, images.flatten(1), took, {"full": 1}, 0, list(prompts), [0] * len(prompts))
        return Trial(pictures, 1 / interval, 1000, 100 if "quantize" in recipe.adapters else 400, [])

    return trial


def tuner(*gate: str, max_memory: int = 0) -> tune.Tuner:
    base = Recipe.read("tiny", [f"quality.{one}" for one in gate])
    return tune.Tuner(base, base.quality, list(base.prompts[:4]), AXES, max_memory, lambda line: None)


def test_the_fastest_stack_that_keeps_the_gate_is_chosen_and_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tune, "trial", painter(0.004, 0.01))
    choice = tuner("psnr_min=35").choose()  # an error of 0.0178
    assert choice is not None
    assert choice.run.option.changes == {"cache": {"method": "reuse", "interval": 5}}
    assert choice.run.speedup == pytest.approx(5)
    assert any(line.startswith("no quantize: the best by itself is torchao") for line in choice.reasons)
    path = tmp_path / "tuned.yaml"
    path.write_text(tune.written(choice, tuner("psnr_min=35").base, "tiny"))
    assert path.read_text().startswith("# Tuned on ")
    assert "psnr_min 35: found" in path.read_text()
    again = Recipe.read(path)
    assert again.resolved()["cache"] == {"method": "reuse", "interval": 5}
    assert again.quality.psnr_min == 35


def test_where_fewer_steps_are_faster_no_cache_is_chosen_and_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "trial", painter(0.017, 0.0007))
    choice = tuner("psnr_min=35").choose()
    assert choice is not None
    assert choice.run.option.changes == {"sampler": {"steps": 4}}
    assert any(line.startswith("no cache: fewer steps without one are faster") for line in choice.reasons)
    assert "reuse" in choice.reasons[-1]


def test_a_gate_out_of_reach_chooses_nothing_and_names_what_came_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "trial", painter(0.1, 0.1))
    search = tuner("psnr_min=60")
    assert search.choose() is None
    assert "psnr_min 60: found" in search.nearest()
    assert tuner("psnr_min=1", max_memory=999).choose() is None, "every stack takes 1000"


def test_what_changes_nothing_or_cannot_stand_is_not_an_option() -> None:
    base = Recipe.read("tiny")
    found = options.options(
        base, {"quantize": ["int8", "fp8dq"], "attention": ["native", "int8qk"], "cache": ["fbcache"]}
    )
    if not torch.cuda.is_available():
        assert [str(one) for one in found["quantize"]] == ['torchao scheme "int8"']
    assert [str(one) for one in found["attention"]] == ["int8qk"]
    assert [one.changes["cache"]["threshold"] for one in found["cache"]] == [0.05, 0.1, 0.2, 0.4]
    assert {one.changes["sampler"]["steps"] for one in options.fewer_steps(4)} == {1, 2, 3}


def test_a_ladder_adds_one_stage_at_a_time_and_its_errors_add_up() -> None:
    recipe = Recipe.read("tiny-int8-native-svdcache", ["sampler.steps=4", "sampler.guidance=1.0"])
    rungs = ladder(recipe, list(recipe.prompts[:2]), lambda line: None)
    assert [rung.title for rung in rungs] == [
        "plain baseline", "+ quantize torchao", "+ attention native", "+ cache svdcache",
    ]  # fmt: skip
    assert rungs[2].added_error.mean == 0, "the native kernel is the one that runs anyway"
    assert sum(rung.added_error.mean for rung in rungs) == pytest.approx(
        rungs[-1].outcome.to_baseline["relative_l2"].mean
    )
    assert rungs[-1].made.macs_ratio < 0.5 < rungs[2].made.macs_ratio
    *told, control = text(rungs).splitlines()
    assert len(told) == len(rungs)
    assert "full evaluations, by" in control
