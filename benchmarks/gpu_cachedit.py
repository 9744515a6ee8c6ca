"""cache-dit on FLUX.1-dev's shape with fp8 and compiled blocks, as its documentation has it; run by gpu.py.

    python benchmarks/gpu_cachedit.py STEPS [--small]

One step in seven runs in full, evenly (its static mask), the others by TaylorSeer of order 1. Prints figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import cache_dit
import torch
from torchao import quantization as ao

from ditstack.maths.schedule import even_by_interval
from ditstack.pipeline.clock import now
from ditstack.report import peak_memory, reset_peak_memory
from models import SHAPES

INTERVAL, REPEATS = 7, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int)
    parser.add_argument("--small", action="store_true")
    wanted = parser.parse_args()
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    pipe = SHAPES["flux"].make(device, dtype, wanted.small)
    rounded = ao.Int8DynamicActivationInt8WeightConfig if wanted.small else ao.Float8DynamicActivationFloat8WeightConfig
    ao.quantize_(pipe.transformer, rounded(), _in_blocks)
    full = even_by_interval(wanted.steps, INTERVAL)
    cache_dit.enable_cache(
        pipe,
        cache_config=cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            max_warmup_steps=1,
            num_inference_steps=wanted.steps,
            steps_computation_mask=[int(step in full) for step in range(wanted.steps)],
            steps_computation_policy="static",
        ),
        calibrator_config=cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1),
    )
    pipe.transformer.compile_repeated_blocks(backend="eager" if wanted.small else "inductor")
    call = {**SHAPES["flux"].call(pipe, wanted.small), "num_inference_steps": wanted.steps}
    first = _generate(pipe, call)
    reset_peak_memory()
    totals = [_generate(pipe, call) for _ in range(REPEATS)]
    figures = {"seconds": statistics.median(totals), "seconds_each": totals, "first_generation": first}
    print(json.dumps({"kinds": {"full": len(full)}, **figures, "peak_memory": peak_memory()}))


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
