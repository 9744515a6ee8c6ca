"""The laws that every adapter inherits. A new method is found by its file; nothing is listed here."""

from typing import Any

import pytest
import torch

import tiny_pipelines as tiny
from counting import block_runs, blocks_of
from ditstack import apply
from ditstack.errors import DitstackError
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.adapter import STAGES, find, methods
from ditstack.recipe.model import Model
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from tiny_pipelines import call

P = ["a red circle", "a blue star", "a green square"]
METHODS = [(stage, method) for stage in STAGES if stage not in ("model", "distill") for method in methods(stage)]
STEPS = 7


def recipe(stage: str, method: str, **fields: Any) -> Recipe:
    """The method with its defaults, on FLUX; what it must fit is fitted on the spot."""
    fields = fields or find(stage, method).trial
    if "calibrate" in find(stage, method).model_fields:
        fields = {"calibrate": "auto", **fields}
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, stage: {"method": method, **fields}}
    sampler = {"steps": STEPS, "guidance": 3.5, "size": "16x16"}
    return Recipe.parse({**data, "sampler": sampler, "calibration": ["a red star", "a blue ring"]}, f"{stage}-{method}")


def stand(stage: str, method: str, **fields: Any) -> Stack:
    """The method standing on a tiny pipeline, or the test skipped with the reason why it cannot stand here."""
    wanted = recipe(stage, method, **fields)
    if reasons := [reason for step in plan(wanted) for reason in step.reasons]:
        pytest.skip(reasons[0])
    return apply(tiny.flux(), wanted)


def run(stack: Stack, prompts: list[str] = P, **more: Any) -> torch.Tensor:
    return call(stack.pipeline, prompts, STEPS, output_type="latent", true_cfg_scale=3.0, **more)


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return call(tiny.flux(), P, STEPS, output_type="latent", true_cfg_scale=3.0)


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_law_1_at_its_neutral_setting_it_changes_nothing(stage: str, method: str, plain: torch.Tensor) -> None:
    neutral = find(stage, method).neutral
    if neutral is None:
        pytest.skip("it has no neutral setting: it rounds whatever it is given")
    torch.testing.assert_close(run(stand(stage, method, **neutral)), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_law_2_every_generation_starts_afresh(stage: str, method: str) -> None:
    stack = stand(stage, method)
    want = run(stack)

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == STEPS // 2:
            raise RuntimeError("stop here")
        return {}

    with pytest.raises(RuntimeError, match="stop here"):
        run(stack, callback_on_step_end=fail)
    assert torch.equal(run(stack), want)


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_law_3_what_it_needs_and_lacks_is_refused(stage: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "gives", frozenset())
    last = plan(recipe(stage, method))[-1]
    for fact in last.adapter.needs:
        assert any(f"needs that {fact.sentence}" in reason for reason in last.reasons)


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_law_4_an_item_alone_equals_the_item_in_a_batch(stage: str, method: str) -> None:
    stack = stand(stage, method)
    if not stack.recipe.adapters[stage].per_item:
        pytest.skip("it says of itself that it decides for the whole batch")
    together, alone = run(stack), run(stack, P[:1])
    gap, size = (together[:1] - alone).abs().max(), together.abs().max().clamp_min(1)
    assert gap <= (1e-3 if stack.recipe.adapters[stage].rounds_activations else 1e-5) * size


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_law_5_it_worked(stage: str, method: str, plain: torch.Tensor) -> None:
    stack = stand(stage, method)
    with block_runs(stack.pipe) as ran:
        out = run(stack)
    assert torch.isfinite(out).all()
    if stage == "cache":
        kinds = stack.pipe.passes.steps
        assert sum(kinds.values()) == STEPS
        assert 0 < kinds["full"] < STEPS
        assert len(ran) >= 2 * kinds["full"] * blocks_of(stack.pipe)
        assert stack.report().macs_ratio < 1
    if find(stage, method).neutral != {}:
        assert not torch.equal(out, plain)


@pytest.mark.parametrize(("stage", "method"), METHODS)
def test_law_6_off_is_exact_and_another_pipe_is_untouched(stage: str, method: str, plain: torch.Tensor) -> None:
    stack = stand(stage, method)
    run(stack)
    other = call(tiny.flux(), P, STEPS, output_type="latent", true_cfg_scale=3.0)
    assert torch.equal(other, plain)
    if stage == "cache":
        with stack.off():
            off = run(stack)
        assert torch.equal(off, plain)
        assert not torch.equal(run(stack), plain)


def test_a_pipeline_carries_one_stack_only() -> None:
    pipeline = tiny.flux()
    apply(pipeline, recipe("cache", "reuse"))
    with pytest.raises(DitstackError, match="already carries a stack"):
        apply(pipeline, recipe("cache", "svdcache"))


def test_a_pipeline_without_a_transformer_is_refused() -> None:
    with pytest.raises(DitstackError, match="has no transformer"):
        Pipe(object())
