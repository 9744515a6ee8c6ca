"""Sample: prompts and seeds become pictures through a pipe."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ditstack.errors import BadPipeline
from ditstack.paper import as_html, sheet
from ditstack.pipeline.clock import now
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Sampler


@dataclass
class Account:
    """What one picture of a generation cost, and what was decided of it.

    Attributes:
        steps: how many steps ran in each way.
        macs: multiply-accumulates of the transformer.
        decision: where a quality was promised: "certified", or "in full" and why.
        scores: what can be told of it without its unaccelerated one, by name.
    """

    steps: dict[str, int]
    macs: int
    decision: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(repr=False)
class Pictures:
    """What a generation made.

    Attributes:
        images: (B, 3, H, W) float in [0, 1], or (B, F, 3, H, W) for video.
        latents: the final latents, as the scheduler left them.
        seconds: encode, denoise and decode.
        steps: how many steps ran in each way.
        macs: multiply-accumulates of the transformer, all steps and branches.
        fps: frames per second of a video.
        each: what each picture cost.
    """

    images: Tensor
    latents: Tensor
    seconds: dict[str, float]
    steps: dict[str, int]
    macs: int
    prompts: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    fps: int = 0
    each: list[Account] = field(default_factory=list)

    def __repr__(self) -> str:
        kind, count = ("videos", len(self.images)) if self.images.ndim == 5 else ("pictures", len(self.images))
        height, width = self.images.shape[-2:]
        ran = " + ".join(f"{number} {kind}" for kind, number in self.steps.items())
        return f"Pictures({count} {kind} of {width} x {height}; {ran} steps; {self.seconds.get('denoise', 0.0):.2f} s)"

    def _repr_html_(self) -> str:
        return as_html(sheet(self.images, self.prompts), "; ".join(self.prompts))


def sample(
    pipe: Pipe,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    negative_prompt: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Pictures:
    """One picture per prompt and seed, in one batch. A picture depends on its own prompt and seed only.

    Args:
        extra: further arguments of the pipeline's call, such as `image` for img2img: one for all prompts, or one each.

    Raises:
        BadPipeline: a picture holds NaN or infinity, or the pipeline cannot be called like this.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"found {len(prompts)} prompts and {len(seeds)} seeds; wanted one seed per prompt")
    arguments = call_arguments(pipe, prompts, sampler, negative_prompt)
    arguments |= {name: one_each(pipe, value, len(prompts)) for name, value in (extra or {}).items()}
    refuse_unknown(pipe.pipeline, arguments)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    arguments["generator"] = generators if len(generators) > 1 else generators[0]  # some take no list
    with pipe.clock.held():
        started = now()
        with torch.inference_mode(), _explained(pipe), _told_of_scheduler(pipe.pipeline):
            out = pipe.pipeline(**arguments)
        return _pictures(pipe, out, prompts, seeds, started)


