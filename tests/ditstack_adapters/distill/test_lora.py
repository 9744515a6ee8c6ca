"""distill/lora on a tiny FLUX: it changes what it says, on weights of every kind, and stands with what comes after."""

import re
from typing import Any

import pytest
import torch

from ditstack import apply
from ditstack.errors import BadPipeline
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call
from ditstack.weights.dense import dense
from loras import MODULES, STEPS, P, Write, change, recipe, run

QUANTIZED = [
    None,
    *({"method": "torchao", "scheme": one} for one in ("int8", "int8dq", "int4", "fp8")),
    *({"method": "bitsandbytes", "scheme": one} for one in ("int8", "nf4")),
]


def told(stack: Stack) -> float:
    """The cosine that the report tells of."""
    found = re.search(r"cosine (-?[\d.]+)", " ".join(stack.report().notes))
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "beside"])
@pytest.mark.parametrize("quantize", QUANTIZED, ids=lambda one: f"{one['method']}-{one['scheme']}" if one else "none")
def test_it_moves_the_output_on_weights_of_every_kind_and_says_how(write: Write, quantize: Any, fuse: bool) -> None:
    stack = apply(tiny.flux(), recipe(write(size=0.1), quantize, fuse=fuse))
    assert 0.9 < told(stack) <= 1
    assert torch.isfinite(run(stack)).all()
    linear = stack.pipeline.transformer.get_submodule(MODULES[0])
    assert hasattr(linear, "base_layer") != fuse
    plain, delta = tiny.flux().transformer.get_submodule(MODULES[0]).weight, change(write(size=0.1))
    assert (dense(linear) - plain - delta).norm() < 0.2 * (plain + delta).norm()


def test_fused_equals_beside_and_what_diffusers_makes_of_it(write: Write) -> None:
    theirs = tiny.flux()
    theirs.load_lora_weights(write())
    want = call(theirs, P, STEPS, output_type="latent")
    for fuse in (True, False):
        torch.testing.assert_close(run(apply(tiny.flux(), recipe(write(), fuse=fuse))), want, rtol=1e-4, atol=1e-4)


def test_several_are_added_each_with_its_scale(write: Write) -> None:
    first, second = write(), write("another.safetensors")
    also = [{"source": second, "scale": -2.0}]
    stack = apply(tiny.flux(), recipe(first, scale=0.5, also=also))
    got = stack.pipeline.transformer.get_submodule(MODULES[0]).weight
    plain = tiny.flux().transformer.get_submodule(MODULES[0]).weight
    torch.testing.assert_close(got, plain + 0.5 * change(first) - 2 * change(second))
    assert stack.pipeline.get_list_adapters() == {}


def test_one_beside_rounded_weights_can_be_changed_while_the_stack_stands(write: Write) -> None:
    int8 = {"method": "torchao", "scheme": "int8"}
    without = Recipe.parse({"model": {"method": "flux", "device": "cpu"}, "quantize": int8})
    want = run(apply(tiny.flux(), without))
    stack = apply(tiny.flux(), recipe(write(), int8, fuse=False))
    assert not torch.allclose(run(stack), want, atol=1e-2)
    stack.pipeline.set_adapters(["ditstack_0"], [0.0])
    torch.testing.assert_close(run(stack), want)


def test_caches_and_compensation_stand_on_one_that_runs_beside(write: Write) -> None:
    rounded = recipe(write(), {"method": "torchao", "scheme": "int4", "compensate": 4}, fuse=False)
    cache = {"method": "icc", "calibrate": "auto", "interval": 2}
    stack = apply(tiny.flux(), rounded.with_(cache=cache, calibration=P))
    assert torch.isfinite(run(stack)).all()
    assert stack.pipe.passes.steps == {"full": 2, "calibrated": 1}


def test_switching_off_leaves_the_lora_and_another_pipeline_is_untouched(write: Write) -> None:
    plain = call(tiny.flux(), P, STEPS, output_type="latent")
    want = run(apply(tiny.flux(), recipe(write())))
    cached = recipe(write()).with_(cache={"method": "reuse", "interval": 3})
    stack = apply(tiny.flux(), cached)
    assert not torch.equal(run(stack), want)
    with stack.off():
        assert torch.equal(run(stack), want)
    assert torch.equal(call(tiny.flux(), P, STEPS, output_type="latent"), plain)
    assert cached.plain().adapters.keys() == {"model", "distill"}


def test_each_transformer_takes_its_own(write: Write) -> None:
    modules = ("blocks.0.attn1.to_q", "blocks.1.attn1.to_v")
    width = tiny.wan(two_transformers=True).transformer.get_submodule(modules[0]).in_features
    high, low = (write(name, modules, width=width) for name in ("high.safetensors", "low.safetensors"))
    also = [{"source": low, "into": "transformer_2"}]
    distill = {"method": "lora", "source": high, "also": also}
    data = {"model": {"method": "wan", "device": "cpu"}, "distill": distill}
    pipeline, plain = tiny.wan(two_transformers=True), tiny.wan(two_transformers=True)
    stack = apply(pipeline, Recipe.parse(data))
    assert sum("cosine 1.000" in note for note in stack.report().notes) == 2
    for name, file in (("transformer", high), ("transformer_2", low)):
        got, before = (getattr(one, name).get_submodule(modules[0]).weight for one in (pipeline, plain))
        torch.testing.assert_close(got, before + change(file, modules[0]))
    with pytest.raises(BadPipeline, match="has no transformer_2"):
        apply(tiny.wan(), Recipe.parse(data))


def test_one_that_rounding_half_hides_is_told_and_one_that_it_drowns_is_refused(write: Write) -> None:
    int4, int3 = ({"method": "torchao", "scheme": one} for one in ("int4", "int3"))
    stack = apply(tiny.flux(), recipe(write(), int4))
    assert told(stack) < 0.9
    assert "in another direction" in stack.report().notes[-1]
    assert "`fuse: false` would keep it" in stack.report().notes[-1]
    assert told(apply(tiny.flux(), recipe(write(), int4, fuse=False))) > 0.9
    with pytest.raises(BadPipeline, match=r"but on the final weights -?\d+% of that is left"):
        apply(tiny.flux(), recipe(write(size=1e-4), int3))


def test_parts_that_run_beside_are_never_rounded(write: Write) -> None:
    for quantize in QUANTIZED[1:]:
        stack = apply(tiny.flux(), recipe(write(), {**(quantize or {}), "skip": []}, fuse=False))
        linear = stack.pipeline.transformer.get_submodule(MODULES[0])
        assert type(linear.lora_A["ditstack_0"].weight) is torch.nn.Parameter
        assert type(linear.base_layer.weight) is not torch.nn.Parameter


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "beside"])
def test_a_picture_does_not_depend_on_its_batch(write: Write, fuse: bool) -> None:
    stack = apply(tiny.flux(), recipe(write(), fuse=fuse))
    torch.testing.assert_close(run(stack)[:1], run(stack, P[:1]), rtol=1e-5, atol=1e-5)
