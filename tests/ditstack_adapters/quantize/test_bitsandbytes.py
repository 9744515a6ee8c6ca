"""bitsandbytes: swapped after loading, without a GPU."""

from typing import Any

import pytest
import torch

from ditstack import apply
from ditstack.errors import RecipeError
from ditstack.factors import fingerprint
from ditstack.pipeline.macs import MacCounter
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.weights.dense import dense

SCHEMES: list[dict[str, Any]] = [
    {"scheme": "int8"}, {"scheme": "nf4"}, {"scheme": "fp4"}, {"scheme": "nf4", "double_quant": True},
]  # fmt: skip
LOSS = {"int8": (0.003, 0.01), "nf4": (0.08, 0.1), "fp4": (0.1, 0.13)}


def stand(**fields: Any) -> Stack:
    quantize = {"method": "bitsandbytes", **fields}
    return apply(tiny.flux(), Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "quantize": quantize}))


@pytest.mark.parametrize("fields", SCHEMES, ids=str)
def test_the_blocks_linears_are_rounded_and_the_rest_is_left(fields: dict[str, Any]) -> None:
    plain, rounded = tiny.flux().transformer, stand(**fields).pipeline.transformer
    kinds = {name: type(one).__name__ for name, one in rounded.named_modules() if hasattr(one, "in_features")}
    swapped = {name for name, kind in kinds.items() if kind in ("Linear8bitLt", "Linear4bit")}
    assert "transformer_blocks.0.attn.to_out.0" in swapped
    assert "single_transformer_blocks.2.proj_out" in swapped
    assert not {name for name in swapped if "norm" in name or "_blocks" not in name}
    least, most = LOSS[fields["scheme"]]
    for name in swapped:
        weight = plain.get_submodule(name).weight
        assert least < (dense(rounded.get_submodule(name)) - weight).norm() / weight.norm() < most


@pytest.mark.parametrize("fields", SCHEMES, ids=str)
def test_pictures_stay_near_the_plain_ones_and_products_are_counted(fields: dict[str, Any]) -> None:
    plain, stack = apply(tiny.flux(), Recipe.parse({"model": {"method": "flux", "device": "cpu"}})), stand(**fields)
    want, out = (tiny.call(one.pipeline, ["a cat"], 2, output_type="latent") for one in (plain, stack))
    assert 1e-4 < (out - want).norm() / want.norm() < 0.2
    assert stack.report().macs == plain.report().macs > 0


@pytest.mark.parametrize("fields", SCHEMES, ids=str)
def test_the_fingerprint_sees_weights_and_scales_and_outlives_a_call(fields: dict[str, Any]) -> None:
    swapped = stand(**fields).pipeline.transformer.transformer_blocks[0].attn.to_q
    before = fingerprint({"it": swapped})
    with torch.inference_mode():
        swapped(torch.randn(2, swapped.in_features))
    assert fingerprint({"it": swapped}) == before
    scales = swapped.state.SCB if fields["scheme"] == "int8" else swapped.weight.quant_state.absmax
    kept = scales[3].clone()
    scales[3] += 1
    assert fingerprint({"it": swapped}) != before
    scales[3] = kept
    assert fingerprint({"it": swapped}) == before
    swapped.weight.data[5] ^= 1
    assert fingerprint({"it": swapped}) != before


def test_a_counter_sees_a_swapped_linear_once() -> None:
    for fields in SCHEMES:
        swapped = stand(**fields).pipeline.transformer.transformer_blocks[0].attn.to_q
        with MacCounter() as counter, torch.inference_mode():
            swapped(torch.randn(3, 5, swapped.in_features))
        assert counter.total == 3 * 5 * swapped.in_features * swapped.out_features


def test_double_quant_is_refused_where_there_is_nothing_to_round() -> None:
    quantize = {"method": "bitsandbytes", "scheme": "int8", "double_quant": True}
    with pytest.raises(RecipeError, match="double_quant is for nf4 and fp4"):
        Recipe.parse({"model": {"method": "flux"}, "quantize": quantize})
