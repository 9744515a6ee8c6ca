"""Scores a pipeline folder with the checker on held-out captions.

PYTHONPATH=benchmarks python -m testbed.score adapters/ditstack_adapters/model/embedded/tiny --prompts 256
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

from ditstack_adapters.model.embedded.checker import score
from ditstack_adapters.model.embedded.render import SIDE
from ditstack_adapters.model.embedded.shapes import unseen_prompts
from testbed.words import LENGTH


def asking(
    prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, side: int, length: int
) -> dict[str, Any]:
    """What a pipeline is called with that is guided by an empty prompt: square pictures, a noise seed for each.

    Args:
        length: most tokens of a prompt.
    """
    return {
        "prompt": list(prompts),
        "negative_prompt": [""] * len(prompts),
        "true_cfg_scale": guidance,
        "height": side,
        "width": side,
        "num_inference_steps": steps,
        "max_sequence_length": length,
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
    }


def paint(pipe: FluxPipeline, prompts: list[str], steps: int, guidance: float, seed: int, size: int = 32) -> np.ndarray:
    """(N, S, S, 3) pictures in [0, 1], `size` at once. Every prompt has a noise seed of its own."""
    pictures = []
    for at in range(0, len(prompts), size):
        part = prompts[at : at + size]
        seeds = range(seed + at, seed + at + len(part))
        result: Any = pipe(**asking(part, seeds, steps, guidance, SIDE, LENGTH), output_type="np")
        pictures.append(result.images)
    return np.concatenate(pictures)


def evaluate(pipe: FluxPipeline, n: int, steps: int, guidance: float, seed: int = 0, level: int = 1) -> dict[str, Any]:
    """Agreement of held-out captions with their pictures, by attribute, and of shuffled captions."""
    prompts = unseen_prompts(n, seed, level)
    began = time.monotonic()
    pictures = paint(pipe, prompts, steps, guidance, seed)
    return {
        "level": level,
        "prompts": n,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "agree": score(pictures, prompts),
        "shuffled": score(pictures, prompts[1:] + prompts[:1])["all"],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--steps", type=int, nargs="+", default=[28])
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--lora", type=Path, help="a folder of LoRA weights to load")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    given = parser.parse_args()
    pipe = FluxPipeline.from_pretrained(given.folder)
    if given.lora:
        pipe.load_lora_weights(str(given.lora))
    pipe.set_progress_bar_config(disable=True)
    results = []
    for steps in given.steps:
        for guidance in given.guidance:
            results.append(evaluate(pipe, given.prompts, steps, guidance, level=given.level))
            print(json.dumps(results[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
