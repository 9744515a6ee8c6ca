"""Where what ran differs from what was planned, the report and the log say so; where it does not, they are silent."""

import logging
from typing import Any

import diffusers
import pytest
import torch

from ditstack import apply
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle"]
STEPS = 6
SVD = {"method": "svdcache", "interval": 2}


def stand(pipeline: Any, **stages: Any) -> Stack:
    return apply(pipeline, {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": STEPS}, **stages})


def test_a_stack_that_does_as_it_planned_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stack = stand(tiny.flux(), cache=SVD)
    for _ in range(2):
        call(stack.pipeline, P, STEPS)
    assert stack.report().notes == []
    assert not [one for one in caplog.records if one.name == "ditstack"]


class OtherNames(diffusers.FluxPipeline):  # pyright: ignore[reportPrivateImportUsage]
    """Names each of its passes anew, so that none continues one before it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        context, self.transformer.seen = self.transformer.cache_context, 0

        def named(name: str) -> Any:
            self.transformer.seen += 1
            return context(f"{name} {self.transformer.seen}")

        self.transformer.cache_context = named
        try:
            return super().__call__(*args, **kwargs)
        finally:
            del self.transformer.cache_context


def test_a_cache_that_skipped_nothing_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = OtherNames(**tiny.flux().components)
    pipeline.set_progress_bar_config(disable=True)
    stack = stand(pipeline, cache=SVD)
    how = {"height": 16, "width": 16, "max_sequence_length": tiny.TEXT_LENGTH, "num_inference_steps": STEPS}
    with caplog.at_level(logging.WARNING, "ditstack"):
        for _ in range(2):
            pipeline(prompt=P[0], **how)
    (note,) = stack.report().notes
    assert "planned to skip blocks on 3 of 6 steps, and every block ran on all of them" in note
    assert stack.report().steps == {"full": STEPS}
    assert [one.message for one in caplog.records if one.name == "ditstack"] == [note]


class StepsLess(diffusers.FluxPipeline):  # pyright: ignore[reportPrivateImportUsage]
    """Steps its scheduler in every second pass only."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        step, count = self.scheduler.step, [0]

        def every_second(out: Any, t: Any, sample: torch.Tensor, **more: Any) -> Any:
            count[0] += 1
            return step(out, t, sample, **more) if count[0] % 2 else (sample,)

        self.scheduler.step = every_second
        try:
            return super().__call__(*args, **kwargs)
        finally:
            del self.scheduler.step


def test_steps_that_were_not_counted_are_told_of() -> None:
    pipeline = StepsLess(**tiny.flux().components)
    pipeline.set_progress_bar_config(disable=True)
    stack = stand(pipeline, cache=SVD)
    how = {"height": 16, "width": 16, "max_sequence_length": tiny.TEXT_LENGTH, "num_inference_steps": STEPS}
    pipeline(prompt=P[0], **how)
    assert any("the scheduler has 6 steps, and 3 were counted" in note for note in stack.report().notes)


def test_a_kernel_that_took_no_call_is_told_of() -> None:
    stack = stand(tiny.flux(), attention={"method": "sparse", "keep": 1.0})
    call(stack.pipeline, P, STEPS)
    assert any("attention sparse took none of" in note for note in stack.report().notes)


class OwnAttention:
    """A processor that computes attention by itself."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any) -> Any:
        return hidden_states if encoder_hidden_states is None else (hidden_states, encoder_hidden_states)


def test_a_kernel_that_was_never_called_is_told_of() -> None:
    pipeline = tiny.flux()
    pipeline.transformer.set_attn_processor(OwnAttention())
    stack = stand(pipeline, attention={"method": "sparse", "keep": 0.5, "block_size": 4})
    call(pipeline, P, STEPS)
    assert any("attention sparse was never called" in note for note in stack.report().notes)


def own_loop(pipeline: Any) -> torch.Tensor:
    """A denoising loop that a user wrote."""
    kind = pipeline.transformer.config
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, kind.in_channels, generator=generator)
    text = torch.randn(1, 2, kind.joint_attention_dim, generator=generator)
    pooled = torch.randn(1, kind.pooled_projection_dim, generator=generator)
    pipeline.scheduler.set_timesteps(STEPS, mu=1.0)
    with torch.inference_mode():
        for time in pipeline.scheduler.timesteps:
            (flow,) = pipeline.transformer(
                hidden_states=latents, timestep=time.expand(1) / 1000, guidance=torch.ones(1), return_dict=False,
                encoder_hidden_states=text, pooled_projections=pooled,
                txt_ids=torch.zeros(2, 3), img_ids=torch.zeros(4, 3),
            )  # fmt: skip
            latents = pipeline.scheduler.step(flow, time, latents, return_dict=False)[0]
    return latents


def test_a_loop_of_ones_own_outside_the_call_is_told_where_to_stand(caplog: pytest.LogCaptureFixture) -> None:
    stack = stand(pipeline := tiny.flux(), cache=SVD)
    with caplog.at_level(logging.WARNING, "ditstack"):
        bare = own_loop(pipeline)
        own_loop(pipeline)
    (note,) = stack.report().notes
    assert note.startswith(f"{2 * STEPS} passes of the transformer ran outside the call of the FluxPipeline")
    assert "they ran without it; write `with stack.generation():`" in note
    told = [one.message for one in caplog.records if one.name == "ditstack"]
    assert told == [note.removeprefix(f"{2 * STEPS} ")]
    with stack.generation():
        cached = own_loop(pipeline)
    assert stack.report().steps == {"full": 3, "forecast": 3}
    assert stack.report().notes == []
    assert not torch.equal(cached, bare)


def test_a_loop_of_ones_own_on_a_stack_with_nothing_to_skip_is_told_nothing() -> None:
    stack = stand(pipeline := tiny.flux())
    own_loop(pipeline)
    assert stack.report().notes == []
