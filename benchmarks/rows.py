"""Policies that tell rows apart, beside the default cache at equal mean multiply-accumulates.

    PYTHONPATH=benchmarks nice -n 5 python benchmarks/rows.py --model tiny --prompts 96

Settings were chosen on sixteen other prompts of the embedded model. The second model, benchmarks/twins/dit (DDIM, true
guidance 4 in one batched pass), is one that nothing was chosen on.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from ditstack.maths import fidelity, schedule
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.model.embedded import shapes
from results import add_row
from twinning.twin import find

BATCH, STEPS = 16, 50
DEFAULT = "svdcache"
CACHES: dict[str, dict[str, Any]] = {
    "svdcache, 13 full steps": {"method": DEFAULT, "interval": 4},
    "svdcache, 10 full steps": {"method": DEFAULT, "interval": 5},
    "svdcache, 9 full steps": {"method": DEFAULT, "interval": 6},
    "svdcache, 33 full steps": {"method": DEFAULT, "schedule": list(schedule.graded(STEPS, 33))},
    "svdcache, 25 full steps": {"method": DEFAULT, "interval": 2},
    "svdcache, 19 full steps": {"method": DEFAULT, "schedule": list(schedule.graded(STEPS, 19))},
    "svdcache, 17 full steps": {"method": DEFAULT, "interval": 3},
    "guidance direction: full, half, full, half": {"method": "halves", "interval": 1, "every": 2},
    "guidance direction: full, half, half": {"method": "halves", "interval": 1, "every": 3},
    "guidance direction: full, none, half, none": {"method": "halves", "interval": 2, "every": 2},
    "guidance direction: full, none, half, none, half, none": {"method": "halves", "interval": 2, "every": 3},
    "guidance cache": {"method": "halves", "interval": 4, "every": 2},
    "guidance cache without the difference": {"method": "halves", "interval": 4, "every": 2, "difference": False},
    "guidance off after .8": {"method": "halves", "interval": 5, "every": 1, "guided_to": 0.8},
    "guidance off before .1": {"method": "halves", "interval": 5, "every": 1, "guided_from": 0.1},
    "threshold by row, .3": {"method": "firstblock", "threshold": 0.3},
    "threshold by row, .5": {"method": "firstblock", "threshold": 0.5},
    "error-controlled, tolerance .07": {"method": "paced", "interval": 4, "tolerance": 0.07},
    "error-controlled, tolerance .06": {"method": "paced", "interval": 5, "tolerance": 0.06},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "dit"], default="tiny")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORD", help="those whose name holds one of these")
    wanted = parser.parse_args()
    base, prompts = asked(wanted.model, wanted.prompts)
    told = {"steps": base.sampler.steps, "guidance": {"tiny": 3.0, "dit": 4.0}}
    plain = made(load(base), prompts)
    for name, cache in CACHES.items():
        if any(word in name for word in wanted.only):
            figures = beside(made(load(base.with_(cache=cache)), prompts), plain)
            row = {"name": name, "model": wanted.model, "prompts": len(prompts), "cache": cache, **figures}
            add_row("rows", told, row, ("name", "model"))


def asked(model: str, count: int) -> tuple[Recipe, list[str]]:
    """The plain recipe of 50 steps, and prompts that nothing was chosen on."""
    if model == "tiny":
        return Recipe.read("tiny", [f"sampler.steps={STEPS}"]), shapes.unseen_prompts(count, 7)
    return Recipe.read("benchmarks/twins/dit.yaml", [f"sampler.steps={STEPS}"]), find("dit").prompts(count, 7)


def made(stack: Stack, prompts: list[str]) -> dict[str, Any]:
    """Pictures, and what each of them cost."""
    parts = [
        stack.sample(prompts[at : at + BATCH], [1000 + place for place in range(at, min(at + BATCH, len(prompts)))])
        for at in range(0, len(prompts), BATCH)
    ]
    return {
        "images": torch.cat([one.images for one in parts]),
        "macs": [each.macs for one in parts for each in one.each],
    }


def beside(one: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    shares = [macs / full for macs, full in zip(one["macs"], plain["macs"], strict=True)]
    psnr = fidelity.psnr(one["images"], plain["images"])
    return {"macs_ratio": sum(one["macs"]) / sum(plain["macs"]), "macs_each": shares, "psnr_each": psnr}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
