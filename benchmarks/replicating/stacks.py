"""What stands with SVD-Cache, table 4: weights in 8 bits, sparse attention of 256 tokens, a few-step LoRA, and all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from replicating.bench import Bench, Case, Setting

STAGES: dict[str, dict[str, Any]] = {
    "int8": {"quantize": {"method": "torchao", "scheme": "int8"}},
    "sparse": {"attention": {"method": "sparse", "block_size": 16}},
}
"""Of 16 blocks of 16 image tokens each head keeps as many as lose it at most .05 of its output, by calibration."""
HALF = {"attention": {"method": "sparse", "keep": 0.5, "block_size": 16}}
FEW = {"distill": {"method": "lora", "preset": "tiny-4step"}}
SMALL = {"attention": {"method": "sparse", "block_size": 4}}
"""On the embedded model's 64 tokens."""
CACHES = (4,)


def table_4() -> Iterator[tuple[Setting, Any]]:
    """Twin-flux2; and the embedded model with its LoRA, of which the uncached run is the LoRA's."""
    yield Setting("flux2", calibration=8), stacks
    yield Setting("tiny", stages=FEW), few_steps
    yield Setting("flux2", seed=2000, part=0.5, calibration=8), stacks


def stacks(bench: Bench) -> Iterator[Case]:
    """Every stage alone, SVD-Cache with each of them, and all."""
    group = "stacks"
    chosen = [some for count in range(3) for some in itertools.combinations(STAGES, count)]
    for some, interval in itertools.product(chosen, (0, *CACHES)):
        stages = {stage: fields for name in some for stage, fields in STAGES[name].items()}
        if interval:
            stages["cache"] = {"method": "svdcache", "interval": interval}
        title = _title(*some, *([f"svdcache N={interval}"] if interval else []))
        against = f"svdcache N={interval}" if interval else "no cache"
        yield Case(
            group,
            title,
            lambda stages=stages: bench.stack(None, **stages),
            against if title not in (against,) else None,
        )
    yield Case(group, "sparse, half of the blocks", lambda: bench.stack(**HALF), "no cache")
    for interval in CACHES:
        yield from bench.fewer_steps(group, f"svdcache N={interval}", f"N={interval}", -(-bench.steps // interval))


def few_steps(bench: Bench) -> Iterator[Case]:
    """With a LoRA of 4 steps a cache skips one or two of them; beside it the LoRA with fewer steps."""
    group = "few steps"
    parts = {"int8": STAGES["int8"], "sparse": SMALL}
    caches: dict[str, dict[str, Any]] = {
        "svdcache, 3 of 4 full": {"method": "svdcache", "schedule": [0, 1, 2]},
        "svdcache, 2 of 4 full": {"method": "svdcache", "schedule": [0, 2], "predictor": "reuse"},
    }
    both = {stage: one for stages in parts.values() for stage, one in stages.items()}
    yield bench.uncached(group)
    for name, stages in parts.items():
        yield Case(group, name, lambda stages=stages: bench.stack(**stages), "no cache")
    for name, cache in caches.items():
        yield Case(group, name, lambda cache=cache: bench.stack(cache=cache), "no cache")
        title = _title(*parts, name)
        yield Case(group, title, lambda cache=cache: bench.stack(**both, cache=cache), name)
    for steps in (3, 2):
        yield Case(
            group,
            f"no cache, {steps} steps",
            lambda steps=steps: bench.sampled(steps),
            f"svdcache, {steps} of 4 full",
        )


def _title(*names: str) -> str:
    return " + ".join(names) or "no cache"
