"""Timing of what a ladder's row runs: whole generations, the beginning of one, and single steps by their kind."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from ditstack.caching.linears import find_linears
from ditstack.calibration.statistics import LinearSurvey, seeing
from ditstack.pipeline.pipe import Pipe
from gpu_book import Ticks
from limits import Ceilings


def planned(pipe: Pipe, steps: int) -> dict[str, int]:
    """How many steps of each kind a whole generation has."""
    if pipe.policy is None:
        return {"full": steps}
    kinds = list(pipe.policy.plan(steps))
    if "undecided" in kinds:
        return dict(pipe.passes.steps)
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def roofline(linear_macs: int, attention_macs: int, top: Ceilings) -> dict[str, float]:
    """Seconds of a step's products alone, in bf16 and in fp8 linears, at the rates that this device reaches."""
    plain = top.products.get("bfloat16", top.products["float32"])
    attention = 2 * attention_macs / plain
    quick = top.products.get("float8_e4m3fn")
    found = {"bf16": 2 * linear_macs / plain + attention}
    return found | ({} if quick is None else {"fp8": 2 * linear_macs / quick + attention})


def generate(pipe: Pipe, call: dict[str, Any], steps: int) -> float:
    """Seconds of denoising in one generation."""
    with torch.inference_mode():
        pipe.pipeline(**call, num_inference_steps=steps)
    return pipe.clock.ended - pipe.clock.first_pass


class _Enough(Exception):
    """Every kind of step has been seen."""


def generation(pipe: Pipe, call: dict[str, Any], steps: int, seen: int | None) -> None:
    """A generation, or its beginning, until each kind of step was seen so often."""
    kinds = set(planned(pipe, steps)) if seen else set()

    def tick(_done: int, _steps: int) -> None:
        ran = list(pipe.passes.by_step.values())
        if seen and all(ran.count(kind) >= seen for kind in kinds):
            raise _Enough

    pipe.clock.on_tick.append(tick)
    try:
        generate(pipe, call, steps)
    except _Enough:
        pass
    finally:
        pipe.clock.on_tick.remove(tick)


def step_seconds(pipe: Pipe, call: dict[str, Any], steps: int, seen: int | None = None) -> dict[str, float]:
    """The median seconds of each kind of step; the first pass of all begins the first.

    Args:
        seen: stop when each kind was seen so often; None makes a whole generation.
    """
    ticks = Ticks()

    def begin() -> None:
        if not ticks.marks:
            ticks.mark()

    pipe.passes.on_begin.append(begin)
    pipe.clock.on_tick.insert(0, ticks.mark)
    try:
        generation(pipe, call, steps, seen)
    finally:
        pipe.passes.on_begin.remove(begin)
        pipe.clock.on_tick.remove(ticks.mark)
    each: dict[str, list[float]] = {}
    for kind, seconds in zip(pipe.passes.by_step.values(), ticks.seconds(), strict=False):
        each.setdefault(kind, []).append(seconds)
    return {kind: statistics.median(seconds) for kind, seconds in each.items()}


def random_factors(
    pipe: Pipe, call: Any, rank: int | float, run: Callable[[], Any] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors of the sizes that calibration would find, of noise: they cost the same and correct nothing.

    Args:
        run: one generation, where it is not of `call`.
    """
    survey, linears = LinearSurvey(), find_linears(pipe)
    with pipe.without_cache(), pipe.uncompiled(), seeing(linears, survey):
        run() if run else generate(pipe, call, 2)  # PixArt takes one step for another model's
    survey.finish()
    where: dict[str, Any] = {"device": pipe.device, "dtype": next(iter(pipe.transformers.values())).dtype}
    tensors = {}
    for members in survey.groups():
        sizes = [survey.shapes[name] for name in members]
        ranks = [rank if isinstance(rank, int) else max(1, round(rank * min(size))) for size in sizes]
        for name, (out, _), own in zip(members, sizes, ranks, strict=True):
            tensors[f"{name}.up"] = 1e-3 * torch.randn(out, own, **where)
        tensors["+".join(members) + ".down"] = 1e-3 * torch.randn(sum(ranks), sizes[0][1], **where)
    return tensors
