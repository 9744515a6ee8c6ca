"""Planned: what is said of a recipe's memory is what its tensors take, and what its comment claims."""

import re
from typing import Any

import pytest
import torch

from ditstack import load
from ditstack.errors import Incompatible
from ditstack.recipe.adapter import find
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.layers import shelf, shelf_names
from ditstack.recipe.memory import room
from ditstack.recipe.memory.planned import planned
from ditstack.recipe.memory.room import check_room, fit
from ditstack.recipe.model import Model
from ditstack.recipe.recipe import Recipe

SAID = ["a red circle in the center on a plain gray background"]
CLAIM = re.compile(r"GPU of (\d+) GB")


def held(weight: Any) -> int:
    """Bytes of a weight, of what it is made of, and of what a quantizer keeps beside it."""
    if hasattr(weight, "__tensor_flatten__"):
        return sum(held(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    state, scales = getattr(weight, "quant_state", None), getattr(weight, "SCB", None)
    beside = 0 if scales is None else held(scales)
    while state is not None:
        beside, state = beside + held(state.absmax), state.state2
    return weight.numel() * weight.element_size() + beside


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        *(("torchao", {"scheme": scheme}) for scheme in ("int8", "int8dq", "int4", "int3", "fp8")),
        ("torchao", {"scheme": "int4", "group_size": 64}),
        *(("bitsandbytes", {"scheme": scheme}) for scheme in ("int8", "nf4", "fp4")),
        ("bitsandbytes", {"scheme": "nf4", "double_quant": True}),
    ],
    ids=str,
)
def test_a_quantizer_says_what_a_rounded_weight_takes(method: str, fields: dict[str, Any]) -> None:
    rows, columns = 256, 512
    quantizer: Any = find("quantize", method)(**fields)
    linear = torch.nn.Sequential(torch.nn.Linear(columns, rows, dtype=torch.bfloat16))
    if method == "torchao":
        from torchao.quantization import quantize_

        quantize_(linear, quantizer._config())
        weight: Any = linear[0].weight
    else:
        weight = quantizer._swapped(linear[0]).weight
    assert quantizer.stored(rows, columns, 2) == pytest.approx(held(weight), abs=16)


def bytes_of(pipeline: Any) -> int:
    modules = [one for one in pipeline.components.values() if isinstance(one, torch.nn.Module)]
    return sum(held(weight) for one in modules for weight in one.parameters())


@pytest.mark.parametrize("name", ["tiny", "tiny-int8-native-svdcache", "tiny-nf4-native-svdcache"])
def test_planned_weights_are_those_of_the_stack_that_stands(name: str) -> None:
    found = planned(Recipe.read(name), "cpu")
    assert found is not None
    plan: Any = load(Recipe.read(name, ["model.device=cpu"]))
    assert found.weights == pytest.approx(bytes_of(plan.pipeline), rel=0.02)


@pytest.mark.parametrize(
    ("cache", "least"),
    [
        ({"method": "svdcache", "interval": 3}, 0.99),
        ({"method": "svdcache", "interval": 3, "predictor": "reuse"}, 0.99),
        ({"method": "svdcache", "interval": 3, "granularity": "block"}, 0.5),
        ({"method": "reuse"}, 0.99),
        ({"method": "paced"}, 0.99),
        ({"method": "halves"}, 0.7),
        ({"method": "firstblock", "threshold": 9.0}, 0.4),
        ({"method": "icc", "rank": 0.125, "calibrate": "auto"}, 0.4),
        ({"method": "icc", "rank": 0.125, "anchor": "line", "calibrate": "auto"}, 0.4),
        ({"method": "mixed", "schedule": "FFCS...", "rank": 0.125, "calibrate": "auto"}, 0.4),
    ],
    ids=str,
)
def test_a_cache_keeps_no_more_than_it_says_and_not_much_less(cache: dict[str, Any], least: float) -> None:
    recipe = Recipe.read("tiny").with_(cache=cache, sampler={"steps": 6}, calibration=SAID * 2)
    found = planned(recipe, "cpu")
    assert found is not None
    stack = load(recipe)
    most = 0

    def look() -> None:
        nonlocal most
        seen = {
            one.data_ptr(): one.numel() * one.element_size()
            for kept in stack.pipe.caches
            for memory in kept.memories.values()
            for one in memory.tensors()
        }
        most = max(most, sum(seen.values()))

    stack.pipe.clock.on_tick.append(lambda done, steps: look())
    stack.sample(SAID)
    factors = sum(one.numel() * 4 for kept in stack.pipe.caches for one in kept.factors.values())  # type: ignore[attr-defined]
    assert least * found.kept <= most + factors <= found.kept * 1.01


def test_a_comment_that_names_a_gpu_is_true() -> None:
    claims = {name: CLAIM.search((shelf() / f"{name}.yaml").read_text()) for name in shelf_names()}
    named = {name: int(found[1]) for name, found in claims.items() if found}
    assert named
    for name, size in named.items():
        found = fit(Recipe.read(name), "cuda", size * 1e9)
        assert found is not None
        assert found.fits, f"{name}: {found.plan}"


def test_int8_weights_of_flux_take_the_offload_that_is_advised() -> None:
    recipe = Recipe.read("flux-int8-native-svdcache")
    found = fit(recipe, "cuda", 24e9)
    assert found is not None
    assert not found.fits
    assert 23e9 < found.plan.weights < 27e9
    assert found.advice.startswith("with `--set model.offload=model` it needs about ")
    moved = fit(recipe.with_(model={"offload": "model"}), "cuda", 24e9)
    assert moved is not None
    assert moved.fits
    assert moved.plan.weights == max(moved.plan.parts.values())


def test_what_moves_with_its_whole_model_is_not_advised_to_move_tensor_by_tensor() -> None:
    recipe = Recipe.read("flux-nf4-native-svdcache")
    assert any(Capability.MOVED_WHOLE in adapter.needs for _, adapter in recipe.stages())
    found = fit(recipe, "cuda", 8e9)
    assert found is not None
    assert found.advice.startswith("no offload helps: take weights of fewer bits")
    videos = fit(Recipe.read("hunyuanvideo-int8-native-svdcache"), "cuda", 24e9)
    assert videos is not None
    assert "decoding alone takes most of it" in videos.advice


def test_rounding_on_the_way_adds_one_block_and_a_cpu_holds_the_whole_model_first() -> None:
    recipe = Recipe.read("flux-int8-native-svdcache")
    gpu, cpu = planned(recipe, "cuda"), planned(recipe, "cpu")
    assert gpu is not None
    assert cpu is not None
    block = gpu.build - gpu.weights
    assert 0.3e9 < block < 0.7e9  # a double-stream block of FLUX in bf16: 340 M parameters
    assert cpu.build > 2 * cpu.weights / 2
    assert cpu.build > 4 * 16.8e9


def test_weights_larger_than_the_device_are_refused_and_a_tight_plan_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.read("flux-int8-native-svdcache")
    monkeypatch.setattr(Model, "place", lambda self: torch.device("cuda"))
    monkeypatch.setattr(room, "room_here", lambda recipe: 24e9)
    with pytest.raises(
        Incompatible, match=r"its weights alone take 25\.\d GB, and the GPU has 24\.0 GB; with `--set mo"
    ):
        check_room(recipe)
    monkeypatch.setattr(room, "room_here", lambda recipe: 26e9)
    assert check_room(recipe).startswith("flux-int8-native-svdcache is planned to need 27.")
    monkeypatch.setattr(room, "room_here", lambda recipe: 80e9)
    assert check_room(recipe) == ""
