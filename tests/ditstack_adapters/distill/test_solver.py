"""distill solver: fitted to what stands, refused when stale, its baseline is the plain model at its own steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import StaleFactors, apply
from ditstack.measure.bench import timed_sample
from ditstack.pipeline.fitted_scheduler import FittedMultistepScheduler
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from loras import Write

P = ["a red circle", "a blue star", "a green square", "a white ring"]


def recipe(folder: Path, **changes: Any) -> Recipe:
    solver = {"method": "solver", "evaluations": 3, "iterations": 1, "tries": 1, "batch": 1, "calibrate": "auto"}
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "distill": {**solver, **changes.pop("distill", {})},
        "sampler": {"size": "16x16", "guidance": 3.5, **changes.pop("sampler", {})},
        "calibration": P,
        **changes,
    }
    return Recipe.parse(data, "solver")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with numbers that were fitted to the plain model."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as inside:
        inside.setenv("DITSTACK_HOME", str(folder))
        apply(tiny.flux(), recipe(folder))
    return folder


@pytest.fixture
def standing(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack of its own for every test, with numbers that were fitted once."""
    monkeypatch.setenv("DITSTACK_HOME", str(fitted))
    return apply(tiny.flux(), recipe(fitted, distill={"calibrate": "never"}))


def test_it_runs_its_evaluations_and_no_more(tmp_path: Path) -> None:
    stack = apply(tiny.flux(), recipe(tmp_path, quantize={"method": "torchao", "scheme": "int8"}))
    assert isinstance(stack.pipeline.scheduler, FittedMultistepScheduler)
    assert stack.sample(P[:2]).steps == {"full": 3}


def test_an_item_alone_equals_the_item_in_a_batch(standing: Stack) -> None:
    together = standing.sample(P[:3], [0, 1, 2]).latents
    torch.testing.assert_close(standing.sample(P[1:2], [1]).latents, together[1:2], rtol=1e-5, atol=1e-5)


def test_the_baseline_is_the_plain_model_at_its_own_steps(tmp_path: Path) -> None:
    plain = recipe(tmp_path, distill={"baseline_steps": 20}).plain()
    assert "distill" not in plain.adapters
    assert plain.sampler.steps == 20


def shifted() -> Any:
    pipeline = tiny.flux()
    pipeline.scheduler.set_shift(5.0)
    return pipeline


@pytest.mark.parametrize(
    ("name", "pipeline", "changes"),
    [
        ("weights", lambda: tiny.flux(guidance_embeds=False), {}),
        ("scheduler", shifted, {}),
        ("quantize", tiny.flux, {"quantize": {"method": "torchao", "scheme": "int8"}}),
        ("attention", tiny.flux, {"attention": {"method": "int8qk"}}),
        ("cache", tiny.flux, {"cache": {"method": "svdcache", "interval": 2}}),
        ("distill", tiny.flux, {"distill": {"fit_by": "gradient"}}),
        ("sampler.guidance", tiny.flux, {"sampler": {"guidance": 2.0}}),
        ("sampler.size", tiny.flux, {"sampler": {"size": "32x32"}}),
        ("calibration", tiny.flux, {"calibration": [*P[1:], "a red star"]}),
    ],
)
def test_numbers_fitted_under_another_condition_are_refused_by_its_name(
    name: str, pipeline: Any, changes: dict[str, Any], fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(fitted))
    never = {"calibrate": "never"}
    distill = {**changes.get("distill", {}), **never}
    apply(tiny.flux(), recipe(fitted, distill=never))
    with pytest.raises(StaleFactors, match=rf"fitted to another [^;]*\b{name}\b"):
        apply(pipeline(), recipe(fitted, **{**changes, "distill": distill}))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "beside"])
def test_numbers_fitted_on_the_base_are_refused_under_a_lora(
    fused: bool, fitted: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(fitted))
    pipeline = tiny.flux()
    pipeline.load_lora_weights(write())
    if fused:
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    with pytest.raises(StaleFactors, match=r"fitted to another [^;]*\bweights\b"):
        apply(pipeline, recipe(fitted, distill={"calibrate": "never"}))


def test_a_foreign_pipeline_runs_it_by_its_scheduler_alone(standing: Stack, tmp_path: Path) -> None:
    made = tiny.call(standing.pipeline, P[:2], 3, guidance_scale=3.5, output_type="latent")
    standing.pipeline.scheduler.save_pretrained(tmp_path / "scheduler")
    foreign = tiny.flux()
    plain = tiny.call(foreign, P[:2], 3, guidance_scale=3.5, output_type="latent")
    foreign.scheduler = FittedMultistepScheduler.from_pretrained(tmp_path / "scheduler")
    alone = tiny.call(foreign, P[:2], 3, guidance_scale=3.5, output_type="latent")
    assert torch.equal(alone, made)
    assert not torch.equal(alone, plain)


def test_a_guider_that_skips_a_branch_gets_what_the_scheduler_alone_gives(standing: Stack) -> None:
    def painted(pipeline: Any, guided: range) -> torch.Tensor:
        def skip(pipeline: Any, step: int, *_: Any) -> dict[str, Any]:
            pipeline.transformer.guider_skips = step + 1 not in guided
            return {}

        pipeline.transformer.guider_skips = 0 not in guided
        more = {"callback_on_step_end": skip, "callback_on_step_end_tensor_inputs": []}
        return tiny.call(pipeline, P[:2], 3, true_cfg_scale=3.0, guidance_scale=3.5, output_type="latent", **more)

    def skipping(pipeline: Any) -> Any:
        """Its unconditional pass is left out where the guider says so: the conditional answer serves for both."""
        forward, last = pipeline.transformer.forward, {}

        def run(*args: Any, **kwargs: Any) -> Any:
            conditional = torch.equal(
                kwargs["encoder_hidden_states"], last.setdefault("text", kwargs["encoder_hidden_states"])
            )
            if conditional or not pipeline.transformer.guider_skips:
                last["out"] = forward(*args, **kwargs)
            return last["out"]

        pipeline.transformer.forward = run
        return pipeline

    foreign = skipping(tiny.flux())
    foreign.scheduler = FittedMultistepScheduler.of(standing.pipeline.scheduler.method, "flow_prediction")
    skipping(standing.pipeline)
    for guided in (range(3), range(1, 2), range(0)):
        assert torch.equal(painted(standing.pipeline, guided), painted(foreign, guided))
    assert not torch.equal(painted(foreign, range(1, 2)), painted(foreign, range(3)))


def test_a_cache_between_fitted_evaluations_still_skips(tmp_path: Path) -> None:
    cache = {"method": "svdcache", "interval": 2}
    stack = apply(tiny.flux(), recipe(tmp_path, distill={"evaluations": 6}, cache=cache))
    assert stack.sample(P[:1]).steps == {"full": 3, "forecast": 3}


def test_it_is_warmed_up_and_timed_at_its_own_steps_and_refuses_others(standing: Stack) -> None:
    assert timed_sample(standing, P[:1]).steps == {"full": 3}
    with pytest.raises(StaleFactors, match="serve no other steps"):
        standing.make(P[:1], [0], standing.recipe.sampler.model_copy(update={"steps": 2}))
    assert standing.sample(P[:1]).steps == {"full": 3}
