"""Bench: a stack beside its unaccelerated twin, same prompts and seeds, in one process."""

from __future__ import annotations

from collections.abc import Sequence

from ditstack import quality
from ditstack.report import Comparison, Measure
from ditstack.sample import Pictures, warm_up
from ditstack.stack import Stack


def compare(stacked: Pictures, plain: Pictures) -> Comparison:
    """Speed and fidelity of one batch against the twin's."""
    return Comparison(
        plain_seconds=plain.seconds,
        speedup=plain.seconds["denoise"] / stacked.seconds["denoise"],
        psnr=Measure.of(quality.psnr(stacked.images, plain.images)),
        ssim=Measure.of(quality.ssim(stacked.images, plain.images)),
        relative_l2=Measure.of(quality.relative_l2(stacked.latents, plain.latents)),
    )


def timed_sample(stack: Stack, prompts: Sequence[str], negative_prompt: str | None = None) -> Pictures:
    """One batch of pictures, after a warm-up that is not counted."""
    warm_up(stack.pipe, prompts, stack.recipe.sampler)
    return stack.sample(prompts, negative_prompt=negative_prompt)
