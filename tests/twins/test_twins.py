"""The twins load through recipes and paint; their cards say how well."""

import json
from pathlib import Path

import pytest
import torch

from ditstack import Recipe, load
from twinning.twin import NAMES, find

ROOT = Path(__file__).parents[2]
FOLDERS = ROOT / "benchmarks" / "twins"
EXPORTED = [name for name in NAMES if (FOLDERS / name).is_dir()]
SHAPE = {"dit": (2, 3, 64, 64), "flux2": (2, 3, 128, 128), "pixart": (2, 3, 64, 64), "hunyuanvideo": (2, 13, 3, 32, 32)}


@pytest.mark.parametrize("name", EXPORTED)
def test_a_twin_loads_as_a_recipe_and_paints_in_few_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = Recipe.read(FOLDERS / f"{name}.yaml", ["sampler.steps=3"])
    made = load(recipe).sample(recipe.prompts[:2])
    assert made.images.shape == SHAPE[name]
    assert made.images.isfinite().all()
    assert made.images.std() > 0.02


@pytest.mark.parametrize("name", EXPORTED)
def test_a_twin_takes_at_most_12_megabytes(name: str) -> None:
    assert sum(file.stat().st_size for file in (FOLDERS / name).rglob("*")) <= 12e6


@pytest.mark.parametrize("name", EXPORTED)
def test_a_card_has_the_run_and_its_scores(name: str) -> None:
    card, found = (FOLDERS / name / "README.md").read_text(), json.loads((FOLDERS / name / "scores.json").read_text())
    assert f"{found['run']['samples']:,} samples" in " ".join(card.split())
    assert [(score["steps"], score["guidance"]) for score in found["scores"]] == list(find(name).settings)
    for score in found["scores"]:
        assert score["prompts"] >= 100
        assert f"| {100 * score['agree']['all']:.1f} |" in card


@pytest.mark.parametrize("name", NAMES)
def test_the_judge_tells_right_from_wrong(name: str) -> None:
    twin = find(name)
    prompts = twin.prompts(4)
    verdicts = twin.agreement(torch.full(SHAPE[name], 0.5).repeat(2, *[1] * (len(SHAPE[name]) - 1)), prompts)
    assert len(verdicts) == 4
    assert not any(all(verdict.values()) for verdict in verdicts)
