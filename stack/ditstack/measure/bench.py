"""Bench: what a recipe makes of prompts and what that costs; a stack beside its unaccelerated baseline."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ditstack.assembly.sample import Pictures, warm_up
from ditstack.maths import fidelity
from ditstack.recipe.recipe import Recipe
from ditstack.report import Comparison, Measure, peak_memory, reset_peak_memory
from ditstack.stack import Stack, load

BATCH = 8


def compare(stacked: Pictures, plain: Pictures) -> Comparison:
    """Speed and fidelity of one batch against the baseline's."""
    return Comparison(
        plain_seconds=plain.seconds,
        speedup=plain.seconds["denoise"] / stacked.seconds["denoise"],
        psnr=Measure.of(fidelity.psnr(stacked.images, plain.images)),
        ssim=Measure.of(fidelity.ssim(stacked.images, plain.images)),
        relative_l2=Measure.of(fidelity.relative_l2(stacked.latents, plain.latents)),
    )


def timed_sample(stack: Stack, prompts: Sequence[str], negative_prompt: str | None = None) -> Pictures:
    """One batch of pictures, after a warm-up that is not counted."""
    warm_up(stack.pipe, prompts, stack.recipe.sampler)
    return stack.sample(prompts, negative_prompt=negative_prompt)


@dataclass
class Trial:
    """What a recipe made of some prompts, in batches, and what it cost.

    Attributes:
        pictures: all of them; their `seconds` are those of one picture, the median over batches.
        macs_ratio: multiply-accumulates as a share of running every step in full.
        peak_memory: bytes, from loading on.
        weight_bytes: of the transformers' weights as they run.
    """

    pictures: Pictures
    macs_ratio: float
    peak_memory: int
    weight_bytes: int
    notes: list[str]

    @property
    def seconds(self) -> float:
        """Of denoising one picture."""
        return self.pictures.seconds["denoise"]


def trial(
    recipe: Recipe, prompts: Sequence[str], batch: int = BATCH, told: Callable[[int], None] = lambda done: None
) -> Trial:
    """Load a recipe, warm up, and sample every prompt; the seeds count up from the recipe's.

    Args:
        told: of how many pictures are done.
    """
    reset_peak_memory()
    stack = load(recipe)
    warm_up(stack.pipe, prompts[:batch], recipe.sampler)
    parts, spent, would_spend = [], 0, 0
    for at in range(0, len(prompts), batch):
        part = prompts[at : at + batch]
        parts.append(stack.sample(part, [recipe.seed + at + place for place in range(len(part))]))
        spent, would_spend = spent + stack.pipe.passes.macs, would_spend + stack.pipe.passes.full_macs
        told(at + len(part))
    weights = sum(
        bytes_of(one)
        for transformer in stack.pipe.transformers.values()
        for one in (*transformer.parameters(), *transformer.buffers())
    )
    return Trial(
        _joined(parts), spent / would_spend if would_spend else 1.0, peak_memory(), weights, list(stack.pipe.notes)
    )


def bytes_of(weight: Tensor) -> int:
    """As stored: of a quantized tensor, the sum of what it is made of."""
    if hasattr(weight, "__tensor_flatten__"):
        names, _ = weight.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue]
        return sum(bytes_of(getattr(weight, name)) for name in names)
    return weight.numel() * weight.element_size()


def _joined(parts: list[Pictures]) -> Pictures:
    seconds = {
        key: statistics.median(part.seconds[key] / len(part.prompts) for part in parts) for key in parts[0].seconds
    }
    return Pictures(
        torch.cat([part.images for part in parts]),
        torch.cat([part.latents for part in parts]),
        seconds,
        parts[-1].steps,
        sum(part.macs for part in parts),
        [prompt for part in parts for prompt in part.prompts],
        [seed for part in parts for seed in part.seeds],
        parts[0].fps,
    )
