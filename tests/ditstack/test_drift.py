"""What is changed on a pipeline after apply is noticed at its next call; factors are never served to other weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import StaleFactors, apply
from ditstack.errors import BadPipeline
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call
from loras import writer

P = ["a red circle"]
STEPS = 6


def stand(pipeline: Any, folder: Path, cache: dict[str, Any]) -> Stack:
    data = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": STEPS, "size": "16x16"}, "cache": cache}
    kept = {"factors": str(folder / "f.safetensors")} if cache["method"] == "icc" else {}
    return apply(pipeline, {**data, "cache": {**cache, **kept}, "calibration": ["a red star", "a blue ring"]})


SVD: dict[str, Any] = {"method": "svdcache", "interval": 2}
ICC: dict[str, Any] = {"method": "icc", "interval": 2, "rank": 4, "calibrate": "auto"}


def test_another_transformer_is_noted(tmp_path: Path) -> None:
    stack = stand(tiny.flux(), tmp_path, SVD)
    call(stack.pipeline, P, STEPS)
    assert stack.notes == []
    stack.pipeline.transformer = tiny.flux().transformer
    call(stack.pipeline, P, STEPS)
    assert any("transformer is not the module that the stack was applied to" in note for note in stack.report().notes)
    stack.pipeline.transformer = stack.pipe.transformers["transformer"]
    call(stack.pipeline, P, STEPS)
    assert stack.notes == []


def test_other_attention_processors_are_noted(tmp_path: Path) -> None:
    stack = stand(tiny.flux(), tmp_path, SVD)
    kind = type(stack.pipeline.transformer.transformer_blocks[0].attn.processor)
    stack.pipeline.transformer.set_attn_processor(kind())
    call(stack.pipeline, P, STEPS)
    assert any("attention processors were replaced" in note for note in stack.report().notes)
    assert stack.report().steps == {"full": 3, "forecast": 3}


def test_a_transformer_that_is_compiled_whole_afterwards_is_refused_with_what_to_write(tmp_path: Path) -> None:
    stack = stand(tiny.flux(), tmp_path, SVD)
    stack.pipeline.transformer.compile(backend="eager")
    with pytest.raises(BadPipeline, match=r"compiled as a whole after `apply`.*`compile: inductor`"):
        call(stack.pipeline, P, STEPS)


def test_a_lora_loaded_later_moves_the_fingerprint_and_is_noted(tmp_path: Path) -> None:
    stack = stand(tiny.flux(), tmp_path, SVD)
    before = stack.report().weights
    stack.pipeline.load_lora_weights(writer(tmp_path)())
    call(stack.pipeline, P, STEPS)
    assert stack.report().weights != before
    assert any("weights have changed" in note for note in stack.report().notes)


@pytest.mark.parametrize("fuse", [False, True])
def test_factors_are_stale_or_fitted_anew_as_the_recipe_says(tmp_path: Path, fuse: bool) -> None:
    for calibrate in ("auto", "never"):
        pipeline = tiny.flux()
        stand(tiny.flux(), tmp_path, ICC)
        stack = stand(pipeline, tmp_path, {**ICC, "calibrate": calibrate})
        call(pipeline, P, STEPS)
        pipeline.load_lora_weights(writer(tmp_path)())
        if fuse:
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
        if calibrate == "never":
            for _ in range(2):
                with pytest.raises(StaleFactors, match="the factors were fitted to the former ones"):
                    call(pipeline, P, STEPS)
            continue
        assert stack.factors is not None
        old = stack.factors.conditions["weights"]
        made = call(pipeline, P, STEPS)
        assert stack.factors.conditions["weights"] != old
        assert any("refitted" in note for note in stack.notes)
        assert torch.equal(call(pipeline, P, STEPS), made)


class Sharper:
    """Attention whose output is half as large again."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self.own(*args, **kwargs)
        return tuple(1.5 * one for one in made) if isinstance(made, tuple) else 1.5 * made


def sharpen(pipeline: Any) -> None:
    kind = type(pipeline.transformer.transformer_blocks[0].attn.processor)
    pipeline.transformer.set_attn_processor(Sharper(kind()))


def test_factors_are_stale_where_attention_is_computed_otherwise(tmp_path: Path) -> None:
    stand(tiny.flux(), tmp_path, ICC)
    stack = stand(tiny.flux(), tmp_path, {**ICC, "calibrate": "never"})
    own = dict(stack.pipeline.transformer.attn_processors)
    kind = type(next(iter(own.values())))
    want = call(stack.pipeline, P, STEPS)
    stack.pipeline.transformer.set_attn_processor(kind())  # another that computes the same
    assert torch.equal(call(stack.pipeline, P, STEPS), want)
    sharpen(stack.pipeline)
    for _ in range(2):
        with pytest.raises(StaleFactors, match=r"other processors .* the factors were fitted to the former ones"):
            call(stack.pipeline, P, STEPS)
    with pytest.raises(StaleFactors, match=r"processors: was FluxAttnProcessor .*, is Sharper"):
        stand(stack.pipeline, tmp_path, {**ICC, "calibrate": "never"})
    stack.pipeline.transformer.set_attn_processor(own)
    assert torch.equal(call(stack.pipeline, P, STEPS), want)


def test_factors_are_fitted_anew_where_attention_is_computed_otherwise(tmp_path: Path) -> None:
    stack = stand(tiny.flux(), tmp_path, ICC)
    assert stack.factors is not None
    call(stack.pipeline, P, STEPS)
    old = stack.factors
    sharpen(stack.pipeline)
    made = call(stack.pipeline, P, STEPS)
    assert any(not torch.equal(one, stack.factors.tensors[name]) for name, one in old.tensors.items())
    assert any("other processors" in note and "refitted" in note for note in stack.notes)
    assert torch.equal(call(stack.pipeline, P, STEPS), made)
    fresh = tiny.flux()
    sharpen(fresh)
    assert torch.equal(call(stand(fresh, tmp_path, {**ICC, "calibrate": "never"}).pipeline, P, STEPS), made)
