"""cache-dit on FLUX.1-dev's shape with fp8 by row and compiled blocks, as its documentation has it; run by gpu.py.

    python benchmarks/gpu_cachedit.py STEPS INTERVAL [--small]

One step in INTERVAL runs in full, evenly (its static mask), the others by TaylorSeer of order 1. Prints figures as
JSON, a line each time that more is known.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import cache_dit
import torch
from torchao import quantization as ao
from torchao.quantization.granularity import PerRow

from ditstack.maths.schedule import even_by_interval
from ditstack.pipeline.clock import now
from ditstack.report import peak_memory, reset_peak_memory
from gpu_book import gpu_state
from models import SHAPES

REPEATS = 5
WARM_UP = 4
"""Steps before its calibrator acts at all; with 3 or fewer it never does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int)
    parser.add_argument("interval", type=int)
    parser.add_argument("--small", action="store_true")
    wanted = parser.parse_args()
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    pipe = SHAPES["flux"].make(device, dtype, wanted.small)
    full = even_by_interval(wanted.steps, wanted.interval)
    # the cache first, then the weights, then the compiler: the other way round compiling is of no use
    cache_dit.enable_cache(
        pipe,
        cache_config=cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            max_warmup_steps=WARM_UP,
            num_inference_steps=wanted.steps,
            steps_computation_mask=[int(step in full) for step in range(wanted.steps)],
            steps_computation_policy="static",
        ),
        calibrator_config=cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1),
    )
    ao.quantize_(pipe.transformer, _rounding(wanted.small), _in_blocks)
    if not wanted.small:
        cache_dit.set_compile_configs()
    pipe.transformer.compile_repeated_blocks(backend="eager" if wanted.small else "inductor")
    call = {**SHAPES["flux"].call(pipe, wanted.small), "num_inference_steps": wanted.steps}
    reset_peak_memory()
    figures: dict[str, Any] = {"first_generation": _generate(pipe, call), "before": gpu_state()}
    totals: list[float] = []
    for _ in range(1 if wanted.small else REPEATS):
        totals.append(_generate(pipe, call))
        figures |= {"kinds": {"full": len(full)}, "seconds": statistics.median(totals), "seconds_each": totals}
        print(json.dumps({**figures, "peak_memory": peak_memory(), "after": gpu_state()}), flush=True)


def _rounding(small: bool) -> Any:
    if small:
        return ao.Int8DynamicActivationInt8WeightConfig()
    return ao.Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())


def _in_blocks(module: torch.nn.Module, name: str) -> bool:
    """The linears that our own rows round."""
    return isinstance(module, torch.nn.Linear) and "blocks." in name and "norm" not in name


def _generate(pipe: Any, call: dict[str, Any]) -> float:
    started = now()
    with torch.inference_mode():
        pipe(**call)
    return now() - started


if __name__ == "__main__":
    main()
