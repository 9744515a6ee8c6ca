"""Gates: one that should fail fails and says by how much; a run says whether its recipe was ever checked."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ditstack.assembly.sample import Pictures
from ditstack.errors import BadFile, BadPipeline
from ditstack.matrix.combine import Job as Matrix
from ditstack.matrix.survey import Survey
from ditstack.measure.check import Verdict, check, file_of, unchecked, verdicts
from ditstack.measure.explain import ladder
from ditstack.measure.metrics import estimate, measure, metrics_for
from ditstack.measure.promise.certify import certify
from ditstack.measure.run import Job
from ditstack.recipe.recipe import Gate, Recipe
from ditstack.tuning.tune import Tuner

FEW = ["sampler.steps=8"]


def told(_: str) -> None:
    return None


def test_a_cache_with_interval_25_misses_its_gate_and_a_plain_one_keeps_any() -> None:
    changes = ["cache.interval=25", "sampler.steps=26", "quality.psnr_min=30", "quality.agreement_drop_max=0.5"]
    wide = Recipe.read("tiny-none-native-svdcache", changes)
    outcome = check(wide, wide.prompts[:2], told)
    assert not outcome.ok
    psnr = outcome.verdicts[0]
    assert psnr.short == 30 - outcome.to_baseline["psnr"].low
    assert psnr.short > 3
    assert f"psnr_min 30: found {psnr.found.mean:.4g}" in str(psnr)
    assert "by the low end missed by" in str(psnr)
    assert outcome.control is not None
    assert outcome.control.evaluations == 2
    assert "beside the same work in 2 full evaluations" in str(outcome.control)
    assert outcome.speedup_range is not None
    assert outcome.speedup_range[0] <= outcome.speedup <= outcome.speedup_range[1]
    assert "failed its last check" in unchecked(wide)


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("ditstack_adapters.model.tiny.Tiny.load", load)


@pytest.mark.parametrize(
    "measure",
    [
        lambda recipe, folder: check(recipe, recipe.prompts[:2], told),
        lambda recipe, folder: ladder(recipe, list(recipe.prompts[:2]), told),
        lambda recipe, folder: Job(recipe, list(recipe.prompts[:1]), folder / "out", compare=True).run(Console()),
        lambda recipe, folder: certify(recipe, ["a red circle"] * 300, told),
    ],
)
@pytest.mark.parametrize(
    ("name", "own", "said"),
    [
        ("tiny-none-native-icc", ["cache.calibrate=never"], "there is no factors file"),
        ("tiny-none-native-icc", ["cache.calibrate=auto", "calibration=[]"], "found no calibration prompts"),
        ("tiny-none-native-reuse", ["sampler.scheduler=Unknown"], "diffusers has no scheduler"),
    ],
)
@pytest.mark.usefixtures("nothing_is_loaded")
def test_what_cannot_stand_is_refused_before_its_baseline_is_loaded(
    measure: Callable[[Recipe, Path], object], name: str, own: list[str], said: str, tmp_path: Path
) -> None:
    promise = ["quality.psnr_min=30", "quality.promise={psnr: 30, share: 0.9}", "calibration=[a, b]"]
    with pytest.raises((BadFile, BadPipeline), match=said):
        measure(Recipe.read(name, [*promise, *own]), tmp_path)


@pytest.mark.parametrize(
    "measure",
    [
        lambda recipe, folder: check(recipe, recipe.prompts[:2], told),
        lambda recipe, folder: Tuner(recipe, recipe.quality, list(recipe.prompts[:2]), {}, 0, told).choose(),
        lambda recipe, folder: Matrix(Survey.of(recipe, {"cache": ["none"]}, ["x"]), folder / "m").run(Console()),
    ],
)
@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_gate_that_nothing_here_can_measure_is_refused_before_anything_is_loaded(
    measure: Callable[[Recipe, Path], object], tmp_path: Path
) -> None:
    recipe = Recipe.read("tiny-none-native-reuse", ["quality.lpips_max=0.1"])
    with pytest.raises(BadFile, match=r"quality\.lpips_max cannot be measured here: LPIPS"):
        measure(recipe, tmp_path)


def test_a_checked_recipe_is_remembered_for_this_machine_and_these_fields_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe.read("tiny-none-native-reuse", [*FEW, "cache.interval=1", "quality.psnr_min=80"])
    assert "was never checked on" in unchecked(recipe)
    assert check(recipe, recipe.prompts[:2], told).ok
    assert unchecked(recipe) == ""
    assert unchecked(Recipe.read("tiny", FEW)) == ""
    other = Recipe.read("tiny-none-native-reuse", [*FEW, "cache.interval=2", "quality.psnr_min=80"])
    assert "was never checked on" in unchecked(other)
    before = file_of(recipe)
    monkeypatch.setattr("ditstack.measure.check.describe_machine", lambda: "another kind")
    assert file_of(recipe) != before
    assert "never checked on another kind" in unchecked(recipe)


def test_a_gate_that_cannot_be_measured_is_an_error_not_a_pass() -> None:
    with pytest.raises(BadFile, match="has no gate"):
        check(Recipe.read("tiny"), ["a"], told)
    with pytest.raises(BadFile, match=r"quality\.lpips_max cannot be measured here: LPIPS left out"):
        verdicts(Gate(lpips_max=0.1), {}, ["LPIPS left out: needs the package torchvision: pip install torchvision"])


def test_limits_from_above_and_below_tell_by_how_much_they_are_missed() -> None:
    found = estimate([0.5] * 4)
    assert Verdict(gate="psnr_min", wanted=0.75, found=found).short == 0.25
    assert Verdict(gate="lpips_max", wanted=0.25, found=found).short == 0.25
    assert Verdict(gate="lpips_max", wanted=0.5, found=found).ok


def test_a_gate_is_judged_by_the_worse_end_of_the_interval_and_says_so() -> None:
    found = estimate([30.0, 30.0, 40.0, 40.0])
    verdict = Verdict(gate="psnr_min", wanted=34, found=found)
    assert found.mean > 34 > found.low
    assert not verdict.ok
    assert "by the low end missed by" in str(verdict)
    above = Verdict(gate="lpips_max", wanted=36, found=found)
    assert found.mean < 36 < found.high
    assert not above.ok
    assert "by the high end" in str(above)


def test_a_broken_picture_misses_a_gate_on_the_low_end_that_the_mean_keeps() -> None:
    images = torch.full((40, 3, 8, 8), 0.5)
    made = images + 0.003
    made[:3] += 0.2
    usable = [one for one in metrics_for(None, video=False)[0] if one.units[0].name.startswith("psnr")]
    pictures, baseline = (Pictures(one, one, {}, {}, 0, ["a"] * 40, [0] * 40) for one in (made, images))
    found = measure(usable, pictures, baseline)
    gate = Gate(psnr_min=42, psnr_p5_min=30, psnr_mse_min=30, psnr_worst_min=30)
    kept = {one.gate: one.ok for one in verdicts(gate, found, [])}
    assert kept == {"psnr_min": True, "psnr_p5_min": False, "psnr_mse_min": False, "psnr_worst_min": False}
