"""On the way: weights are rounded block by block as they go to the device, counted on meta tensors."""

from typing import Any

import pytest
import torch

from ditstack.assembly.build import build
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.memory.planned import planned
from ditstack.recipe.model import Model
from ditstack.recipe.recipe import Recipe
from ditstack.testing.allocated import Allocated


@pytest.fixture
def bound_for_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of no size that can be counted: nothing is computed on it."""
    monkeypatch.setattr(Model, "place", lambda self: torch.device("meta"))
    monkeypatch.setattr(Model, "_check_device", lambda self: None)
    monkeypatch.setattr("ditstack.assembly.build.check_room", lambda recipe: "")


def peak_of(recipe: Recipe) -> int:
    loaded = recipe.model.load(wait=True)  # diffusers builds its modules on meta tensors: not counted
    with pytest.MonkeyPatch.context() as patch, Allocated("meta") as held:
        patch.setattr(type(recipe.model), "load", lambda self, wait: loaded)
        pipe = build(recipe)
    assert {one.device.type for one in pipe.transformers["transformer"].parameters()} == {"meta"}
    return held.peak


@pytest.mark.usefixtures("bound_for_meta")
@pytest.mark.parametrize("scheme", ["int8", "fp8", "int4"])
def test_the_peak_is_the_rounded_model_and_one_block(scheme: str) -> None:
    recipe = Recipe.read("tiny").with_(quantize={"method": "torchao", "scheme": scheme})
    plan, plain = planned(recipe, "cpu"), planned(Recipe.read("tiny"), "cpu")
    assert plan is not None
    assert plain is not None
    sizes: Any = plan.weights
    block = plan.build - plain.weights  # a CPU's plan holds the whole model and one block
    peak = peak_of(recipe)
    assert sizes * 0.98 <= peak <= (sizes + block) * 1.02
    assert peak < 0.6 * plain.weights


@pytest.mark.usefixtures("bound_for_meta")
def test_moving_all_of_it_first_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.read("tiny").with_(quantize={"method": "torchao"})
    good = peak_of(recipe)
    monkeypatch.setattr(
        Pipe,
        "arriving",
        lambda self: (self.pipeline.to("meta"), *(one for many in self.blocks.values() for one in many))[1:],
    )
    assert peak_of(recipe) > 1.5 * good


def test_allocated_counts_a_storage_once_and_lets_it_go() -> None:
    with Allocated("meta") as held:
        one = torch.empty(100, device="meta")
        view = one[:50]
        other = one + 1
        assert held.look() == 800
        del other, one
        assert held.look() == 400
        del view
        assert (held.look(), held.peak) == (0, 800)


@pytest.mark.usefixtures("bound_for_meta")
def test_a_model_that_must_run_to_be_known_waits_for_nothing() -> None:
    assert Recipe.read("flux").model.waits
    assert not Recipe.read("flux", ["model.offload=model"]).model.waits
    assert not Recipe.parse({"model": {"method": "auto", "source": "some/where"}}).model.waits
