"""Tuning and explaining: the fastest that keeps the gate; fewer steps where no cache is better; or nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from ditstack.calibration.calibrate import default_file, wanting
from ditstack.cli.app import app
from ditstack.errors import RecipeError
from ditstack.factors import Factors
from ditstack.measure.bench import Trial
from ditstack.measure.explain import ladder, text
from ditstack.recipe.recipe import Recipe
from ditstack.tuning import options, tune
from tuners import AXES, painter, tuner


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
    own = Recipe.read("tiny").resolved()["sampler"]
    assert choice.run.option.changes == {"sampler": {**own, "steps": 4}}
    assert any(line.startswith("no cache: 4 steps without one are faster at this gate") for line in choice.reasons)
    assert "reuse" in choice.reasons[-1]
    assert yaml.safe_load(tune.written(choice, tuner("psnr_min=35").base, "tiny"))["sampler"] == {"steps": 4}


def test_where_another_solver_is_the_better_buy_it_says_so_and_writes_that_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tune, "trial", painter(0.017, 0.003, better=0.2))
    search = tuner("psnr_p5_min=35")
    choice = search.choose()
    assert choice is not None
    assert str(choice.run.option) == "4 steps by UniPC, order 2"
    assert choice.run.macs_ratio == pytest.approx(4 / 28), "of the plain model with all its steps"
    assert any(line.startswith("no cache: 4 steps by UniPC, order 2 without one are") for line in choice.reasons)
    path = tmp_path / "tuned.yaml"
    path.write_text(tune.written(choice, search.base, "tiny"))
    again = Recipe.read(path)
    assert again.sampler == choice.run.option.recipe(search.base).sampler
    assert (again.sampler.scheduler, again.sampler.steps) == ("UniPCMultistepScheduler", 4)
    assert (again.sampler.guidance, again.quality.psnr_p5_min, "cache" in again.adapters) == (3.0, 35, False)


def test_the_solvers_that_are_named_are_an_axis_under_every_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "trial", painter(0.004, 0.0001))
    search = tuner("psnr_min=30", axes={**AXES, "sampler": ["none", "euler-28", "unipc-20", "dpm-14"]})
    search.choose()
    told = {str(run.option) for run in search.tried.values()}
    assert {"20 steps by UniPC, order 2", "14 steps by DPM-Solver++ 2M"} <= told
    under = [one for one in told if one.startswith("reuse") and one.endswith(" + 20 steps by UniPC, order 2")]
    assert len(under) == tune.KEPT["cache"]
    assert not any("28 steps" in one or one.startswith("4 steps") for one in told), "nothing else is tried"
    with pytest.raises(RecipeError, match="wanted a solver and its steps, such as unipc-20"):
        tuner("psnr_min=30", axes={**AXES, "sampler": ["unipc"]}).choose()


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
    short = Recipe.read("tiny", ["sampler.steps=4"])
    fewer = [str(one) for one in options.fewer_steps(short, flow=True)]
    assert fewer[:3] == ["1 step", "1 step by DPM-Solver++ 2M", "1 step by UniPC, order 2"]
    assert len(fewer) == 9


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
    assert len([line for line in told if not line.startswith(" ")]) == len(rungs), "notes are indented below a rung"
    assert "full evaluations, by" in control


def test_a_gate_is_judged_by_the_low_end_and_not_by_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(recipe: Recipe, prompts: list[str], **how: Any) -> Trial:
        """Pictures that are in turn 12 dB above and 12 dB below what the cache's interval gives."""
        made = painter(0.0, 1.0)(recipe, prompts, **how)
        error = 0.004 * (getattr(recipe.adapters.get("cache"), "interval", 1) - 1)
        made.pictures.images[::2] += 4 * error
        made.pictures.images[1::2] += error / 4
        return made

    monkeypatch.setattr(tune, "trial", uneven)
    search = tuner("psnr_min=35")
    choice = search.choose()
    assert choice is not None
    assert choice.run.option.changes == {"cache": {"method": "reuse", "interval": 2}}
    assert "psnr_min 35: found 47.96" in str(choice.run.outcome.verdicts[0])
    assert "by the low end kept" in str(choice.run.outcome.verdicts[0])
    spanning = {
        str(run.option): run
        for run in search.tried.values()
        if (psnr := run.outcome.to_baseline["psnr"]).mean >= 35 > psnr.low
    }
    assert len(spanning) >= 3
    assert not any(run.fits for run in spanning.values())
    assert all("by the low end missed by" in str(run) for run in spanning.values())


def test_the_recipe_that_is_written_serves_with_what_was_fitted_while_it_was_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path / "home"))
    made = painter(0.0, 0.002)

    def trial(recipe: Recipe, prompts: list[str], **how: Any) -> Trial:
        if wanting(recipe):
            Factors({"of": torch.tensor(recipe.sampler.steps)}, {}).save(default_file(recipe))
        return made(recipe, prompts, **how)

    monkeypatch.setattr(tune, "trial", trial)
    file = tmp_path / "quick.yaml"
    words = "distill=solver.5 quantize=none attention=none cache=none sampler=none"
    said = CliRunner().invoke(
        app, ["tune", "--model", "tiny", "--psnr-min", "20", "--prompts", "2", "--methods", words, "--out", str(file)]
    )
    assert said.exit_code == 0, said.output
    assert Factors.load(default_file(Recipe.read(file))).tensors["of"] == 5


def test_tune_takes_any_gate_of_a_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Recipe] = []
    monkeypatch.setattr("ditstack.cli.commands.tune._tune", lambda base, *_: asked.append(base))
    words = [
        "--psnr-p5-min",
        "30",
        "--gate",
        "relative_l2_max=0.1",
        "--prompts",
        "2",
        "--out",
        str(tmp_path / "t.yaml"),
    ]
    said = CliRunner().invoke(app, ["tune", "--model", "tiny", *words])
    assert said.exit_code == 0, said.output
    assert asked[0].quality.limits() == {"psnr_p5_min": 30.0, "relative_l2_max": 0.1}
