"""Gates: one that should fail fails and says by how much; a run says whether its recipe was ever checked."""

import pytest

from ditstack.errors import BadFile
from ditstack.measure.check import Verdict, check, file_of, unchecked, verdicts
from ditstack.measure.metrics import estimate
from ditstack.recipe.recipe import Gate, Recipe

FEW = ["sampler.steps=8"]


def told(_: str) -> None:
    return None


def test_a_cache_with_interval_25_misses_its_gate_and_a_plain_one_keeps_any() -> None:
    changes = ["cache.interval=25", "sampler.steps=26", "quality.psnr_min=30", "quality.agreement_drop_max=0.5"]
    wide = Recipe.read("tiny-none-native-svdcache", changes)
    outcome = check(wide, wide.prompts[:2], told)
    assert not outcome.ok
    psnr = outcome.verdicts[0]
    assert psnr.short == 30 - outcome.to_baseline["psnr"].mean
    assert psnr.short > 3
    assert f"psnr_min 30: found {psnr.found.mean:.4g}" in str(psnr)
    assert "missed by" in str(psnr)
    assert "failed its last check" in unchecked(wide)


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
