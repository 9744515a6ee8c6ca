"""Bench: what a recipe makes of prompts and what that costs; a stack beside its unaccelerated baseline."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ditstack.assembly.sample import Pictures, warm_up
from ditstack.assembly.solvers import is_flow
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.recipe import Recipe
from ditstack.report import Estimate, peak_memory, reset_peak_memory
from ditstack.stack import Stack, load

BATCH = 8
PAIRS = 6
"""The fewest of which the least and the greatest hold the median with 95 %."""


def timed_sample(stack: Stack, prompts: Sequence[str], negative_prompt: str | None = None) -> Pictures:
    """One batch of pictures, after a warm-up that is not counted."""
    warm_up(stack.pipe, prompts, stack.recipe.sampler)
    return stack.sample(prompts, negative_prompt=negative_prompt)


@dataclass(frozen=True)
class Pace:
    """What a race found, each the median with its interval.

    Attributes:
        speedup: how many times faster.
        seconds: of denoising one picture by itself.
    """

    speedup: Estimate
    seconds: Estimate


def race(
    stack: Stack, plain: Stack, prompts: Sequence[str], negative_prompt: str | None = None, pairs: int = PAIRS
) -> Pace:
    """How many times faster `stack` denoises one picture than `plain`: the median of interleaved pairs.

    A machine that slows down between two measurements then slows both of a pair. The interval is that of the median
    from its order: of six pairs it lies between the least and the greatest with 97 %.
    """
    ratios, own = [], []
    for place in range(pairs):
        one = [prompts[place % len(prompts)]]
        first, second = (stack, plain) if place % 2 else (plain, stack)
        seconds = {
            id(runner): runner.sample(one, None, negative_prompt).seconds["denoise"] for runner in (first, second)
        }
        ratios.append(seconds[id(plain)] / seconds[id(stack)])
        own.append(seconds[id(stack)])
    return Pace(_median(ratios), _median(own))


def _median(found: Sequence[float]) -> Estimate:
    return Estimate(mean=statistics.median(found), low=min(found), high=max(found))


@dataclass
class Trial:
    """What a recipe made of some prompts, in batches, and what it cost.

    Attributes:
        pictures: all of them; their `seconds` are those of one picture, the median over batches.
        macs_ratio: multiply-accumulates as a share of running every step in full.
        peak_memory: bytes, from loading on.
        weight_bytes: of the transformers' weights as they run.
        flow: whether the scheduler integrates a flow.
        scheduler: its class.
        pace: how many times faster it denoises than what it was raced against, if it was.
        lap: its seconds for one picture by itself in that race.
        attended: of attention's products, the share that its kernel made or left to PyTorch's own, where there is one;
            a kernel that is there to make the same products faster has left all of them, or none.
    """

    pictures: Pictures
    macs_ratio: float
    peak_memory: int
    weight_bytes: int
    notes: list[str]
    flow: bool = True
    scheduler: str = ""
    pace: Estimate | None = None
    lap: Estimate | None = None
    attended: float | None = None

    @property
    def seconds(self) -> float:
        """Of denoising one picture."""
        return self.pictures.seconds["denoise"]


def trial(
    recipe: Recipe,
    prompts: Sequence[str],
    batch: int = BATCH,
    told: Callable[[int], None] = lambda done: None,
    against: Recipe | None = None,
    pairs: int = PAIRS,
    tell: Callable[[str], None] = lambda text: None,
    bar: Callable[[str, int, int], None] = lambda part, done, count: None,
) -> Trial:
    """Load a recipe, warm up, and sample every prompt; the seeds count up from the recipe's.

    Args:
        told: of how many pictures are done.
        against: a recipe to race, with both in memory.
        pairs: of the race.
        tell: told in a sentence of what had to be fitted first.
        bar: told how far that is.
    """
    reset_peak_memory()
    stack = load(recipe, tell, bar=bar)
    warm_up(stack.pipe, prompts[:batch], recipe.sampler)
    parts, spent, would_spend = [], 0, 0
    for at in range(0, len(prompts), batch):
        part = prompts[at : at + batch]
        parts.append(stack.sample(part, [recipe.seed + at + place for place in range(len(part))]))
        spent, would_spend = spent + stack.pipe.passes.macs, would_spend + stack.pipe.passes.full_macs
        told(at + len(part))
    ratio = spent / would_spend if would_spend else 1.0
    flow, memory = is_flow(stack.pipeline.scheduler), peak_memory()
    found = None if against is None else _raced(stack, against, prompts, pairs)
    pace, lap = (found.speedup, found.seconds) if found else (None, None)
    weights = weight_bytes(stack.pipe)
    made, notes, kind = _joined(parts), list(stack.pipe.notes), type(stack.pipeline.scheduler).__name__
    return Trial(made, ratio, memory, weights, notes, flow, kind, pace, lap, _attended(stack))


def _attended(stack: Stack) -> float | None:
    kernel = stack.pipe.attention
    if kernel is None or not float(kernel.asked):
        return None
    return float(kernel.made) / float(kernel.asked) if kernel.thins else float(not kernel.ran["kernel"])


def _raced(stack: Stack, against: Recipe, prompts: Sequence[str], pairs: int) -> Pace | None:
    """The race with a recipe; None where both do not fit into the memory of the GPU."""
    if not room_for_another():
        return None
    plain = load(against)
    warm_up(plain.pipe, prompts[:1], against.sampler)
    return race(stack, plain, prompts, pairs=pairs)


def room_for_another() -> bool:
    """Whether a stack like the one that stands fits beside it: always without a GPU."""
    return not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] > 1.5 * torch.cuda.memory_allocated()


def weight_bytes(pipe: Pipe) -> int:
    """Of the transformers' weights as they run."""
    return sum(
        bytes_of(one)
        for transformer in pipe.transformers.values()
        for one in (*transformer.parameters(), *transformer.buffers())
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
