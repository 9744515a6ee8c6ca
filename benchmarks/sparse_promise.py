"""Does a sparse tolerance hold on pictures that it was not calibrated on? On the embedded model, every head and call.

    python benchmarks/sparse_promise.py [--prompts 64] [--calibration 16] [--steps 8] [--tolerance 0.1]

Every call is compared with dense attention on its own queries, keys and values. Writes
benchmarks/results/<machine>_<date>/sparse_promise.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile

import torch

from ditstack.attention.sparse import SparseKernel
from ditstack.compat import hush, hush_loading
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack_adapters.model.embedded import shapes
from results import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tolerance", type=float, default=0.1)
    wanted = parser.parse_args()
    os.environ["DITSTACK_HOME"] = tempfile.mkdtemp()
    hush()
    hush_loading()
    attention = {"method": "sparse", "tolerance": wanted.tolerance, "block_size": 4, "calibrate": "auto"}
    data = {**Recipe.read("tiny", [f"sampler.steps={wanted.steps}"]).resolved(), "attention": attention}
    told: list[str] = []
    stack = load(Recipe.parse({**data, "calibration": shapes.seen_prompts(wanted.calibration, 3)}), told.append)
    kernel = stack.pipe.attention.kernel if stack.pipe.attention is not None else None
    assert isinstance(kernel, SparseKernel)
    worst, calls, over = [], 0, 0
    for place, prompt in enumerate(shapes.unseen_prompts(wanted.prompts, 7)):
        with kernel.watching() as lost:
            stack.sample([prompt], [1000 + place])
        each = torch.cat([one.flatten() for one in lost.values()])
        worst.append(float(each.max()))
        calls, over = calls + len(each), over + int((each > wanted.tolerance).sum())
    kept = sum(one <= wanted.tolerance for one in worst)
    print(f"{told[-1]}\n{kept} of {len(worst)} pictures within {wanted.tolerance:g}; worst {max(worst):.3f}")
    figures = {"worst_each": worst, "pictures_kept": kept, "calls": calls, "calls_over": over, "told": told[-1]}
    write("sparse_promise", {**vars(wanted), "resolved": data, **figures})


if __name__ == "__main__":
    main()
