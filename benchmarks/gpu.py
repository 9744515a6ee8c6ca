"""Ladders of stacks on published models' shapes with random weights, on one GPU: speed only, the pictures are noise.

    python benchmarks/gpu.py --case flux [--budget 540] [--only "bf16 + compile" "best stack"]

Cases: flux (FLUX.1-dev, 1024 x 1024, 28 and 50 steps), hunyuanvideo (720p, 61 frames), pixart and dit (for ICC). Rows
are written to benchmarks/results/<machine>_<date>/gpu_<case>.json as they end, and none begins when the budget of
seconds is spent; what cannot stand here is a row that says why. `--small` runs the same in small, anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ditstack.assembly.build import build
from ditstack.caching.linears import find_linears
from ditstack.calibration.statistics import LinearSurvey, seeing
from ditstack.compat import hush, hush_loading
from ditstack.errors import Incompatible
from ditstack.pipeline.clock import now
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.recipe import Recipe
from ditstack.report import peak_memory, reset_peak_memory
from limits import Ceilings, ceilings, floors
from models import SHAPES, Shape
from results import write

REPEATS, SECONDS = 5, 12.0
"""A generation is timed so often, or as often as fits in so many seconds, but at least once."""
FLOOR_STEPS = SMALL_STEPS = 8
CACHEDIT = "cache-dit DBCache + TaylorSeer, fp8, compile"

Stages = dict[str, dict[str, Any]]


@dataclass
class Row:
    """One stack and its number of steps; without stages it is cache-dit's, in a process of its own."""

    name: str
    steps: int
    stages: Stages | None = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=SHAPES, default="flux")
    parser.add_argument("--budget", type=float, default=540.0)
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--small", action="store_true")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    started = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    top, made = ceilings(device), []
    print(f"{describe_machine()}: {asdict(top)}", flush=True)
    case = f"gpu_{wanted.case}" + ("_small" if wanted.small else "")
    for row in ladder(wanted.case, wanted.small):
        if wanted.only and row.name not in wanted.only:
            continue
        if time.perf_counter() - started > wanted.budget:
            figures = {"refused": "the budget of seconds was spent"}
        else:
            figures = run(SHAPES[wanted.case], row, top, wanted.small)
        made.append({"name": row.name, "steps": row.steps, **figures})
        print(json.dumps({key: value for key, value in made[-1].items() if key != "floor"}), flush=True)
        write(case, {"weights": "random: speed only", "ceilings": asdict(top), "rows": made})


def ladder(case: str, small: bool) -> Iterator[Row]:
    """The rows of a case, what matters most first."""
    compiled: Stages = {"compile": {"method": "inductor", "backend": "eager" if small else "inductor"}}
    fp8 = {"quantize": {"method": "torchao", "scheme": "int8dq" if small else "fp8dq"}, **compiled}
    sage: Stages = {"attention": {"method": "int8qk" if small else "sage"}}
    sparse: Stages = {"attention": {"method": "sparse", "keep": 0.5, **({"block_size": 16} if small else {})}}
    icc: Stages = {"cache": {"method": "icc", "interval": 2, "rank": 0.125}}
    every5, every7 = ({"cache": {"method": "svdcache", "interval": interval}} for interval in (5, 7))
    if case in ("pixart", "dit"):
        steps = SMALL_STEPS if small else 20 if case == "pixart" else 50
        yield Row("bf16", steps)
        yield Row("bf16 + compile", steps, compiled)
        for rank in (64, 192):
            ranked: Stages = {"cache": {"method": "icc", "interval": 2, "rank": 16 if small else rank}}
            yield Row(f"icc rank {rank} + compile", steps, {**ranked, **compiled})
        yield Row("svdcache N=5 + compile", steps, {**every5, **compiled})
        return
    steps = SMALL_STEPS if small else 28 if case == "flux" else 10
    yield Row("bf16", steps)
    yield Row("bf16 + compile", steps, compiled)
    yield Row("fp8 + compile", steps, fp8)
    yield Row("best stack", steps, {**fp8, **sage, **every7})
    yield Row("fp8 + compile + svdcache N=7", steps, {**fp8, **every7})
    yield Row("fp8 + compile + svdcache N=5", steps, {**fp8, **every5})
    yield Row("fp8 + sparse + compile + svdcache N=7", steps, {**fp8, **sparse, **every7})
    yield Row("fp8 + compile + icc", steps, {**fp8, **icc})
    if case == "hunyuanvideo":
        return
    yield Row("fp8 + compile + FirstBlockCache", steps, {**fp8, "cache": {"method": "fbcache", "threshold": 0.2}})
    without_compile: Stages = {name: stage for name, stage in fp8.items() if name != "compile"}
    yield Row("fp8 + TaylorSeer", steps, {**without_compile, "cache": {"method": "taylorseer", "interval": 5}})
    yield Row(CACHEDIT, steps, None)
    yield Row("fp8 + sage + compile", steps, {**fp8, **sage})
    yield Row("int8 + compile", steps, {"quantize": {"method": "torchao", "scheme": "int8dq"}, **compiled})
    yield Row("fp8 + sparse + compile", steps, {**fp8, **sparse})
    yield Row("bf16 + compile", 50, compiled)
    yield Row("best stack", 50, {**fp8, **sage, **every7})
    yield Row("fp8 + compile + svdcache N=5", 50, {**fp8, **every5})
    yield Row(CACHEDIT, 50, None)


