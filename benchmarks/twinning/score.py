"""Scores a twin's folder: the share of its pictures that agree with their prompts, by the checker.

PYTHONPATH=benchmarks python -m twinning.score dit benchmarks/twins/dit --prompts 120
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from twinning.twin import NAMES, Twin, find

AT_ONCE = 32  # pictures


def open_folder(folder: Path) -> Any:
    """The pipeline that an export wrote, in fp32."""
    pipe = DiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def paint(twin: Twin, pipe: Any, prompts: Sequence[str], steps: int, guidance: float, seed: int = 0) -> Tensor:
    """One picture a prompt, each from noise of its own."""
    parts = []
    for at in range(0, len(prompts), AT_ONCE):
        part = prompts[at : at + AT_ONCE]
        seeds = range(seed + at, seed + at + len(part))
        parts.append(twin.paint(pipe, part, steps, guidance, seeds).float())
    return torch.cat(parts)


def shares(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    """By attribute: of the prompts that name it, the share whose picture agrees; `all`: in every one."""
    named: dict[str, list[bool]] = {}
    for verdict in verdicts:
        for name, right in verdict.items():
            named.setdefault(name, []).append(right)
    each = {name: float(np.mean(values)) for name, values in named.items()}
    return {"all": float(np.mean([all(verdict.values()) for verdict in verdicts])), **each}


def evaluate(
    twin: Twin, pipe: Any, count: int, steps: int, guidance: float, seed: int = 0, exact: bool = False
) -> dict[str, Any]:
    """Agreement of prompts with their pictures, by attribute, and of shuffled prompts; in bf16 unless `exact`."""
    prompts = twin.prompts(count, seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=not exact):
        made = paint(twin, pipe, prompts, steps, guidance, seed)
    shuffled = shares(twin.agreement(made, [*prompts[1:], prompts[0]]))["all"]
    agree = shares(twin.agreement(made, prompts))
    return {
        "prompts": count,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "precision": "fp32" if exact else "bf16 autocast",
        "agree": agree,
        "shuffled": shuffled,
        "finite": bool(made.isfinite().all()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("twin", choices=NAMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--steps", type=int, nargs="*")
    parser.add_argument("--guidance", type=float, nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--exact", action="store_true", help="fp32: half as fast")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    twin, pipe = find(given.twin), open_folder(given.folder)
    for steps in given.steps or [twin.steps]:
        for guidance in given.guidance or [twin.guidance]:
            score = evaluate(twin, pipe, given.prompts, steps, guidance, given.seed, given.exact)
            print(json.dumps(score), flush=True)


if __name__ == "__main__":
    main()
