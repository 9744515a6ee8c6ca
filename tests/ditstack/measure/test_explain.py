"""Explain: rungs of a stack that was fitted serve with its own factors."""

from pathlib import Path
from typing import Any

import pytest

from ditstack.calibration.calibrate import calibrate
from ditstack.files import home
from ditstack.measure.explain import ladder
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a cat", "a dog", "a red boat", "a blue boat"]


def told(_: str) -> None:
    return None


@pytest.mark.parametrize(("when", "named"), [("never", False), ("auto", True)])
def test_every_rung_serves_with_the_factors_of_the_whole(
    when: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())
    cache: dict[str, Any] = {"method": "icc", "interval": 2, "rank": 0.25, "calibrate": when}
    recipe = Recipe.parse(
        {
            "model": {"method": "flux", "device": "cpu"},
            "sampler": {"steps": 4, "size": "16x16"},
            "quantize": {"method": "torchao", "scheme": "int4", "compensate": 0.25},
            "cache": cache | ({"factors": str(tmp_path / "own.safetensors")} if named else {}),
            "compile": {"method": "inductor", "backend": "eager"},
            "calibration": P,
        },
        "mine",
    )
    if when == "never":
        calibrate(recipe, P, None, told)
    rungs = ladder(recipe, P[:2], told)
    assert [one.title for one in rungs][1:] == ["+ quantize torchao", "+ cache icc", "+ compile inductor"]
    assert rungs[1].made.pictures.macs > rungs[0].made.pictures.macs, "its compensation has its factors"
    assert rungs[-1].made.pictures.steps == {"full": 2, "calibrated": 2}
    assert rungs[-1].added_error.mean == pytest.approx(0, abs=1e-4), "a compiler changes no picture"
    own = tmp_path / "own.safetensors" if named else home() / "factors" / "mine.safetensors"
    assert sorted([*(home() / "factors").glob("*"), *tmp_path.glob("own*")]) == [own]
