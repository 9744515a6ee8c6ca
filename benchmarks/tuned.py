"""What `ditstack tune` chooses on the embedded model for gates from 30 to 50 dB, samplers of few evaluations among it.

    PYTHONPATH=benchmarks python benchmarks/tuned.py --fits .cache/solver

The gate is on the mean PSNR to the plain model's 50 steps, by its low end. Fitted samplers take the numbers that
`fit_solver.py` found, in place of a hurried fit of their own; a stack is run once for all gates. Rows are added to
tuned.json one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.calibration.sampler.fit import SamplerFit, SamplerWish
from ditstack.compat import hush, hush_loading
from ditstack.factors import Factors
from ditstack.measure.bench import Trial, trial
from ditstack.recipe.recipe import Recipe
from ditstack.tuning import tune
from ditstack_adapters.model.embedded import shapes
from results import add_row

GATES, PROMPTS, SEED, STEPS = (30, 35, 40, 45, 50), 8, 7, 50
AXES = {"quantize": ["none"], "attention": ["none"], "cache": ["svdcache"], "distill": ["none", "solver", "lora"]}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=Path, required=True, help="where fit_solver.py left its files")
    given = parser.parse_args()
    hush()
    hush_loading()
    _take_fits(given.fits)
    known: dict[str, Trial] = {}

    def once(recipe: Recipe, prompts: list[str], **how: Any) -> Trial:
        said = {key: one for key, one in recipe.resolved().items() if key not in ("quality", "prompts", "calibration")}
        key = json.dumps([said, prompts], sort_keys=True)
        if key not in known:
            known[key] = trial(recipe, prompts, **how)
        return known[key]

    tune.trial = once
    with tempfile.TemporaryDirectory() as home:
        os.environ["DITSTACK_HOME"] = home
        for gate in GATES:
            base = Recipe.read("tiny", [f"sampler.steps={STEPS}", f"quality.psnr_min={gate}"])
            tuner = tune.Tuner(base, base.quality, shapes.unseen_prompts(PROMPTS, SEED), AXES, 0, _tell)
            row = _row(tuner, tuner.choose())
            add_row("tuned", {"prompts": PROMPTS, "steps": STEPS}, {"model": "tiny", "gate": gate, **row}, ("gate",))


def _row(tuner: tune.Tuner, choice: tune.Chosen | None) -> dict[str, Any]:
    if choice is None:
        return {"chosen": None, "nearest": tuner.nearest()}
    run = choice.run
    own = {name: run.outcome.to_baseline[name].mean for name in ("psnr", "psnr_p5")}
    # speeds of single pairs on a shared machine differ more than multiply-accumulates do: both stand in the table
    return {"chosen": str(run.option), "speedup": run.speedup, "macs": run.macs_ratio, **own, "reasons": choice.reasons}


def _take_fits(folder: Path) -> None:
    """Let a fit of the sampler be the one that was made before."""

    def begin(self: SamplerFit, pipe: Any, calibration: Any, wish: SamplerWish) -> None:
        self.wish = wish

    def tensors(self: SamplerFit) -> dict[str, Tensor]:
        return Factors.load(folder / f"tiny-{self.wish.evaluations}.safetensors").tensors

    SamplerFit.__init__, SamplerFit.tensors = begin, tensors


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