@contextmanager
def _told_of_scheduler(pipeline: Any) -> Iterator[None]:
    """What diffusers says of a scheduler that its pipeline cannot use, in a recipe's words."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if "does not support custom" not in str(error) and "set_timesteps() got an unexpected" not in str(error):
            raise
        name, kind = type(pipeline.scheduler).__name__, type(pipeline).__name__
        raise BadPipeline(
            f"sampler.scheduler: a {kind} gives its scheduler sigmas, timesteps or a shift, which a {name} "
            "does not take; name another, such as UniPCMultistepScheduler"
        ) from None


def _pictures(pipe: Pipe, out: Any, prompts: Sequence[str], seeds: Sequence[int], started: float) -> Pictures:
    """What the call that has just ended made."""
    ended = now()
    images = torch.as_tensor(next(one for one in out.values() if one is not None)).float().cpu()
    if not torch.isfinite(images).all():
        raise BadPipeline(
            "a picture holds NaN or infinity; try dtype bf16 or fp32, or drop a stage (see `ditstack show`)"
        )
    clock, passes = pipe.clock, pipe.passes
    seconds = {
        "encode": clock.first_pass - started,
        "denoise": clock.ended - clock.first_pass,
        "decode": ended - clock.ended,
    }
    assert clock.latents is not None
    latents = clock.latents[: len(prompts)].float().cpu()  # DiT's scheduler steps both branches of guidance
    each = [Account(*passes.of_picture(place, len(prompts))) for place in range(len(prompts))]
    return Pictures(images, latents, seconds, passes.steps, passes.macs, list(prompts), list(seeds), pipe.fps, each)


@contextmanager
def _explained(pipe: Pipe) -> Iterator[None]:
    """What a pipeline says of its arguments, before anything has run, becomes a sentence."""
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        if pipe.clock.first_pass:
            raise
        raise BadPipeline(
            f"a {type(pipe.pipeline).__name__} cannot be called like this: {error}; write what it wants besides "
            "prompts under model.arguments"
        ) from error


def call_arguments(pipe: Pipe, prompts: Sequence[str], sampler: Sampler, negative: str | None = None) -> dict[str, Any]:
    """The arguments of the pipeline's call, in its family's own words."""
    _require_size(pipe.pipeline, sampler)
    own = {name: one_each(pipe, value, len(prompts)) for name, value in pipe.call.items()}
    arguments: dict[str, Any] = {**own, "num_inference_steps": sampler.steps}
    arguments |= {
        name: [int(one) if one.is_integer() else one for one in times] for name, times in sampler.times.items()
    }
    arguments |= {name: one_each(pipe, value, len(prompts)) for name, value in pipe.ask(list(prompts)).items()}
    if sampler.guidance is not None:
        arguments[pipe.guidance] = sampler.guidance
        if pipe.guidance == "true_cfg_scale" and sampler.guidance > 1:
            negative = negative or ""
    if negative is not None:
        arguments["negative_prompt"] = [negative] * len(prompts)
    if sampler.width_height is not None:
        arguments["width"], arguments["height"] = sampler.width_height
    if sampler.frames is not None:
        arguments["num_frames"] = sampler.frames
    arguments["output_type"] = "latent" if pipe.call.get("output_type") == "latent" else "pt"
    return {name: value for name, value in arguments.items() if name != "return_dict"}


def _whole(time: float) -> float | int:
    """Schedulers look integer timesteps up."""
    return int(time) if time.is_integer() else time


def _require_size(pipeline: Any, sampler: Sampler) -> None:
    """Refuse a size that the pipeline would cut down in silence to whole patches.

    Raises:
        BadPipeline: with the sizes next to it.
    """
    unit = 2 * getattr(pipeline, "vae_scale_factor", 0) if hasattr(pipeline, "_pack_latents") else 0
    if not unit or sampler.width_height is None or not any(side % unit for side in sampler.width_height):
        return
    sides = sampler.width_height
    below, above = ("x".join(str(max(unit, (one + up) // unit * unit)) for one in sides) for up in (0, unit - 1))
    raise BadPipeline(
        f"sampler.size: found {sampler.size}; a {type(pipeline).__name__} makes sides of whole {unit} pixels: "
        f"write {below} or {above}"
    )


def one_each(pipe: Pipe, value: Any, count: int) -> Any:
    """A picture, or embeddings, repeated for every prompt: pipelines noise a single one with the first seed alone."""
    if count == 1:
        return value
    if isinstance(value, Image.Image):
        return value if pipe.one_picture else [value] * count
    if isinstance(value, Tensor) and value.ndim > 1 and len(value) == 1:
        return value.expand(count, *value.shape[1:])
    return value


def refuse_unknown(pipeline: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that the pipeline's call does not take.

    Raises:
        BadPipeline: with all of them.
    """
    known = inspect.signature(type(pipeline).__call__).parameters
    open_ended = any(one.kind is one.VAR_KEYWORD for one in known.values())
    unknown = [name for name in arguments if name not in known]
    if unknown and not open_ended:
        raise BadPipeline(f"a {type(pipeline).__name__} takes no {', '.join(unknown)}")


def is_bound_to_steps(pipe: Pipe) -> bool:
    """Whether a call of another number of steps than the recipe's is refused: a schedule or factors name them."""
    return "steps" in pipe.fitted_for or (pipe.policy is not None and pipe.policy.steps is not None)


def warm_up(pipe: Pipe, prompts: Sequence[str], sampler: Sampler) -> None:
    """Do what is done only once, so that it is not timed: in two steps, or in all where each kind needs it."""
    whole = is_bound_to_steps(pipe) or pipe.compiled is not None
    short = sampler if whole else sampler.changed(steps=2)
    fitted, pipe.fitted_under = pipe.fitted_under, {}  # no reader of notes need know how short it was
    try:
        sample(pipe, prompts, range(len(prompts)), short)
    finally:
        pipe.fitted_under = fitted
