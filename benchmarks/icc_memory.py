"""What ICC keeps and what a calibrated step multiplies, on a 12-block FLUX of width 768 with 1,100 tokens.

    python benchmarks/icc_memory.py [--rank 96]

Writes benchmarks/results/<machine>_<date>/icc_memory.json. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from ditstack import Recipe, apply
from ditstack.caching.linears import LowRankLinears
from ditstack.calibration.statistics import LinearSurvey, seeing
from ditstack.stack import Stack
from models import embeddings, flux
from results import write

WIDTH, DOUBLE, SINGLE, TEXT_TOKENS, PIXELS = 768, 4, 8, 76, 512
TOKENS = TEXT_TOKENS + (PIXELS // 16) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=WIDTH // 8)
    wanted = parser.parse_args()
    rows = [measure(dtype, wanted.rank) for dtype in (torch.float32, torch.bfloat16)]
    sizes = {"width": WIDTH, "blocks": DOUBLE + SINGLE, "tokens": TOKENS, "rank": wanted.rank}
    write("icc_memory", {**sizes, "allowed": 9 * WIDTH + 6 * wanted.rank, "rows": rows})


def measure(dtype: torch.dtype, rank: int) -> dict[str, Any]:
    """Values kept per token and block, in the model's dtype, and the MACs of a calibrated step as a share."""
    recipe = Recipe.parse(
        {
            "model": {"method": "flux", "device": "cpu"},
            "cache": {"method": "icc", "interval": 2, "rank": 0},
            "sampler": {"steps": 2, "guidance": 3.5, "size": f"{PIXELS}x{PIXELS}"},
        },
        "flux-random-icc",
    )
    pipeline = flux(WIDTH, DOUBLE, SINGLE)
    pipeline.transformer.to(dtype)
    stack = apply(pipeline, recipe)
    LowRankLinears.on(stack.pipe).take(factors(stack, rank, dtype))
    sizes: list[int] = []
    stack.pipe.clock.on_tick.append(lambda done, steps: sizes.append(kept_bytes(stack)))
    run(stack, 2)
    share = stack.pipe.passes.shares["calibrated"]
    values = max(sizes) / dtype.itemsize / TOKENS / (DOUBLE + SINGLE)
    print(f"{dtype}: {values:.0f} values a token and block; calibrated {share:.3f} of a step")
    return {"dtype": str(dtype), "kept": values, "calibrated_share": share}


def factors(stack: Stack, rank: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random factors of the right shapes; linears that read one tensor share a B."""
    survey, linears = LinearSurvey(), LowRankLinears.on(stack.pipe).linears
    with stack.off(), seeing(linears, survey):
        run(stack, 1)
    survey.finish()
    out = {}
    for members in survey.groups():
        shapes = [survey.shapes[name] for name in members]
        out[f"{'+'.join(members)}.down"] = 0.01 * torch.randn(len(members) * rank, shapes[0][1], dtype=dtype)
        out |= {
            f"{name}.up": 0.01 * torch.randn(shape[0], rank, dtype=dtype)
            for name, shape in zip(members, shapes, strict=True)
        }
    return out


def run(stack: Stack, steps: int) -> None:
    arguments = embeddings(stack.pipeline, TEXT_TOKENS) | {"height": PIXELS, "width": PIXELS}
    with torch.inference_mode():
        stack.pipeline(**arguments, num_inference_steps=steps)


def kept_bytes(stack: Stack) -> int:
    """What the cache holds now, every storage once."""
    held = [one for memory in LowRankLinears.on(stack.pipe).memories.values() for one in memory.tensors()]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in held}.values())


if __name__ == "__main__":
    main()
