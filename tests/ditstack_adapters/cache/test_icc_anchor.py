"""ICC counts increments from a line where prompts set aside gain clearly by it, and says so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import apply
from ditstack.caching.linears import LowRankLinears
from ditstack.calibration.fits import wrong_anchor
from ditstack.calibration.run import Partial, Within
from ditstack.errors import BadPipeline, RecipeError
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle"]


def stand(file: Path, prompts: int = 8, **fields: Any) -> Stack:
    """A tiny FLUX with ICC on it, its anchor fitted on the spot or read."""
    cache = {"method": "icc", "anchor": "fitted", "calibrate": "auto", "factors": str(file), **fields}
    data = {"model": {"method": "flux", "device": "cpu"}, "cache": cache, "sampler": {"steps": 4, "size": "16x16"}}
    named = [f"a red {one}" for one in "abcdefgh"[:prompts]]
    return apply(tiny.flux(), Recipe.parse({**data, "calibration": named}, "icc"))


@pytest.mark.parametrize(("gain", "anchor"), [((2.0, 0.5, 3.0), "line"), ((2.0, -0.5, 3.0), "last")])
def test_the_anchor_is_the_line_where_prompts_set_aside_gain_clearly_by_it(
    gain: tuple[float, float, float], anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditstack.calibration.choice.DECIDING", 4)
    monkeypatch.setattr("ditstack.calibration.fits.paired", lambda line, last: gain)
    fitted = stand(tmp_path / "f")
    assert LowRankLinears.on(fitted.pipe).order == ("last", "line").index(anchor)
    said = f"anchor: {anchor}; a line gains +2.00 dB ({gain[1]:+.2f} to +3.00) over increments from the last full step"
    assert fitted.notes == [f"{said}, in 4 pictures of prompts set aside"]
    loaded = stand(tmp_path / "f")
    monkeypatch.setattr("ditstack.calibration.fits.fit_anchored", None)  # what is there is read
    assert torch.equal(fitted.sample(P).images, loaded.sample(P).images)
    assert LowRankLinears.on(loaded.pipe).order == LowRankLinears.on(fitted.pipe).order


def test_a_fitted_anchor_wants_prompts_and_a_rank(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="anchor: fitted needs a rank"):
        stand(tmp_path / "f", rank=0)
    with pytest.raises(BadPipeline, match="found 2 calibration prompts; a choice takes at least 8"):
        stand(tmp_path / "f", prompts=2)


def test_what_is_gathered_for_one_anchor_is_not_taken_for_the_others(tmp_path: Path) -> None:
    whole = Partial(tmp_path / "p", {})
    last, line = Within(whole, "last"), Within(whole, "line")
    last.keep("increments", {"done": torch.ones(1)})
    assert line.of("increments") == {}
    assert last.of("increments").keys() == {"done"}


def test_factors_that_name_no_anchor_are_refused() -> None:
    right = {"counted_from": torch.tensor(1), "gain": torch.zeros(5)}
    assert wrong_anchor(right) == []
    assert wrong_anchor({**right, "gain": torch.zeros(4)}) == []  # as older files have it
    assert "no anchor was chosen" in wrong_anchor({})[0]
    for bad in ({"counted_from": torch.tensor(2)}, {"counted_from": torch.ones(2)}, {"gain": torch.zeros(3)}):
        assert "wanted 0 or 1, and five figures" in wrong_anchor(right | bad)[0]
