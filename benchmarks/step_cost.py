"""What a forecast step costs beside a full one: a 12-block FLUX of width 768 with 1,100 tokens, random weights.

    python benchmarks/step_cost.py [--steps 20] [--interval 5] [--width 768]

Writes benchmarks/results/<machine>_<date>/step_cost.json. Times are medians; ratios are within one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from ditstack import Recipe, apply
from ditstack.stack import Stack
from models import embeddings, flux
from results import write

TEXT_TOKENS, PIXELS = 76, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--width", type=int, default=768)
    wanted = parser.parse_args()
    recipe = Recipe.parse(
        {
            "model": {"method": "flux", "device": "cpu"},
            "cache": {"method": "svdcache", "interval": wanted.interval},
            "sampler": {"steps": wanted.steps, "guidance": 3.5, "size": f"{PIXELS}x{PIXELS}"},
        },
        "flux-random-svdcache",
    )
    stack = apply(flux(wanted.width, 4, 8), recipe)
    write("step_cost", measure(stack, wanted.steps) | {"width": wanted.width, "tokens": 1024 + TEXT_TOKENS})


def measure(stack: Stack, steps: int) -> dict[str, Any]:
    """Seconds per step by kind, with and without the cache, after a warm-up of two steps."""
    arguments = embeddings(stack.pipeline, TEXT_TOKENS) | {"height": PIXELS, "width": PIXELS}
    run(stack, {**arguments, "num_inference_steps": 2})
    cached, kinds, features = run(stack, {**arguments, "num_inference_steps": steps})
    ratio = stack.report().macs_ratio
    with stack.off():
        plain, _, _ = run(stack, {**arguments, "num_inference_steps": steps})
    pairs = list(zip(cached, kinds, strict=True))
    by_kind = {kind: statistics.median(seconds for seconds, of in pairs if of == kind) for kind in set(kinds)}
    speedup = sum(plain) / sum(cached)
    ideal = steps / kinds.count("full")
    return {
        "report": stack.report().model_dump(mode="json"),
        "seconds_per_step": {**by_kind, "plain": statistics.median(plain)},
        "forecast_share_of_full": by_kind["forecast"] / by_kind["full"],
        "speedup": speedup,
        "steps_over_full_steps": ideal,
        "speedup_over_ideal": speedup / ideal,
        "macs_ratio": ratio,
        "features_kept_per_branch": features,
    }


def run(stack: Stack, arguments: dict[str, Any]) -> tuple[list[float], list[str], float]:
    """The seconds and kind of every step, and how many features the cache kept at most."""
    clock, marks, features = stack.pipe.clock, [], [0.0]

    def tick(done: int, steps: int) -> None:
        marks.append(time.perf_counter())
        features.append(kept(stack))

    clock.on_tick.append(tick)
    with torch.inference_mode():
        stack.pipeline(**arguments)
    clock.on_tick.remove(tick)
    seconds = [b - a for a, b in zip([clock.first_pass, *marks], marks, strict=False)]
    return seconds, list(stack.pipe.step_kinds.values()), max(features)


def kept(stack: Stack) -> float:
    """Tensors of a feature's size that the cache holds now, counted by their storage."""
    store = stack.pipe.store
    if store is None or not store.memories:
        return 0.0
    held = [one for memory in store.memories.values() for one in memory.tensors()]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in held}
    return sum(storages.values()) / max(one.numel() * one.element_size() for one in held)


if __name__ == "__main__":
    main()
