"""Comparison: pictures beside those of the pipeline without its stack, on the user's own pipeline too."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from PIL import Image
from tqdm.auto import tqdm

from ditstack.assembly.build import build, changed_weights, take_down
from ditstack.assembly.sample import Pictures, sample, warm_up
from ditstack.errors import BadPipeline
from ditstack.maths import fidelity
from ditstack.paper import as_html, grid
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Recipe, Sampler
from ditstack.report import Comparison, Estimate, Measure, Report


class Compared(NamedTuple):
    """What a comparison found: the stack's report, whose `compare` holds the figures, and the pictures side by side."""

    report: Report
    grid: Image.Image

    def __repr__(self) -> str:
        return f"Compared({self.report!r})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_() + as_html(self.grid, "plain, stacked, difference")


class Standing(Protocol):
    """What `beside` asks of a stack."""

    pipe: Pipe
    recipe: Recipe

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], negative_prompt: str | None) -> Pictures: ...

    def report(self, pictures: Pictures) -> Report: ...


def beside(
    stack: Standing, plain: Pipe, sampler: Sampler, prompts: Sequence[str], seeds: Sequence[int], negative: str | None
) -> Compared:
    """Sample with the baseline and with the stack, each warmed up, under one bar; then compare."""
    if not prompts:
        raise BadPipeline("found no prompts to compare on; give one or more, such as stack.compare(['a red circle'])")
    with _one_bar((plain, sampler.steps), (stack.pipe, stack.recipe.sampler.steps)) as begin:
        warm_up(plain, prompts, sampler)
        begin(plain)
        before = sample(plain, prompts, seeds, sampler, negative)
        warm_up(stack.pipe, prompts, stack.recipe.sampler)
        begin(stack.pipe)
        made = stack.sample(prompts, seeds, negative)
    report = stack.report(made)
    report.compare = compare(made, before)
    return Compared(report, grid(before.images, made.images, list(prompts)))


@contextmanager
def _one_bar(*parts: tuple[Pipe, int]) -> Iterator[Callable[[Pipe], None]]:
    """Inside, one bar counts the steps of several pipelines, whose own are hidden; a part counts once it was begun."""
    own = [(pipe.pipeline, dict(getattr(pipe.pipeline, "_progress_bar_config", {}))) for pipe, _ in parts]
    with tqdm(total=sum(steps for _, steps in parts), desc="plain, then stacked") as bar:
        done: dict[int, int] = {}

        def tick(pipe: Pipe, step: int) -> None:
            if id(pipe) in done:
                bar.update(step - done[id(pipe)])
                done[id(pipe)] = step

        hears = [(pipe, functools.partial(lambda pipe, step, _: tick(pipe, step), pipe)) for pipe, _ in parts]
        for pipe, hear in hears:
            pipe.pipeline.set_progress_bar_config(disable=True)
            pipe.clock.on_tick.append(hear)
        try:
            yield lambda pipe: done.update({id(pipe): 0})
        finally:
            for (pipe, hear), (pipeline, config) in zip(hears, own, strict=True):
                pipe.clock.on_tick.remove(hear)
                pipeline.set_progress_bar_config(**config)


def compare(stacked: Pictures, plain: Pictures, pace: Estimate | None = None) -> Comparison:
    """Speed and fidelity of one batch against the baseline's.

    Args:
        pace: the speed-up of interleaved pairs; None takes the one pass that made the pictures.
    """
    found = pace or single(plain.seconds["denoise"] / stacked.seconds["denoise"])
    return Comparison(
        plain_seconds=plain.seconds,
        speedup=found.mean,
        speedup_range=(found.low, found.high) if pace else None,
        psnr=Measure.of(fidelity.psnr(stacked.images, plain.images)),
        ssim=Measure.of(fidelity.ssim(stacked.images, plain.images)),
        relative_l2=Measure.of(fidelity.relative_l2(stacked.latents, plain.latents)),
    )


def single(value: float) -> Estimate:
    """One measurement, which has no interval."""
    return Estimate(mean=value, low=value, high=value)


@contextmanager
def unaccelerated(pipe: Pipe, recipe: Recipe, plain: Any = None) -> Iterator[Pipe]:
    """Inside, the baseline of what stands on a pipeline: the same parts in a pipeline that carries no stack.

    Args:
        plain: a pipeline of the same model, loaded again; needed where the weights were rounded.

    Raises:
        BadPipeline: the weights were rounded in place, and there is no `plain`.
    """
    rounded = [one for stage, one in changed_weights(pipe).items() if stage == "quantize"]
    if plain is None and rounded:
        raise BadPipeline(
            f"quantize {rounded[0].method} rounded the weights in place, so nothing unrounded is left to compare with; "
            "load the pipeline once more and write `stack.compare(prompts, plain=that_pipeline)`"
        )
    beside = plain if plain is not None else _twin(pipe)
    made = build(recipe, beside)
    try:
        yield made
    finally:
        take_down(made)


def _twin(pipe: Pipe) -> Any:
    """A pipeline of the same parts: what stands on the first acts in the first one's calls alone."""
    scheduler = copy.deepcopy(pipe.own_scheduler)
    twin = type(pipe.pipeline)(**{**pipe.pipeline.components, "scheduler": scheduler})
    twin.set_progress_bar_config(disable=True)
    return twin
