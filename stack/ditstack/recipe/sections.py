"""Sections: parts of a recipe besides its stages: how the pipeline is called, and the quality demanded."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ditstack.files import LONGEST_PROMPT, MOST_PROMPTS
from ditstack.pipeline.samplers import MOST_STEPS, TIMES

LONGEST_SIDE, MOST_PIXELS = 16_384, 2**24


def _size(text: str) -> str:
    width, height = map(int, text.split("x"))
    if max(width, height) > LONGEST_SIDE or width * height > MOST_PIXELS:
        raise ValueError(f"wanted sides of at most {LONGEST_SIDE:,} and at most {MOST_PIXELS:,} pixels")
    return text


def _prompt(text: str) -> str:
    if len(text) > LONGEST_PROMPT:
        raise ValueError(f"a prompt of {len(text):,} characters; wanted at most {LONGEST_PROMPT:,}")
    return text


Prompts = Annotated[tuple[Annotated[str, AfterValidator(_prompt)], ...], Field(strict=False, max_length=MOST_PROMPTS)]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"), AfterValidator(_size)]

Times = Annotated[
    tuple[Annotated[float, Field(ge=0, le=100_000)], ...], Field(strict=False, min_length=1, max_length=MOST_STEPS)
]


class Section(BaseModel):
    """A part of a recipe besides its stages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1, max_length=64)]


class Sampler(Section):
    """How the pipeline is called. What is None is left to the pipeline."""

    scheduler: str | None = None
    """A scheduler class of diffusers; None keeps the one that the model came with."""
    settings: dict[str, Any] = Field(default={})
    """Settings of that scheduler that differ from the model's own."""
    grid: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """Of a scheduler that rounds its timesteps, such as DDIM: take them evenly from the grid of so many steps."""
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 28
    """Denoising steps, as `num_inference_steps` of diffusers."""
    sigmas: Times | None = None
    """One for each step, from noise to clean, in place of evenly spread ones; the model's scheduler may shift them."""
    timesteps: Times | None = None
    """The same in the scheduler's own units, for pipelines that take those."""
    guidance: Annotated[float, Field(ge=0, le=1_000)] | None = None
    """The guidance scale, whichever argument of the pipeline takes it."""
    size: Size | None = None
    """Width x height in pixels."""
    frames: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Of a video."""

    @model_validator(mode="before")
    @classmethod
    def _steps_of_times(cls, data: Any) -> Any:
        """Times say how many steps there are, where nothing else does."""
        given = [data[name] for name in TIMES if data.get(name)] if isinstance(data, dict) else []
        if given and "steps" not in data and isinstance(given[0], (list, tuple)):
            return {**data, "steps": len(given[0])}
        return data

    @model_validator(mode="after")
    def _times_that_agree(self) -> Sampler:
        if len(self.times) > 1 or (self.times and self.grid is not None):
            raise ValueError(f"write one of {', '.join([*self.times, *(['grid'] if self.grid is not None else [])])}")
        for name, times in self.times.items():
            if len(times) != self.steps:
                raise ValueError(f"steps is {self.steps}, and {name} names {len(times)}; write steps: {len(times)}")
            if any(later >= one for one, later in pairwise(times)):
                raise ValueError(f"{name} must fall from each step to the next")
        return self

    @property
    def times(self) -> dict[str, tuple[float, ...]]:
        """The times that are named, by what they are: none, or one."""
        return {name: found for name in TIMES if (found := getattr(self, name)) is not None}

    def changed(self, **fields: Any) -> Sampler:
        """This one with other fields; times that were named for another number of steps are named no longer."""
        kept = fields.get("steps", self.steps) == self.steps
        return self.model_copy(update={**({} if kept else dict.fromkeys(TIMES)), **fields})

    @property
    def width_height(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        width, height = self.size.split("x")
        return int(width), int(height)


class Promise(Section):
    """That a share of all pictures, of prompts like those of calibration, is near enough to the unaccelerated one."""

    psnr: Annotated[float, Field(gt=0, le=100)]
    """In dB, of a picture to its own unaccelerated one; a picture below it is broken."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """Of all pictures, how many keep it at least."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """How sure that is: one calibration in 1 / (1 - confidence) may certify a setting that does not keep it."""
    tries: dict[str, Values | dict[str, Values]] = {}
    """What calibration tries, in every combination: words of a stage or of `sampler`, `{quantize: [none, int8],
    sampler: [unipc-25, dpm-17]}`, or values of its fields, `{cache: {interval: [2, 4], schedule: [graded, even]}}`.
    Nothing: the values of the cache's knob; where there is no cache, fewer steps by several solvers."""

    def same_as(self, other: Promise | None) -> bool:
        """Whether both promise the same, whatever is tried for it."""
        return other is not None and other.model_copy(update={"tries": self.tries}) == self

    def __str__(self) -> str:
        return f"{self.share:.4g} of all pictures at {self.psnr:g} dB or more, with confidence {self.confidence:g}"


class Gate(Section):
    """The quality that a stack must keep, against its unaccelerated baseline; judged by the interval's worse end."""

    psnr_min: float | None = None
    """Peak signal-to-noise ratio to the baseline's pictures in dB, the mean, which hides broken ones; see the next."""
    psnr_p5_min: float | None = None
    """Of the 5th percentile: one picture in twenty is below it."""
    psnr_mse_min: float | None = None
    """Of the mean squared error of all pictures."""
    psnr_worst_min: float | None = None
    """Of the worst picture."""
    ssim_min: float | None = None
    """Structural similarity to the baseline's pictures, at most 1."""
    ms_ssim_min: float | None = None
    """The same over several scales."""
    relative_l2_max: float | None = None
    """Distance of the final latents to the baseline's, as a share of their norm."""
    lpips_max: float | None = None
    """Learned perceptual distance to the baseline's pictures."""
    agreement_drop_max: float | None = None
    """By how much the share of pictures that agree with their prompts may fall."""
    speedup_min: float | None = None
    """Of denoising, against the baseline."""
    promise: Promise | None = None
    """Of every picture, not of a mean; `ditstack calibrate` finds the cheapest setting that is proved to keep it."""

    def limits(self) -> dict[str, float]:
        """What it asks of figures over many pictures, by its key."""
        return self.model_dump(exclude_none=True, exclude={"promise"})
