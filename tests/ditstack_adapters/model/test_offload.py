"""Offload: weights that are rounded first and moved afterwards, as far as that can be seen without a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import load
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.model import Model
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

CPU = torch.device("cpu")
WAYS: dict[str, Callable[[Any], None]] = {
    "model": lambda pipeline: pipeline.enable_model_cpu_offload(device="cpu"),
    "group": lambda pipeline: pipeline.enable_group_offload(onload_device=CPU, offload_type="leaf_level"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    tiny.flux().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("way", "quantize"),
    [
        ("model", {"method": "torchao"}),
        ("model", {"method": "bitsandbytes", "scheme": "int8"}),
        ("model", {"method": "bitsandbytes", "scheme": "nf4"}),
        ("group", {"method": "torchao"}),
        ("group", {"method": "torchao", "scheme": "int8dq"}),
    ],
    ids=str,
)
def test_a_stack_on_weights_that_are_moved_makes_the_same_pictures(
    saved: Path, way: str, quantize: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = {
        "model": {"method": "flux", "source": str(saved), "device": "cpu"},
        "quantize": quantize,
        "attention": {"method": "sparse", "keep": 0.5, "block_size": 4},
        "cache": {"method": "svdcache", "interval": 2},
    }
    want = tiny.call(load(Recipe.parse(recipe)).pipeline, ["a cat"], output_type="latent")
    monkeypatch.setattr(Model, "settle", lambda self, pipeline: WAYS[way](pipeline))
    stack = load(Recipe.parse(recipe))
    assert torch.equal(tiny.call(stack.pipeline, ["a cat"], output_type="latent"), want)
    assert stack.pipe.passes.steps == {"full": 2, "forecast": 2}
    assert stack.pipe.device.type == "cpu"


def test_weights_whose_scales_would_stay_behind_are_not_moved_tensor_by_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "place", lambda self: torch.device("cuda"))
    for offload, method, refused in (
        ("group", "bitsandbytes", True), ("group", "torchao", False), ("model", "bitsandbytes", False),
    ):  # fmt: skip
        recipe = Recipe.parse({"model": {"method": "flux", "offload": offload}, "quantize": {"method": method}})
        reasons = [reason for step in plan(recipe) for reason in step.reasons]
        assert (f"quantize {method} requires that {Capability.MOVED_WHOLE.sentence}" in reasons) == refused


def test_the_way_that_is_asked_for_is_taken_and_group_waits_for_the_rounded_weights(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    class Loaded:
        def to(self, place: object) -> None:
            called.append(f"to {place}")

        def enable_model_cpu_offload(self, **_: object) -> None:
            called.append("model")

        def enable_group_offload(self, **_: object) -> None:
            called.append("group")

        def set_progress_bar_config(self, **_: object) -> None:
            pass

    monkeypatch.setattr("diffusers.FluxPipeline.from_pretrained", lambda *_, **__: Loaded())
    monkeypatch.setattr("ditstack.recipe.model.Model._check_device", lambda _: None)
    for place, offload, at_once, later in (
        ("cuda", "none", ["to cuda"], ["to cuda"]), ("cuda", "model", ["model"], []), ("cuda", "group", [], ["group"]),
        ("cpu", "model", ["to cpu"], []), ("cpu", "group", ["to cpu"], []),
    ):  # fmt: skip
        monkeypatch.setattr(Model, "place", lambda self, place=place: torch.device(place))
        model = Recipe.parse({"model": {"method": "flux", "source": str(saved), "offload": offload}}).model
        called.clear()
        loaded = model.load()
        assert called == at_once
        called.clear()
        model.settle(loaded)
        assert called == later
    monkeypatch.setattr(Model, "place", lambda self: torch.device("cuda"))
    model = Recipe.parse({"model": {"method": "flux", "source": str(saved)}}).model
    called.clear()
    model.settle(model.load(wait=True))
    assert called == ["to cpu", "to cuda"]
