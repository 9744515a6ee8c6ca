"""Explain: rungs of a stack that was fitted serve with its own factors."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.calibration.calibrate import calibrate
from ditstack.errors import StaleFactors
from ditstack.factors import Factors
from ditstack.files import home
from ditstack.measure.explain import ladder
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a cat", "a dog", "a red boat", "a blue boat"]


def told(_: str) -> None:
    return None


def fitted(compiled: bool = False, **cache: str) -> Recipe:
    return Recipe.parse(
        {
            "model": {"method": "flux", "device": "cpu"},
            "sampler": {"steps": 4, "size": "16x16"},
            "quantize": {"method": "torchao", "scheme": "int4", "compensate": 0.25},
            "cache": {"method": "icc", "interval": 2, "rank": 0.25, **cache},
            "compile": {"method": "inductor", "backend": "eager"} if compiled else None,
            "calibration": P,
        },
        "mine",
    )


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every pipeline that was loaded, in turn."""
    found: list[Any] = []

    def load(*_: Any, **__: Any) -> Any:
        found.append(tiny.flux())
        return found[-1]

    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", load)
    return found


def test_every_rung_serves_with_the_factors_of_the_whole(tmp_path: Path, loaded: list[Any]) -> None:
    own = tmp_path / "own.safetensors"
    rungs = ladder(fitted(compiled=True, calibrate="auto", factors=str(own)), P[:2], told)
    assert [one.title for one in rungs][1:] == ["+ quantize torchao", "+ cache icc", "+ compile inductor"]
    assert rungs[1].made.pictures.macs > rungs[0].made.pictures.macs, "its compensation has its factors"
    assert rungs[-1].made.pictures.steps == {"full": 2, "calibrated": 2}
    assert rungs[-1].added_error.mean == pytest.approx(0, abs=1e-4), "a compiler changes no picture"
    assert [*(home() / "factors").glob("*"), *tmp_path.glob("own*")] == [own]


def test_each_rung_is_loaded_once_and_the_factors_of_the_whole_are_read_once_for_those_below(
    loaded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, said, read, reading = fitted(calibrate="never"), list[str](), list[Path](), Factors.load
    own = calibrate(recipe, P, None, told)
    monkeypatch.setattr(Factors, "load", lambda path: (read.append(path), reading(path))[1])
    loaded.clear()

    def tell(what: str) -> None:
        said.append(what)
        if "solvers" in what:
            assert len(loaded) == 5, "each of three, and the baseline to race two of them"

    rungs = ladder(recipe, P[:2], tell)
    assert said[:3] == ["+ cache icc", "plain baseline", "+ quantize torchao"]
    assert [one.title for one in rungs] == ["plain baseline", "+ quantize torchao", "+ cache icc"]
    assert rungs[1].made.pictures.macs > rungs[0].made.pictures.macs, "its compensation has its factors"
    assert rungs[-1].made.pictures.steps == {"full": 2, "calibrated": 2}
    assert read.count(own) == 4, "twice checked before any weight is there, taken by the whole, and by those below"
    assert [*(home() / "factors").glob("*")] == [own]


def test_stale_factors_are_refused_before_anything_is_sampled(
    loaded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = fitted(calibrate="never")
    calibrate(recipe, P, None, told)
    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", lambda *_, **__: moved())
    monkeypatch.setattr("ditstack.stack.Stack.sample", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(StaleFactors, match="weights"):
        ladder(recipe, P[:2], told)


def moved() -> Any:
    """The model with one weight elsewhere than it was."""
    pipeline = tiny.flux()
    with torch.no_grad():
        pipeline.transformer.x_embedder.weight[0, 0] += 1
    return pipeline
