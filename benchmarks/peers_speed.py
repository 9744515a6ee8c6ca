"""What our cache costs beside its peers at the same number of full steps: seconds of denoising, interleaved.

    python benchmarks/peers_speed.py [--models tiny flux]

Each round runs everyone once, in an order drawn anew so that nobody always follows the same one; a warm-up comes first.
Ratios are of times within one round, with the median and a 95 % interval over rounds. Writes
benchmarks/results/<machine>_<date>/peers_speed.json; a model that is not asked for keeps its newest figures.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig

import settings
from cachedit import CacheDit
from ditstack import Recipe, apply
from ditstack.compat import hush, hush_loading
from ditstack.maths.schedule import graded
from ditstack.pipeline.pipe import FULL
from ditstack.stack import Stack
from rehearse import arguments, denoise, pipeline
from results import newest, write

RACES = {"tiny": (50, 12, 45), "flux": (12, 3, 5)}
"""Steps, full steps and rounds of a model: few where a step is long."""
OURS = "svdcache"

Run = Callable[[], float]
"""Denoises once and tells the seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(RACES), default=list(RACES))
    wanted = parser.parse_args()
    hush()
    hush_loading()
    known = (newest("peers_speed") or {"models": {}})["models"]
    write("peers_speed", {"models": {**known, **{name: race(name, *RACES[name]) for name in wanted.models}}})


def race(model: str, steps: int, full: int, rounds: int) -> dict[str, Any]:
    """Everyone's seconds on one model, round by round, and their ratios to ours."""
    runners, ran = starters(model, steps, full)
    for run in runners.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    draw = random.Random(0)
    for turn in range(rounds):
        for name in draw.sample([*runners], len(runners)):
            seconds[name].append(runners[name]())
            print(f"{model} {turn} {name:32s} {seconds[name][-1]:8.3f} s", flush=True)
    rows = {
        name: {
            "full": ran.get(name, full),
            "seconds": statistics.median(times),
            "ours_over_theirs": median_interval([a / b for a, b in zip(seconds[OURS], times, strict=True)]),
            "seconds_each": times,
        }
        for name, times in seconds.items()
    }
    share = median_interval([a / b for a, b in zip(seconds[OURS], seconds["no cache"], strict=True)])
    return {
        "steps": steps,
        "full": full,
        "rounds": rounds,
        "ours_over_full_share": [one * steps / full for one in share],
        "rows": rows,
    }


def starters(model: str, steps: int, full: int) -> tuple[dict[str, Run], dict[str, float]]:
    """Everyone, each with a pipeline of its own; and how many steps ran in full where that is not `full`."""
    runners = {"no cache": alone(model, steps, None), OURS: partial(seconds_of, *ours(model, steps, full))}
    for lite, label in ((False, ""), (True, " lite")):
        (_, found), *_ = settings.taylorseer(steps, full, lite)
        runners[f"diffusers TaylorSeer{label}"] = alone(model, steps, taylorseer(found))
    threshold, ran = first_block(model, steps, full)
    runners["diffusers FirstBlockCache"] = alone(model, steps, FirstBlockCacheConfig(threshold))
    for forecast, label in ((None, ""), ("taylorseer", " + TaylorSeer")):
        process = CacheDit(model)
        process.ask("cache", full=list(graded(steps, full)), steps=steps, forecast=forecast)
        runners[f"cache-dit DBCache{label}"] = lambda process=process: process.ask("denoise")["seconds"]
    return runners, {"diffusers FirstBlockCache": ran}


def seconds_of(pipe: Any, call: dict[str, Any]) -> float:
    return denoise(pipe, call)[0]


def alone(model: str, steps: int, config: Any) -> Run:
    """A pipeline without a stack, with a cache of diffusers' own where one is given."""
    pipe = pipeline(model)
    if config is not None:
        pipe.transformer.enable_cache(config)
    return partial(seconds_of, pipe, arguments(model, pipe, steps))


def ours(model: str, steps: int, full: int) -> tuple[Any, dict[str, Any]]:
    """A pipeline with our default cache, and the arguments of its calls."""
    stack = stacked(model, {"method": "svdcache", "schedule": list(graded(steps, full))})
    return stack.pipeline, arguments(model, stack.pipeline, steps)


def taylorseer(found: dict[str, Any]) -> TaylorSeerCacheConfig:
    return TaylorSeerCacheConfig(
        cache_interval=found["interval"],
        disable_cache_before_step=found["warmup"],
        max_order=found["order"],
        taylor_factors_dtype=torch.float32,
        use_lite_mode=found["lite"],
    )


def first_block(model: str, steps: int, full: int) -> tuple[float, float]:
    """The threshold at which First Block Cache runs nearest to `full` steps in full, and how many it runs."""
    known: dict[float, float] = {}

    def ran(stage: dict[str, Any]) -> float:
        stack = stacked(model, stage)
        denoise(stack.pipeline, arguments(model, stack.pipeline, steps))
        tally = stack.pipe.passes.kinds
        known[stage["threshold"]] = tally[FULL] * steps / tally.total()
        return known[stage["threshold"]]

    ((_, found),) = settings.fbcache(full, ran)
    return found["threshold"], known[found["threshold"]]


def stacked(model: str, stage: dict[str, Any]) -> Stack:
    device = {"method": model, "device": "cpu"}
    return apply(pipeline(model), Recipe.parse({"model": device, "cache": stage}, f"{model}-{stage['method']}"))


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """The median with its 95 % bootstrap interval over rounds."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return statistics.median(values), medians[50], medians[1949]


if __name__ == "__main__":
    main()
