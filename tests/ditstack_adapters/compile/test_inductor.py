"""inductor: every kind of step in one piece of code a block, no graph breaks, nothing compiled twice."""

from typing import Any

import pytest
import torch

from ditstack import apply
from ditstack.errors import BadPipeline
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call
from ditstack_adapters.compile.inductor import Inductor

P = ["a red circle", "a blue star"]
STEPS = 6
CACHES: dict[str, dict[str, Any]] = {
    "full": {},
    "forecast": {"cache": {"method": "svdcache", "interval": 3}},
    "calibrated": {"cache": {"method": "icc", "interval": 3, "factors_by": "svd", "calibrate": "auto"}},
    "mixed": {"cache": {"method": "mixed", "schedule": "FCFSCC", "calibrate": "auto"}},
}
PIECES = {"full": 3, "forecast": 3, "calibrated": 6, "mixed": 12}
"""Most pieces of code: one for a kind of block, its layout, its kind of step, and what is kept by then."""
BENEATH: dict[str, dict[str, Any]] = {
    "torchao int8dq": {"quantize": {"method": "torchao", "scheme": "int8dq"}},
    "bitsandbytes nf4": {"quantize": {"method": "bitsandbytes", "scheme": "nf4"}},
    "int8qk": {"attention": {"method": "int8qk"}},
    "sparse": {"attention": {"method": "sparse", "keep": 0.5, "block_size": 4}},
}


def recipe(stages: dict[str, Any], **fields: Any) -> Recipe:
    sampler = {"steps": STEPS, "size": "16x16"}
    compile_stage = {"method": "inductor", "backend": "eager", **fields}
    data = {"model": {"method": "flux", "device": "cpu"}, "sampler": sampler, **stages}
    return Recipe.parse({**data, "calibration": ["a red star", "a blue ring"], "compile": compile_stage}, "compiled")


def run(stack: Stack, prompts: list[str] = P) -> torch.Tensor:
    return call(stack.pipeline, prompts, STEPS, output_type="latent", true_cfg_scale=3.0)


def compiled_twice(stages: dict[str, Any], most: int, **fields: Any) -> Stack:
    """A stack that compiled at most so many pieces in its first generation, none in its second, and paints as before.

    `before` is as written: the same stack, its blocks not compiled.
    """
    stack = apply(tiny.flux(), recipe(stages, **fields))
    run(stack)
    assert 0 < (stack.report().compiled or 0) <= most
    out = run(stack)
    assert stack.report().compiled == 0
    with stack.pipe.uncompiled():
        torch.testing.assert_close(out, run(stack), rtol=1e-3, atol=1e-3)
    return stack


@pytest.mark.parametrize("kind", CACHES)
def test_every_kind_of_step_is_compiled_once_and_paints_the_same(kind: str) -> None:
    kinds = compiled_twice(CACHES[kind], PIECES[kind]).pipe.passes.steps
    assert kind == "mixed" or kind in kinds


@pytest.mark.parametrize("name", BENEATH)
def test_what_stands_beneath_is_compiled_with_it(name: str) -> None:
    compiled_twice({**BENEATH[name], **CACHES["forecast"]}, PIECES["forecast"])


def test_a_whole_transformer_is_one_piece_of_code() -> None:
    compiled_twice({}, 1, region="whole")


def test_another_size_is_compiled_anew_and_known_thereafter() -> None:
    stack = compiled_twice({}, PIECES["full"])
    run(stack, P[:1])
    assert stack.report().compiled
    run(stack)
    run(stack, P[:1])
    assert stack.report().compiled == 0


class Replays:
    """Compiled code as CUDA graphs run it: what it returns lies where every replay writes."""

    def __init__(self, function: Any, _limit: int, **_: Any) -> None:
        self.function = function
        self.place: dict[Any, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        (out,) = self.function(*args, **kwargs)
        return (self.place.setdefault(out.shape, out.clone()).copy_(out),)


def test_what_a_graph_returns_outlives_the_replay_of_the_second_guidance_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    want = run(apply(tiny.flux(), recipe({}, backend="eager")))
    stack = apply(tiny.flux(), Recipe.parse({"model": {"method": "flux", "device": "cpu"}}, "plain"))
    monkeypatch.setattr("ditstack.compat.compile_apart", Replays)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    Inductor(region="whole", mode="reduce-overhead").apply(stack.pipe)
    torch.testing.assert_close(run(stack), want, rtol=1e-3, atol=1e-3)


def test_a_lora_beside_its_base_is_compiled_with_it() -> None:
    from peft import LoraConfig

    pipeline = tiny.flux()
    pipeline.transformer.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k"], init_lora_weights=False))
    stack = apply(pipeline, recipe({}))
    want = run(stack)
    assert torch.equal(run(stack), want)
    assert stack.report().compiled == 0
    pipeline.transformer.disable_adapters()
    with stack.pipe.uncompiled():
        assert not torch.equal(run(stack), want)


@pytest.mark.slow
def test_code_is_made_where_a_compiler_is_and_paints_the_same() -> None:
    """The one test that waits for the real compiler, which lays results out in ways of its own: one piece more."""
    compiled_twice(CACHES["forecast"], PIECES["forecast"] + 1, backend="inductor")


@pytest.mark.parametrize(
    ("stages", "fields", "fact"),
    [
        (CACHES["forecast"], {"region": "whole"}, Capability.FREE_TRUNK),
        ({"cache": {"method": "svdcache", "granularity": "block"}}, {}, Capability.TRACEABLE),
        ({"cache": {"method": "taylorseer"}}, {}, Capability.TRACEABLE),
        (CACHES["calibrated"], {"mode": "reduce-overhead"}, Capability.PASSING),
        ({}, {"mode": "max-autotune"}, Capability.CUDA),
    ],
)
def test_what_cannot_be_compiled_is_refused(stages: dict[str, Any], fields: dict[str, Any], fact: Capability) -> None:
    reasons = plan(recipe(stages, **fields))[-1].reasons
    assert any(f"compile inductor requires that {fact.sentence}" in reason for reason in reasons)


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    (reason,) = plan(recipe({}, backend="inductor"))[-1].reasons
    assert Capability.COMPILER.sentence in reason


def test_what_the_compiler_cannot_follow_is_refused_in_one_sentence() -> None:
    pipeline = tiny.flux()
    pipeline.transformer.transformer_blocks[0].ff.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    stack = apply(pipeline, recipe({}))
    with pytest.raises(BadPipeline, match=r"compile inductor cannot follow a FluxTransformerBlock .*`compile: none`$"):
        run(stack)