def run(shape: Shape, row: Row, top: Ceilings, small: bool) -> dict[str, Any]:
    """One row's figures, or why there are none."""
    started = time.perf_counter()
    try:
        figures = _peer(row, small) if row.stages is None else _measure(shape, row, top, small)
    except (Incompatible, torch.OutOfMemoryError, NotImplementedError) as error:
        figures = {"refused": str(error).replace("\n", " ")}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**figures, "row_seconds": time.perf_counter() - started}


def _measure(shape: Shape, row: Row, top: Ceilings, small: bool) -> dict[str, Any]:
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    pipeline = shape.make(device, dtype, small)
    recipe = Recipe.parse({"model": {"method": shape.family, "device": device}, **(row.stages or {})}, row.name)
    pipe, call = build(recipe, pipeline), shape.call(pipeline, small)
    if recipe.adapters.get("cache") is not None and recipe.adapters["cache"].wants_factors:
        tensors = random_factors(pipe, call, getattr(recipe.adapters["cache"], "rank", 0.125))
        recipe.adapters["cache"].take(pipe, tensors)
    reset_peak_memory()
    floor = floors(pipe, lambda: generate(pipe, call, FLOOR_STEPS), top)
    first = generate(pipe, call, row.steps)
    steps = step_seconds(pipe, call, row.steps)
    totals, begun = [], time.perf_counter()
    while len(totals) < REPEATS and (not totals or time.perf_counter() - begun < SECONDS):
        totals.append(generate(pipe, call, row.steps))
    return {
        "kinds": pipe.passes.steps,
        "seconds": statistics.median(totals),
        "seconds_each": totals,
        "seconds_per_step": steps,
        "floor": {kind: asdict(one) for kind, one in floor.items()},
        "times_floor": {kind: seconds / floor[kind].floor for kind, seconds in steps.items() if kind in floor},
        "first_generation": first,
        "compiled_when_warm": pipe.compiled,
        "macs_ratio": pipe.passes.macs_ratio,
        "peak_memory": peak_memory(),
        "notes": pipe.notes,
    }


def generate(pipe: Pipe, call: dict[str, Any], steps: int) -> float:
    """Seconds of denoising in one generation."""
    with torch.inference_mode():
        pipe.pipeline(**call, num_inference_steps=steps)
    return pipe.clock.ended - pipe.clock.first_pass


def step_seconds(pipe: Pipe, call: dict[str, Any], steps: int) -> dict[str, float]:
    """The median seconds of each kind of step."""
    marks: list[float] = []

    def tick(_done: int, _steps: int) -> None:
        marks.append(now())

    pipe.clock.on_tick.append(tick)
    generate(pipe, call, steps)
    pipe.clock.on_tick.remove(tick)
    each: dict[str, list[float]] = {}
    for kind, begun, ended in zip(pipe.passes.by_step.values(), [pipe.clock.first_pass, *marks], marks, strict=False):
        each.setdefault(kind, []).append(ended - begun)
    return {kind: statistics.median(seconds) for kind, seconds in each.items()}


def random_factors(pipe: Pipe, call: dict[str, Any], rank: int | float) -> dict[str, torch.Tensor]:
    """Tensors of the sizes that calibration would find, of noise: they cost the same and correct nothing."""
    survey, linears = LinearSurvey(), find_linears(pipe)
    with pipe.without_cache(), pipe.uncompiled(), seeing(linears, survey):
        generate(pipe, call, 1)
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


def _peer(row: Row, small: bool) -> dict[str, Any]:
    """cache-dit's row: it patches classes, so it runs by itself and prints its figures last."""
    script = Path(__file__).with_name("gpu_cachedit.py")
    command = [sys.executable, str(script), str(row.steps), *(["--small"] if small else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"refused": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
