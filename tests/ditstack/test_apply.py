"""apply changes nothing unless it succeeds, replaces what it can undo, and remove gives the pipeline back."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import BadPipeline, Incompatible, Recipe, apply
from ditstack.errors import BadFile, DitstackError
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call
from ditstack_adapters.cache.svdcache import SvdCache
from ditstack_adapters.quantize.torchao import TorchAo

P = ["a red circle", "a blue star"]
STEPS = 6
MODEL = {"method": "flux", "device": "cpu"}
SVD = {"method": "svdcache", "interval": 2}
INT8 = {"method": "torchao", "scheme": "int8"}


def recipe(**stages: Any) -> dict[str, Any]:
    return {"model": MODEL, "sampler": {"steps": STEPS}, **stages}


def state(pipeline: Any) -> list[Any]:
    """The bytes of the weights, what each module carries, and the scheduler."""
    weights = [(name, type(one), one.numpy().tobytes()) for name, one in pipeline.transformer.state_dict().items()]
    modules = [
        (name, type(module), sorted(vars(module)), [*hooks.hooks] if (hooks := carried(module)) else [])
        for name, module in pipeline.transformer.named_modules()
    ]
    return [pipeline.scheduler, weights, modules, type(pipeline.transformer.transformer_blocks[0].attn.processor)]


def carried(module: Any) -> Any:
    return getattr(module, "_diffusers_hook", None)


def half_rounded(self: TorchAo, pipe: Any) -> None:
    from torchao.quantization import quantize_

    quantize_(pipe.blocks["transformer"][0].module, self._config(), self.takes)
    pipe.blocks["transformer"][1].module.attn.to_q.weight.data.mul_(2)
    raise RuntimeError("out of memory")


def half_cached(self: SvdCache, pipe: Any) -> None:
    from ditstack.caching.features import FeatureCache, cache_trunks
    from ditstack.maths import predictors
    from ditstack.pipeline.policy import StepPolicy

    pipe.policy = StepPolicy(pipe.clock, lambda steps: ["full"] * steps)
    cache_trunks(pipe, FeatureCache(pipe, lambda site: predictors.Reuse()))
    raise KeyboardInterrupt


FAILURES: dict[str, tuple[dict[str, Any], type[BaseException]]] = {
    "another family": (recipe(model={**MODEL, "method": "wan"}, quantize=INT8), BadPipeline),
    "a scheduler's setting": (recipe(quantize=INT8, sampler={"settings": {"shfit": 2}}), BadPipeline),
    "missing factors": (recipe(quantize=INT8, cache={"method": "icc", "factors": "/nowhere/f.safetensors"}), BadFile),
    "no calibration prompts": (recipe(quantize=INT8, cache={"method": "icc", "calibrate": "auto"}), BadFile),
    "a stage that cannot stand": (recipe(quantize=INT8, cache={"method": "magcache", "ratios": [1.0]}), DitstackError),
    "half rounded": (recipe(quantize=INT8, cache=SVD), RuntimeError),
    "half cached": (
        recipe(quantize=INT8, cache=SVD, sampler={"scheduler": "UniPCMultistepScheduler"}),
        KeyboardInterrupt,
    ),
}


@pytest.mark.parametrize("carries", [False, True])
@pytest.mark.parametrize("failure", list(FAILURES))
def test_where_apply_fails_the_pipeline_is_as_it_was(
    failure: str, carries: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny.flux()
    stack = apply(pipeline, recipe(cache={"method": "reuse", "interval": 3})) if carries else None
    want, before = call(pipeline, P, STEPS), state(pipeline)
    data, error = FAILURES[failure]
    if failure == "half rounded":
        monkeypatch.setattr(TorchAo, "apply", half_rounded)
    if failure == "half cached":
        monkeypatch.setattr(SvdCache, "apply", half_cached)
    with pytest.raises(error):
        apply(pipeline, data)
    monkeypatch.undo()
    assert state(pipeline) == before
    assert torch.equal(call(pipeline, P, STEPS), want)
    if stack is not None:
        assert stack.report().steps == {"full": 2, "reused": 4}
    assert torch.equal(call(apply(pipeline, recipe(quantize=INT8, cache=SVD)).pipeline, P, STEPS), both())


def both() -> torch.Tensor:
    return call(apply(tiny.flux(), recipe(quantize=INT8, cache=SVD)).pipeline, P, STEPS)


@pytest.mark.parametrize(
    "stages",
    [
        {"cache": SVD},
        {"cache": {**SVD, "granularity": "block"}},
        {"cache": {"method": "icc", "rank": 0}},
        {"cache": {"method": "mixed", "schedule": "FSCFRC", "rank": 0}},
        {"cache": {"method": "fbcache"}},
        {"cache": {"method": "taylorseer"}},
        {"attention": {"method": "sparse", "keep": 0.5, "block_size": 4}},
        {"attention": "native", "compile": {"method": "inductor", "backend": "eager"}},
        {"sampler": {"steps": STEPS, "scheduler": "UniPCMultistepScheduler", "settings": {"use_flow_sigmas": True}}},
    ],
    ids=str,
)
def test_remove_gives_the_pipeline_back_as_it_was(stages: dict[str, Any]) -> None:
    pipeline = tiny.flux()
    want, before = call(pipeline, P, STEPS), state(pipeline)
    for stack in (apply(pipeline, recipe(**stages)) for _ in range(2)):
        assert stack.pipeline is pipeline
        call(pipeline, P, STEPS)
        stack.remove()
        assert state(pipeline)[:2] == before[:2]
        assert state(pipeline)[3] == before[3]
        assert not any(hooks.hooks for one in pipeline.transformer.modules() if (hooks := carried(one)))
        assert not any("forward" in vars(one) for one in pipeline.transformer.modules())
        assert torch.equal(call(pipeline, P, STEPS), want)
        stack.remove()
        with pytest.raises(BadPipeline, match="was removed"):
            stack.sample(P)


def test_a_notebook_applies_removes_and_applies_again() -> None:
    cells = [
        "pipe = tiny.flux(); want = call(pipe, P, 6)",
        "stack = apply(pipe, first); one = call(pipe, P, 6); stack",
        "stack = apply(pipe, first); again = call(pipe, P, 6)",
        "stack = apply(pipe, second); other = call(pipe, P, 6)",
        "stack.remove(); back = call(pipe, P, 6)",
        "stack = apply(pipe, first); last = call(pipe, P, 6); said = repr(stack)",
    ]
    names: dict[str, Any] = {**globals(), "first": recipe(cache=SVD), "second": recipe(cache={"method": "reuse"})}
    for cell in (*cells, *cells[1:]):
        exec(cell, names)
    assert torch.equal(names["one"], names["again"])
    assert torch.equal(names["one"], names["last"])
    assert torch.equal(names["want"], names["back"])
    assert not torch.equal(names["one"], names["other"])
    assert names["said"].splitlines()[0] == "Stack recipe on a FluxPipeline"
    assert "cache svdcache" in names["said"]
    assert "3 full, 3 forecast steps" in names["said"]


def test_rounded_weights_stay_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = tiny.flux()
    stack = apply(pipeline, recipe(quantize=INT8, cache=SVD))
    with stack.off():
        rounded = call(pipeline, P, STEPS)
    with caplog.at_level(logging.WARNING, "ditstack"):
        stack.remove()
    assert "weights stay as quantize torchao left them" in caplog.text
    assert torch.equal(call(pipeline, P, STEPS), rounded)
    assert torch.equal(call(apply(pipeline, recipe(quantize=INT8, cache=SVD)).pipeline, P, STEPS), both())
    plain = apply(pipeline, recipe(cache=SVD))
    assert torch.equal(call(pipeline, P, STEPS), both())
    assert any("weights stay as quantize torchao" in note for note in plain.notes)
    with pytest.raises(BadPipeline, match=r"changed by quantize torchao with other settings"):
        apply(pipeline, recipe(quantize={**INT8, "scheme": "int4"}))
    assert torch.equal(call(pipeline, P, STEPS), both())


def test_a_recipe_may_be_a_name_a_dict_or_a_recipe_with_changes() -> None:
    data = recipe(cache=SVD)
    given: list[Any] = [data, Recipe.parse(data), {"extends": "flux", "sampler": {"steps": STEPS}, "cache": SVD}]
    wide = ["cache.interval=3", "model.device=cpu"]
    stacks = [apply(tiny.flux(), one, changes=wide) for one in given]
    stacks.append(apply(tiny.flux(), "flux", changes=[*wide, "cache.method=svdcache", f"sampler.steps={STEPS}"]))
    made = [call(stack.pipeline, P, STEPS) for stack in stacks]
    assert all(stack.report().steps == {"full": 2, "forecast": 4} for stack in stacks)
    assert all(torch.equal(one, made[0]) for one in made)


def test_a_pipeline_rounded_by_somebody_else_is_cached_and_not_rounded_again() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    pipeline = tiny.flux()
    quantize_(pipeline.transformer.transformer_blocks, Int8WeightOnlyConfig())
    plain = call(pipeline, P, STEPS)
    with pytest.raises(Incompatible, match=r"the pipeline is quantized already: .* is torchao's"):
        apply(pipeline, recipe(quantize=INT8, cache=SVD))
    stack = apply(pipeline, recipe(cache=SVD))
    call(pipeline, P, STEPS)
    assert stack.report().steps == {"full": 3, "forecast": 3}
    stack.remove()
    assert torch.equal(call(pipeline, P, STEPS), plain)


@pytest.mark.parametrize("how", ["module", "in place", "blocks"])
def test_a_compiled_transformer_is_refused_by_a_sentence(how: str) -> None:
    pipeline = tiny.flux()
    if how == "module":
        pipeline.transformer = torch.compile(pipeline.transformer, backend="eager")
    elif how == "in place":
        pipeline.transformer.compile(backend="eager")
    else:
        pipeline.transformer.compile_repeated_blocks(backend="eager")
    with pytest.raises(BadPipeline, match="compile: inductor"):
        apply(pipeline, recipe(cache=SVD))


def test_a_quantizer_that_found_no_linear_says_so(caplog: pytest.LogCaptureFixture) -> None:
    stack = apply(tiny.flux(), recipe(quantize={**INT8, "skip": [""]}, cache=SVD))
    assert any("quantized no linear" in note for note in stack.notes)
    assert "quantized no linear" in caplog.text


def test_layerwise_casting_and_caches_stand_together_and_rounding_is_refused() -> None:
    pipeline = tiny.flux()
    pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    plain = call(pipeline, P, STEPS)
    with pytest.raises(Incompatible, match="kept in float8_e4m3fn"):
        apply(pipeline, recipe(quantize=INT8))
    stack = apply(pipeline, recipe(cache=SVD))
    call(pipeline, P, STEPS)
    assert stack.report().steps == {"full": 3, "forecast": 3}
    with stack.off():
        assert torch.equal(call(pipeline, P, STEPS), plain)


def test_a_stack_speaks_for_itself(tmp_path: Path) -> None:
    stack: Stack = apply(tiny.flux(), recipe(cache=SVD))
    assert "no generation yet" in repr(stack)
    assert copy.copy(stack).pipeline is stack.pipeline
