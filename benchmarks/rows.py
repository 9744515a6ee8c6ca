"""Policies that tell rows apart, beside the default cache at equal mean multiply-accumulates.

    PYTHONPATH=benchmarks nice -n 5 python benchmarks/rows.py --model tiny --prompts 96

Settings were chosen on sixteen other prompts of the embedded model; on the twins, all with true guidance, nothing was.
What is said to be chosen was so by `benchmarks/guidance_choice.py`, for each model on sixteen other pictures. What is
regressed has coefficients fitted on calibration prompts of each model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

import guidance
from ditstack.maths import fidelity, schedule
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.model.embedded import shapes
from results import add_row
from twinning.twin import find

BATCH, STEPS = 16, 50
MODELS = {"tiny": (STEPS, 3.0), "dit": (STEPS, 4.0), "pixart": (STEPS, 4.5)}
"""Steps, and guidance."""
DEFAULT = "svdcache"
REGRESSED = {"method": "halves", "every": 1, "regressed": True, "calibrate": "auto"}
CACHES: dict[str, dict[str, Any]] = {
    "svdcache, 13 full steps": {"method": DEFAULT, "interval": 4},
    "svdcache, 11 full steps": {"method": DEFAULT, "schedule": list(schedule.graded(STEPS, 11))},
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
    "guidance regressed after .8": {**REGRESSED, "interval": 4.6, "guided_to": 0.8},
    "guidance regressed after .6": {**REGRESSED, "interval": 4.2, "guided_to": 0.6},
    "threshold by row, .3": {"method": "firstblock", "threshold": 0.3},
    "threshold by row, .5": {"method": "firstblock", "threshold": 0.5},
    "error-controlled, tolerance .07": {"method": "paced", "interval": 4, "tolerance": 0.07},
    "error-controlled, tolerance .06": {"method": "paced", "interval": 5, "tolerance": 0.06},
}
CHOSEN: dict[str, dict[str, tuple[guidance.Steps, guidance.Steps]]] = {
    "dit": {
        "both halves": ((0, 4, 9, 12, 16, 19, 24, 31, 35, 47), (0, 4, 9, 12, 16, 19, 24, 31, 35, 47)),
        "guidance regressed": ((0, 3, 6, 9, 13, 18, 22, 26, 32, 34, 43), (0, 3, 9, 13, 18, 22, 26, 32, 43)),
    },
    "pixart": {
        "both halves": ((0, 1, 8, 12, 17, 20, 24, 31, 37, 45), (0, 1, 8, 12, 17, 20, 24, 31, 37, 45)),
        "guidance regressed": ((0, 3, 6, 9, 13, 18, 22, 27, 32, 33, 44, 47), (0, 3, 6, 13, 18, 22, 27, 44)),
    },
}
"""Full steps of the conditional half, and of the unconditional one: twenty in all."""
FITTED_ON, FIT_SEED = 12, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="tiny")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORD", help="those whose name holds one of these")
    wanted = parser.parse_args()
    model, words = wanted.model, wanted.only
    base, prompts = asked(model, wanted.prompts)
    plain = made(load(base), prompts)
    stacks: dict[str, tuple[dict[str, Any], Callable[[], Stack]]] = {
        name: (cache, lambda cache=cache: load(base.with_(cache=cache))) for name, cache in CACHES.items()
    }
    for kind, (cond, uncond) in CHOSEN.get(model, {}).items():
        name = f"{kind}, chosen schedule"
        cache = {"full": cond, "full of the unconditional half": uncond}
        stacks[name] = cache, lambda cond=cond, uncond=uncond: regressed(model, base, cond, uncond)
    for name, (cache, stand) in stacks.items():
        if any(word in name for word in words):
            figures = beside(made(stand(), prompts), plain)
            row = {"name": name, "model": model, "prompts": len(prompts), "cache": cache, **figures}
            add_row("rows", {"steps": STEPS}, row, ("name", "model"))


def regressed(model: str, base: Recipe, cond: guidance.Steps, uncond: guidance.Steps) -> Stack:
    """Under the guidance cache, its coefficients fitted on prompts that are not measured."""
    few = prompts_of(model, FITTED_ON, FIT_SEED)
    record = guidance.recorded(base, few) if uncond != cond else {}
    return guidance.standing(base, cond, uncond, guidance.fitted(record, cond, uncond))


def asked(model: str, count: int) -> tuple[Recipe, list[str]]:
    """The plain recipe, and prompts that nothing was chosen on."""
    steps, scale = MODELS[model]
    file = "tiny" if model == "tiny" else f"benchmarks/twins/{model}.yaml"
    return Recipe.read(file, [f"sampler.steps={steps}", f"sampler.guidance={scale}"]), prompts_of(model, count, 7)


def prompts_of(model: str, count: int, seed: int) -> list[str]:
    return shapes.unseen_prompts(count, seed) if model == "tiny" else find(model).prompts(count, seed)


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
