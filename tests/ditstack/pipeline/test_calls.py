"""The clock is bound to the pipeline's call: however a call ends, and whoever shares its parts, pictures are right."""

import copy
import pickle
import threading
from typing import Any

import diffusers
import pytest
import torch

from counting import block_runs, blocks_of, cached
from ditstack.pipeline.calls import running
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import PICTURE, TEXT_LENGTH, call

P = ["a red circle", "a blue star"]
STEPS = 6


def img2img(pipeline: Any, **more: Any) -> torch.Tensor:
    arguments = {"image": PICTURE.expand(2, -1, -1, -1), "strength": 0.5, "height": 16, "width": 16}
    generator = [torch.Generator().manual_seed(place) for place in range(2)]
    text = {"prompt": list(P), "max_sequence_length": TEXT_LENGTH}
    made = pipeline(**arguments, **text, num_inference_steps=STEPS, generator=generator, output_type="pt", **more)
    return made.images.float()


def test_a_call_that_was_interrupted_after_any_step_leaves_nothing_behind() -> None:
    pipe, sharing = cached(tiny.flux(), interval=3), tiny.flux_img2img()
    want, want_sharing = call(pipe.pipeline, P, STEPS), img2img(tiny.flux_img2img())
    sharing.transformer = pipe.pipeline.transformer

    def interrupt(pipeline: Any, step: int, *_: Any) -> dict[str, Any]:
        pipeline._interrupt = step == last
        return {}

    def fail(_pipeline: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == last:
            raise KeyboardInterrupt
        return {}

    for last in range(STEPS):
        call(pipe.pipeline, P, STEPS, callback_on_step_end=interrupt)
        assert sum(pipe.passes.steps.values()) == last + 1
        assert torch.equal(img2img(sharing), want_sharing)
        with pytest.raises(KeyboardInterrupt):
            call(pipe.pipeline, P, STEPS, callback_on_step_end=fail)
        assert not pipe.clock.running
        assert running() is None
        assert not any(cache.memories for cache in pipe.caches)
        assert torch.equal(img2img(sharing), want_sharing)
        assert torch.equal(call(pipe.pipeline, P, STEPS), want)


def test_a_plain_pipeline_that_shares_transformer_and_scheduler_runs_uncached() -> None:
    pipe = cached(tiny.flux())
    want, want_sharing = call(pipe.pipeline, P, STEPS), img2img(tiny.flux_img2img())
    sharing = diffusers.FluxImg2ImgPipeline.from_pipe(pipe.pipeline)  # pyright: ignore[reportPrivateImportUsage]
    sharing.set_progress_bar_config(disable=True)
    assert sharing.scheduler is pipe.pipeline.scheduler
    with block_runs(pipe) as ran:
        assert torch.equal(img2img(sharing), want_sharing)
    assert len(ran) == 3 * blocks_of(pipe)
    assert torch.equal(call(pipe.pipeline, P, STEPS), want)
    plain = type(pipe.pipeline)(**pipe.pipeline.components)
    plain.set_progress_bar_config(disable=True)
    assert torch.equal(call(plain, P, STEPS), call(tiny.flux(), P, STEPS))


def test_two_stacks_on_one_transformer_do_not_know_of_each_other() -> None:
    text, image = tiny.flux(), tiny.flux_img2img()
    image.transformer = text.transformer
    want = call(cached(tiny.flux(), interval=3).pipeline, P, STEPS)
    want_image = img2img(cached(tiny.flux_img2img()).pipeline)
    pipe, other = cached(text, interval=3), cached(image)
    for _ in range(2):
        assert torch.equal(call(text, P, STEPS), want)
        assert torch.equal(img2img(image), want_image)
    assert pipe.passes.steps == {"full": 2, "forecast": 4}
    assert other.passes.steps == {"full": 2, "forecast": 1}


def test_no_object_of_the_users_changes_its_class_and_schedulers_pickle_and_copy() -> None:
    pipeline = tiny.flux()
    kinds = [type(one) for one in (pipeline, pipeline.scheduler, pipeline.transformer)]
    pipe = cached(pipeline)
    want = call(pipeline, P, STEPS)
    assert [type(one) for one in (pipeline, pipeline.scheduler, pipeline.transformer)] == kinds
    again = pickle.loads(pickle.dumps(pipeline.scheduler))
    assert type(again) is type(pipeline.scheduler)
    for other in (again, copy.deepcopy(pipeline.scheduler)):
        pipeline.scheduler = other
        assert torch.equal(call(pipeline, P, STEPS), want)
        assert pipe.passes.steps == {"full": 3, "forecast": 3}


def test_a_copied_pipeline_runs_plainly() -> None:
    pipe = cached(tiny.flux())
    want = call(pipe.pipeline, P, STEPS)
    assert torch.equal(call(copy.deepcopy(pipe.pipeline), P, STEPS), call(tiny.flux(), P, STEPS))
    assert torch.equal(call(pipe.pipeline, P, STEPS), want)


def test_a_second_thread_on_one_pipeline_waits_for_the_first() -> None:
    pipe = cached(tiny.flux())
    want = call(pipe.pipeline, P, STEPS)
    made: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: made.append(call(pipe.pipeline, P, STEPS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert all(torch.equal(one, want) for one in made)


class Again(diffusers.FluxPipeline):  # pyright: ignore[reportPrivateImportUsage]
    """A user's pipeline that overrides the call and goes on to the one above."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def test_a_subclass_that_calls_the_call_above_is_one_call() -> None:
    pipeline = tiny.flux()
    own = Again(**pipeline.components)
    own.set_progress_bar_config(disable=True)
    pipe = cached(own)
    arguments = {"height": 16, "width": 16, "max_sequence_length": TEXT_LENGTH, "num_inference_steps": STEPS}
    own(prompt=list(P), **arguments)
    assert pipe.passes.steps == {"full": 3, "forecast": 3}


class SteppingTwice(diffusers.FlowMatchEulerDiscreteScheduler):  # pyright: ignore[reportPrivateImportUsage]
    """As Cosmos 1 uses its own: a step, a step back, and the step again."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        first = diffusers.FlowMatchEulerDiscreteScheduler.step  # pyright: ignore[reportPrivateImportUsage]
        first(self, *args, **kwargs)
        assert self._step_index is not None
        self._step_index -= 1
        return first(self, *args, **kwargs)


def test_a_scheduler_that_is_called_twice_a_step_counts_once() -> None:
    pipeline = tiny.flux()
    pipe = cached(pipeline)
    want = call(pipeline, P, STEPS)
    pipeline.scheduler = SteppingTwice.from_config(pipeline.scheduler.config)
    assert torch.equal(call(pipeline, P, STEPS), want)
    assert pipe.passes.steps == {"full": 3, "forecast": 3}


@pytest.mark.parametrize("kind", ["LTXImageToVideoPipeline", "LTXConditionPipeline"])
def test_a_conditioned_frame_whose_timestep_is_zero_moves_no_start(kind: str) -> None:
    components = tiny.ltx().components
    components["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler()  # pyright: ignore[reportPrivateImportUsage]
    pipeline = getattr(diffusers, kind)(**components)
    pipeline.set_progress_bar_config(disable=True)
    pipe = cached(pipeline)
    with block_runs(pipe) as ran:
        pipeline(
            image=PICTURE.repeat(1, 1, 2, 2), prompt="a red circle", height=32, width=32, num_frames=9,
            num_inference_steps=STEPS, max_sequence_length=TEXT_LENGTH, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    assert pipe.passes.steps == {"full": 3, "forecast": 3}
    assert len(ran) == 3 * blocks_of(pipe)


@pytest.mark.parametrize(("strength", "steps"), [(0.5, 6), (1.0, 11)])
def test_duplicate_timesteps_and_a_start_part_way_are_counted(strength: float, steps: int) -> None:
    components = tiny.sd3().components
    kind = diffusers.FlowMatchHeunDiscreteScheduler  # pyright: ignore[reportPrivateImportUsage]
    components["scheduler"] = kind(num_train_timesteps=1000)
    pipeline = diffusers.StableDiffusion3Img2ImgPipeline(**components)  # pyright: ignore[reportPrivateImportUsage]
    pipeline.set_progress_bar_config(disable=True)
    pipe = cached(pipeline)
    text = {"prompt": P[0], "max_sequence_length": TEXT_LENGTH, "num_inference_steps": STEPS}
    with block_runs(pipe) as ran:
        pipeline(image=PICTURE, strength=strength, height=16, width=16, output_type="latent", **text)
    counted = pipe.passes.steps
    assert sum(counted.values()) == pipe.clock.done == pipe.clock.planned == pipeline._num_timesteps
    assert counted["forecast"] == counted["full"] or abs(counted["forecast"] - counted["full"]) == 1
    assert len(ran) == counted["full"] * blocks_of(pipe)
    assert not pipe.clock.running
