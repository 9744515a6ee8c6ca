"""The clock is right for every way of sampling, shown by the blocks that really ran."""

import copy
import gc
import weakref
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler  # pyright: ignore[reportPrivateImportUsage]

from counting import block_runs, blocks_of, cached
from ditstack.pipeline.clock import noise_shares
from ditstack.pipeline.pipe import Pipe
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]


def test_two_guidance_passes_each_skip_their_own_blocks() -> None:
    pipe = cached(tiny.flux())
    with block_runs(pipe) as ran:
        call(pipe.pipeline, P, 6, true_cfg_scale=3.0)
    assert len(ran) == 3 * 2 * blocks_of(pipe)
    assert pipe.passes.steps == {"full": 3, "forecast": 3}
    assert pipe.passes.kinds == {"full": 6, "forecast": 6}


def test_one_batched_pass_counts_once_a_step() -> None:
    pipe = cached(tiny.pixart())
    with block_runs(pipe) as ran:
        call(pipe.pipeline, P, 6)
    assert len(ran) == 3 * blocks_of(pipe)
    assert pipe.passes.kinds == {"full": 3, "forecast": 3}


def loop(pipe: Pipe, guided: range, named: bool, steps: int = 6) -> torch.Tensor:
    """A user's own denoising loop whose guider leaves the unconditional pass out on some steps."""
    transformer, scheduler = pipe.pipeline.transformer, pipe.pipeline.scheduler
    scheduler.set_timesteps(steps, mu=1.0)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, transformer.config.in_channels, generator=generator)
    texts = [torch.randn(1, 4, transformer.config.joint_attention_dim, generator=generator) for _ in range(2)]
    for step, t in enumerate(scheduler.timesteps):
        out = []
        for name, text in zip(("cond", "uncond") if step in guided else ("cond",), texts, strict=False):
            arguments = {
                "hidden_states": latents,
                "timestep": t.expand(1) / 1000,
                "guidance": torch.ones(1),
                "pooled_projections": text[:, 0, : transformer.config.pooled_projection_dim],
                "encoder_hidden_states": text,
                "txt_ids": torch.zeros(4, 3),
                "img_ids": torch.zeros(16, 3),
                "return_dict": False,
            }
            if named:
                with transformer.cache_context(name):
                    out.append(transformer(**arguments)[0])
            else:
                out.append(transformer(**arguments)[0])
        latents = scheduler.step(sum(out) / len(out), t, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("named", [True, False])
@torch.no_grad()
def test_a_branch_that_a_guider_leaves_out_never_forecasts_from_what_is_too_old(named: bool) -> None:
    pipe = cached(tiny.flux())
    # full steps are 0, 2, 4; the second branch appears on 1, 2, 3, and must run in full on 1 and on 2
    with block_runs(pipe) as ran, pipe.clock.call():
        loop(pipe, range(1, 4), named)
    assert pipe.passes.kinds == {"full": 3 + 2, "forecast": 3 + 1}
    assert len(ran) == 5 * blocks_of(pipe)


def test_image_to_image_starts_part_way_and_spreads_its_own_steps() -> None:
    pipe = cached(tiny.flux_img2img())
    with block_runs(pipe) as ran:
        call(pipe.pipeline, P, 8, strength=0.5)
    assert pipe.clock.steps == 4
    assert list(pipe.passes.by_step.values()) == ["full", "forecast", "full", "forecast"]
    assert len(ran) == 2 * blocks_of(pipe)
    assert pipe.clock.time(0) == pytest.approx(pipe.clock.times[4])


def test_another_number_of_steps_and_another_batch_begin_afresh() -> None:
    pipe = cached(tiny.flux(), interval=3)
    for steps, prompts in ((6, P), (9, P[:1]), (4, P + P), (1, P)):
        with block_runs(pipe) as ran:
            call(pipe.pipeline, prompts, steps)
        full = -(-steps // 3)
        assert len(ran) == full * blocks_of(pipe)
        assert pipe.passes.steps.get("full") == full


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_in_the_middle_the_next_call_is_as_if_nothing_had_been(error: type[BaseException]) -> None:
    pipe = cached(tiny.flux(), interval=3)
    want = call(pipe.pipeline, P, 6)

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 3:
            raise error
        return {}

    with pytest.raises(error):
        call(pipe.pipeline, P, 6, callback_on_step_end=fail)
    with block_runs(pipe) as ran:
        assert torch.equal(call(pipe.pipeline, P, 6), want)
    assert len(ran) == 2 * blocks_of(pipe)


def test_an_exception_inside_a_block_leaves_no_trace() -> None:
    pipe = cached(tiny.flux(), interval=3)
    want = call(pipe.pipeline, P, 6)
    block = pipe.blocks["transformer"][1].module

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    handle = block.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        call(pipe.pipeline, P, 6)
    handle.remove()
    assert pipe.passes.kind == "off"
    assert torch.equal(call(pipe.pipeline, P, 6), want)


def test_two_interleaved_pipelines_do_not_know_of_each_other() -> None:
    outer, inner = cached(tiny.flux(), interval=3), cached(tiny.flux(), interval=2)
    want = call(outer.pipeline, P, 6)
    want_inside = call(inner.pipeline, P[:1], 4)
    inside = []

    def other(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 2:
            inside.append(call(inner.pipeline, P[:1], 4))
        return {}

    assert torch.equal(call(outer.pipeline, P, 6, callback_on_step_end=other), want)
    assert torch.equal(inside[0], want_inside)
    assert outer.passes.steps == {"full": 2, "forecast": 4}


SCHEDULERS = [
    ("flux", "FlowMatchEulerDiscreteScheduler", {}, 6),
    ("sd3", "FlowMatchHeunDiscreteScheduler", {}, 11),
    ("sd3", "DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, 6),
    ("sd3", "UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, 6),
    ("pixart", "EulerDiscreteScheduler", {}, 6),
    ("pixart", "DDIMScheduler", {}, 6),
    ("pixart", "DPMSolverMultistepScheduler", {}, 6),
    ("pixart", "UniPCMultistepScheduler", {}, 6),
    ("pixart", "HeunDiscreteScheduler", {}, 11),
    ("dit", "DDIMScheduler", {}, 6),
]


@pytest.mark.parametrize(("family", "name", "settings", "evaluations"), SCHEDULERS)
def test_every_scheduler_is_heard(family: str, name: str, settings: dict[str, Any], evaluations: int) -> None:
    pipeline = tiny.FAMILIES[family]()
    kind = getattr(diffusers, name)
    pipeline.scheduler = kind.from_config({**settings, "num_train_timesteps": 1000})
    pipe = cached(pipeline)
    with block_runs(pipe) as ran:
        out = call(pipeline, P, 6)
    full = -(-evaluations // 2)
    assert pipe.passes.steps == {"full": full, "forecast": evaluations - full}
    assert len(ran) == full * blocks_of(pipe)
    assert torch.isfinite(out).all()
    times = pipe.clock.times
    assert times == sorted(times, reverse=True)
    assert 0 <= min(times) <= max(times) <= 1


def test_a_scheduler_swapped_by_the_user_is_heard_from_its_first_generation() -> None:
    pipe = cached(tiny.flux())
    call(pipe.pipeline, P, 4)
    pipe.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for _ in range(2):
        with block_runs(pipe) as ran:
            call(pipe.pipeline, P, 6)
        assert len(ran) == 3 * blocks_of(pipe)


def test_a_copied_scheduler_is_whole_and_unheard() -> None:
    pipe = cached(tiny.flux())
    baseline = copy.deepcopy(pipe.pipeline.scheduler)
    generation = pipe.clock.generation
    baseline.set_timesteps(5, mu=1.0)
    assert len(baseline.timesteps) == 5
    assert pipe.clock.generation == generation
    assert type(baseline).__name__ == "FlowMatchEulerDiscreteScheduler"


def test_a_pipeline_that_nobody_holds_any_more_is_freed() -> None:
    pipe = cached(tiny.dit())
    call(pipe.pipeline, P, 2)
    transformer = weakref.ref(pipe.pipeline.transformer)
    del pipe
    gc.collect()
    assert transformer() is None


def test_a_transformer_called_outside_a_generation_runs_plainly() -> None:
    pipe = cached(tiny.pixart())
    call(pipe.pipeline, P, 4)
    assert not pipe.clock.running
    hidden = torch.randn(2, 4, 8, 8)
    text = torch.randn(2, 5, pipe.pipeline.transformer.config.caption_channels)
    added = {"resolution": None, "aspect_ratio": None}
    with block_runs(pipe) as ran, torch.no_grad():
        for _ in range(3):
            pipe.pipeline.transformer(hidden, text, timestep=torch.ones(2), added_cond_kwargs=added)
    assert len(ran) == 3 * blocks_of(pipe)


def test_the_share_of_noise_of_a_diffusion_process_falls_from_near_one() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    shares = noise_shares(scheduler)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.9
    assert shares[-1] < 0.1
