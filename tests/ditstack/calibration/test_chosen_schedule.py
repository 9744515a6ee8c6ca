"""A chosen schedule runs, is said, and is kept with the factors; elsewhere it is refused or chosen anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import ditstack.calibration.choice as choosing
from ditstack import Recipe, StaleFactors, apply
from ditstack.caching.setting import Setting
from ditstack.calibration.calibrate import calibrate
from ditstack.calibration.choice import Choice
from ditstack.errors import BadPipeline
from ditstack.factors import Factors
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from families import MODELS, PROMPTS

BESIDE = ["schedule: a plain solver is ahead"]


def planted(monkeypatch: pytest.MonkeyPatch, full: Sequence[int] = (0, 1, 3), order: int = 2) -> None:
    """The choice is short, and falls on one setting."""

    def decided(self: Choice, fitting: range, deciding: range) -> Any:
        self.scores(self.start, range(2))
        return Setting(self.start.steps, tuple(full), order, "sigma"), (1.0, 0.5, 1.5)

    monkeypatch.setattr(Choice, "decided", decided)
    monkeypatch.setattr(choosing.Trials, "solver", lambda *_: BESIDE[0])


def recipe(file: Path, steps: int = 6, **cache: Any) -> Recipe:
    fields = {"method": "svdcache", "interval": 2, "schedule": "fitted", "factors": str(file), **cache}
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "cache": fields,
        "sampler": {"steps": steps, "size": "16x16"},
        "calibration": [f"a {colour} star" for colour in "abcdefgh"],
    }
    return Recipe.parse(data, "mine")


def kinds(stack: Stack) -> list[int]:
    stack.sample(PROMPTS)
    return full_steps(stack)


def full_steps(stack: Stack) -> list[int]:
    return [step for step, kind in stack.pipe.passes.by_step.items() if kind == "full"]


def test_what_was_chosen_runs_is_said_and_is_refused_or_chosen_anew_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    file = tmp_path / "f.safetensors"
    stack = apply(tiny.flux(), recipe(file, calibrate="auto"))
    written = file.read_bytes()
    assert kinds(stack) == [0, 1, 3]
    said = "schedule: full steps 0, 1, 3 of 6; order 2 in sigma: +1.00 dB (+0.50 to +1.50) over the default"
    assert stack.report().notes == [f"{said}, in 32 pictures of prompts set aside", *BESIDE]
    by_hand = Recipe.parse(
        {
            **recipe(file).resolved(),
            "cache": {"method": "svdcache", "schedule": [0, 1, 3], "order": 2, "coordinate": "sigma"},
        }
    )
    loaded = apply(tiny.flux(), recipe(file))
    pictures = [one.sample(PROMPTS).images for one in (stack, loaded, apply(tiny.flux(), by_hand))]
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])
    with pytest.raises(StaleFactors, match=r"sampler\.steps"):
        apply(tiny.flux(), recipe(file, steps=7))
    assert file.read_bytes() == written
    planted(monkeypatch, (0, 1, 3, 6))
    assert kinds(apply(tiny.flux(), recipe(file, steps=7, calibrate="auto"))) == [0, 1, 3, 6]


def test_where_nothing_gains_the_pictures_are_those_of_the_default(tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    monkey = {"TRIES": 1}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in monkey.items():
            patch.setattr(choosing, name, value)
        patch.setattr(choosing, "paired", lambda after, before: (0.0,) * 3 if after == before else (5.0, 0.0, 9.0))
        fitted = apply(tiny.flux(), recipe(file, calibrate="auto"))
    default = apply(tiny.flux(), recipe(file, schedule="graded", factors=None))
    assert not default.recipe.adapters["cache"].wants_factors
    assert torch.equal(fitted.sample(PROMPTS).images, default.sample(PROMPTS).images)
    assert "the default is kept" in fitted.notes[0]


def test_a_recipe_without_anything_to_fit_is_told_what_could_be(tmp_path: Path) -> None:
    with pytest.raises(BadPipeline, match=r"nothing to fit.*write cache.schedule: fitted to have that fitted"):
        calibrate(recipe(tmp_path / "f", schedule="graded"), ["a", "b"], None, lambda text: None)


def test_gains_are_fitted_on_the_chosen_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, order=1)
    monkeypatch.setattr("ditstack.calibration.gains.ROUNDS", 1)
    stack = apply(tiny.flux(), recipe(tmp_path / "f", predictor="fitted", rank=4, calibrate="auto"))
    held = Factors.load(tmp_path / "f").of("cache")
    assert held.keys() == {
        "full",
        "forecast",
        "gain",
        "beside",
        "gains",
        *(name for name in held if name.endswith(".basis")),
    }
    assert len(held["gains"]) == 3
    assert kinds(stack) == [0, 1, 3]


@pytest.mark.parametrize(
    ("family", "sampler", "more"),
    [
        ("dit", {}, {"quantize": {"method": "torchao", "scheme": "int8"}}),
        ("pixart", {"size": "16x16"}, {}),
        ("wan", {"size": "32x32", "frames": 5}, {}),
    ],
)
def test_other_families_and_stacks_choose_with_their_own_samplers(
    family: str, sampler: dict[str, Any], more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    fields = {"method": "svdcache", "schedule": "fitted", "calibrate": "auto", "factors": str(tmp_path / "f")}
    prompts = [str(one) for one in range(8)] if family == "dit" else PROMPTS * 4
    model = {"method": MODELS[family], "device": "cpu"}
    data = {"model": model, **more, "cache": fields, "sampler": {"steps": 6, **sampler}, "calibration": prompts}
    stack = apply(tiny.FAMILIES[family](), Recipe.parse(data, family))
    stack.sample(prompts[:1])
    assert full_steps(stack) == [0, 1, 3]
