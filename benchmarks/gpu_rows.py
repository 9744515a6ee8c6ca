"""The rows of the ladders on a GPU, those that are worth most first, and about how long each will take there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SMALL_STEPS = 5
CACHEDIT = "cache-dit DBCache + TaylorSeer, fp8, compile"
BUILD, COMPILE, GENERATIONS = 15.0, 40.0, 5
"""Guesses for the plan: seconds of building and of compiling, which rows share; how many generations a row makes."""
FULL = {"flux": 0.2, "hunyuanvideo": 6.0, "pixart": 0.1, "dit": 0.03}
"""Seconds of a full step; guesses for the plan."""

Stages = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One stack and its number of steps; without stages it is cache-dit's, in a process of its own.

    Attributes:
        part: of the measuring plan.
        single: only single steps are timed, as many as show every kind twice, and a whole run is their sum.
        interval: of cache-dit's full steps.
    """

    name: str
    steps: int
    stages: Stages | None = field(default_factory=dict)
    part: int = 1
    single: bool = False
    interval: int = 7

    def seconds(self, case: str) -> float:
        """About how long it takes on a GPU."""
        compiled = self.stages is None or "compile" in self.stages
        full = 4.0 if self.single else 1.2 * self.steps * GENERATIONS / self._interval
        return BUILD + COMPILE * compiled + full * FULL[case]

    @property
    def _interval(self) -> float:
        cache = (self.stages or {}).get("cache", {})
        return float(self.interval if self.stages is None else cache.get("interval", 1))


def ladder(case: str, small: bool) -> list[Row]:
    """The rows of a case."""
    if case == "flux":
        return _flux(small)
    return _hunyuanvideo(small) if case == "hunyuanvideo" else _classes(case, small)


def _of(small: bool) -> tuple[Stages, Stages, Stages, Stages]:
    """Compiled, and so in fp8 with a scale for each row, the fastest attention, and sparse attention."""
    compiled: Stages = {"compile": {"method": "inductor", "backend": "eager" if small else "inductor"}}
    fp8 = {"quantize": {"method": "torchao", "scheme": "int8dq" if small else "fp8dq"}, **compiled}
    # as the shelf's recipes have it, so that their seconds are told
    fastest: Stages = {"attention": {"method": "auto", "kernels": ["native", "cudnn", "fa3", "sage"]}}
    sparse: Stages = {"attention": {"method": "sparse", "keep": 0.5, **({"block_size": 16} if small else {})}}
    return compiled, fp8, fastest, sparse


def _every(interval: int) -> Stages:
    return {"cache": {"method": "svdcache", "interval": interval}}


def _flux(small: bool) -> list[Row]:
    compiled, fp8, fastest, sparse = _of(small)
    steps = SMALL_STEPS if small else 28
    tensor = {**fp8, "quantize": {"method": "torchao", "scheme": "int8dq" if small else "fp8dq_tensor"}}
    int8 = {**compiled, "quantize": {"method": "torchao", "scheme": "int8dq"}}
    nf4: Stages = {**compiled, "quantize": {"method": "bitsandbytes", "scheme": "nf4"}}
    sage: Stages = {"attention": {"method": "int8qk" if small else "sage"}}
    cudnn: Stages = {"attention": {"method": "auto", "kernels": ["native"] if small else ["cudnn"]}}
    dense: Stages = {"attention": {"method": "auto", "kernels": ["native", "cudnn", "sage"]}}
    icc: Stages = {"cache": {"method": "icc", "interval": 2, "rank": 0.125}}
    mixed: Stages = {"cache": {"method": "mixed", "schedule": "F (SCSF)...", "rank": 0.125}}
    fbcache: Stages = {"cache": {"method": "fbcache", "threshold": 0.2}}
    taylor: Stages = {"quantize": fp8["quantize"], "cache": {"method": "taylorseer", "interval": 5}}
    taylor = taylor if small else {"cache": taylor["cache"]}  # it cannot be compiled, and fp8 without it is a loss
    return [
        Row("bf16", steps),
        Row("bf16 + compile", steps, compiled),
        Row("best stack, 7 full", steps, {**fp8, **fastest, **_every(4)}, 2),
        Row("best stack, 4 full", steps, {**fp8, **fastest, **_every(7)}, 2),
        Row("fp8 + compile", steps, fp8, 2),
        Row("fp8 per tensor + compile", steps, tensor, 2),
        Row(CACHEDIT, steps, None, 2, interval=4),
        Row(f"{CACHEDIT}, 4 full", steps, None, 2),
        Row("fp8 + sage + compile + svdcache N=4", steps, {**fp8, **sage, **_every(4)}, 2),
        Row("fp8 + cuDNN + compile + svdcache N=4", steps, {**fp8, **cudnn, **_every(4)}, 2),
        Row("int8 + fastest attention + compile + svdcache N=4", steps, {**int8, **dense, **_every(4)}, 3),
        Row("int8 + compile", steps, int8, 3),
        Row("fp8 + compile + icc", steps, {**fp8, **icc}, 3),
        Row("fp8 + compile + mixed", steps, {**fp8, **mixed}, 3),
        Row("fp8 + sparse + compile", steps, {**fp8, **sparse}, 3),
        Row("nf4 + compile + svdcache N=4", steps, {**nf4, **_every(4)}, 3),
        Row("fp8 + compile + FirstBlockCache", steps, {**fp8, **fbcache}, 3),
        Row("TaylorSeer", steps, taylor, 3),
        Row("best stack, 50 steps", 50 if not small else 6, {**fp8, **fastest, **_every(7)}, 3),
        Row("bf16 + compile, 50 steps", 50 if not small else 6, compiled, 3),
    ]


def _hunyuanvideo(small: bool) -> list[Row]:
    compiled, fp8, fastest, sparse = _of(small)
    steps = SMALL_STEPS if small else 50
    rows = {
        "bf16 + compile": compiled,
        "best stack": {**fp8, **fastest, **_every(7)},
        "fp8 + sparse + compile + svdcache N=7": {**fp8, **sparse, **_every(7)},
        "fp8 + compile": fp8,
        "bf16": {},
    }
    return [Row(name, steps, stages, 4, single=True) for name, stages in rows.items()]


def _classes(case: str, small: bool) -> list[Row]:
    compiled, *_ = _of(small)
    steps = SMALL_STEPS if small else 20 if case == "pixart" else 50
    rows: dict[str, Stages] = {"bf16": {}, "bf16 + compile": compiled}
    for rank in (64, 192):
        ranked: Stages = {"cache": {"method": "icc", "interval": 2, "rank": 16 if small else rank}}
        rows[f"icc rank {rank} + compile"] = {**ranked, **compiled}
    rows["svdcache N=5 + compile"] = {**_every(5), **compiled}
    return [Row(name, steps, stages, 4) for name, stages in rows.items()]
