"""Our caches beside their peers and controls: the same prompts, seeds and number of full steps, on the embedded model.

    python benchmarks/peers.py [--prompts 64] [--steps 50] [--full 12 9 7] [--resume peers.json [--again WORD ...]]

Pictures are compared with the uncached ones. Peers have the best of several settings, by PSNR on prompts that were seen
in training; ours are not chosen. Figures are on unseen prompts. Writes benchmarks/results/<machine>_<date>/peers.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import settings
from cachedit import CacheDit
from ditstack.compat import hush, hush_loading
from ditstack.maths import fidelity
from ditstack.maths.schedule import even, graded
from ditstack.pipeline.pipe import FULL
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load
from ditstack_adapters.model.embedded import shapes
from rehearse import paint, pipeline
from results import AGAIN, kept_rows, write
from sampled import BATCH, sampled
from svdcache import SOLVER, stacked

TRIALS, FEW = 8, 4
SOLVERS = {"Euler": None, "DPM-Solver++ 2M": SOLVER["scheduler"], "UniPC": "UniPCMultistepScheduler"}
SEARCHED = {
    (50, 12): "FSSSFSSSFSSSFRSSFSSCRFCSSSFSSSSSFSCSSFSSCSSCSFSSFS",
    (50, 9): "FSSSSFSSSSFSSSSFSSSSSFSSRRFSSSSSSRSFSSSSFSSSSSSFSS",
    (50, 7): "FSSSSSFSSSSSFSSRSSSFSSRRRSSFSRSSRSSRSFSSSSSSSSFSSS",
}
"""What `ditstack search` found on 48 prompts of training, by steps and by the full steps that it may cost."""
NOT_RUN = {
    "diffusers PyramidAttentionBroadcast, FasterCache": "they skip attention alone, so no step count compares",
    "FastCache, MixCache": "no code to install",
}


@dataclass
class Prompts:
    """What is painted, and how it looks without a cache."""

    texts: list[str]
    seeds: list[int]
    uncached: torch.Tensor


@dataclass
class Outcome:
    """Pictures, the steps that ran in full (a mean over prompts, the least, the most), and the cost."""

    images: torch.Tensor
    full: tuple[float, float, float]
    macs_ratio: float


Run = Callable[[Prompts], Outcome]
"""One setting of one contestant."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--full", type=int, nargs="+", default=[12, 9, 7])
    parser.add_argument("--resume", type=Path, help="a results file whose rows are kept")
    parser.add_argument("--again", nargs="+", default=[], help=AGAIN)
    wanted = parser.parse_args()
    hush()
    hush_loading()
    base = Recipe.read("tiny", [f"sampler.steps={wanted.steps}"]).resolved()
    field = Field(base, wanted.steps, shapes.unseen_prompts(wanted.prompts, 7))
    told = {"prompts": wanted.prompts, "steps": wanted.steps, "resolved": base, "not_run": NOT_RUN}
    rows = kept_rows(wanted.resume, wanted.again)
    for count in wanted.full:
        known = {row["name"] for row in rows if row["asked"] == count}
        for name, kind, candidates in entries(field, count):
            if name not in known:
                rows.append({"name": name, "kind": kind, "asked": count, **measure(field, candidates)})
                print(summary(rows[-1]), flush=True)
                write("peers", {**told, "rows": rows})


def summary(row: dict[str, Any]) -> str:
    figures = f"{row['psnr'][0]:6.2f} dB {row['ssim'][0]:.4f} of full MACs {row['macs_ratio']:.3f}"
    return f"{row['asked']:3d} {row['name']:32s} {figures} full {row['full']} {row['setting']}"


def entries(field: Field, count: int) -> Iterator[tuple[str, str, Iterable[tuple[str, Run]]]]:
    """Everyone at one number of full steps: a name, its kind, and settings to choose from."""
    steps = field.steps
    for solver, kind in SOLVERS.items():
        yield f"fewer {solver} steps", "control", [("", field.fewer(count, kind))]
    reuse = {"schedule": list(even(steps, count)), "predictor": "reuse"}
    yield "reuse (FORA)", "control", [("even", field.ours(reuse))]
    for lite, label in ((False, ""), (True, " lite")):
        yield f"diffusers TaylorSeer{label}", "peer", field.cached(settings.taylorseer(steps, count, lite))
    yield "diffusers FirstBlockCache", "peer", field.cached(settings.fbcache(count, field.ran))
    yield "diffusers MagCache", "peer", field.cached(settings.magcache(steps, count, field.ratios, field.ran))
    for forecast, label in ((None, ""), ("taylorseer", " + TaylorSeer"), ("foca", " + FoCa"), ("dmd", " + DMD")):
        yield f"cache-dit DBCache{label}", "peer", field.by_cachedit(settings.cachedit(steps, count, forecast))
    on_even, on_graded = {"schedule": list(even(steps, count))}, {"schedule": list(graded(steps, count))}
    fitted = {**on_graded, "predictor": "fitted"}
    yield "svdcache (default)", "ours", [("graded, order 1", field.ours(on_graded))]
    yield "svdcache, even", "ours", [("even, order 1", field.ours(on_even))]
    yield "svdcache, fitted gains", "ours", [("graded", field.ours(fitted))]
    if (steps, count) in SEARCHED:
        schedule = SEARCHED[steps, count]
        yield "mixed, searched", "ours", [(schedule, field.mixed(schedule))]


def measure(field: Field, candidates: Iterable[tuple[str, Run]]) -> dict[str, Any]:
    """The best of some settings on seen prompts, and its figures on unseen ones."""
    tried = []
    for label, run in candidates:
        psnr = fidelity.psnr(run(field.seen).images, field.seen.uncached)
        tried.append((statistics.fmean(psnr), label, run))
    best, label, run = max(tried, key=lambda one: one[0])
    made = run(field.unseen)
    psnr = fidelity.psnr(made.images, field.unseen.uncached)
    ssim = fidelity.ssim(made.images, field.unseen.uncached)
    return {
        "full": made.full,
        "setting": label,
        "settings_tried": len(tried),
        "psnr_on_seen": best,
        "macs_ratio": made.macs_ratio,
        "psnr": fidelity.bootstrap(psnr),
        "ssim": fidelity.bootstrap(ssim),
        "psnr_each": psnr,
        "ssim_each": ssim,
    }


class Field:
    """Where everyone runs: one model, one sampler, prompts to choose settings on and prompts to measure on."""

    def __init__(self, base: dict[str, Any], steps: int, prompts: list[str]) -> None:
        self.base, self.steps = base, steps
        plain = load(Recipe.parse(base, "uncached"))
        self.seen = uncached(plain, shapes.seen_prompts(TRIALS, 5), 500)
        self.macs = plain.pipe.passes.macs / TRIALS
        self.unseen = uncached(plain, prompts, 1000)
        self.process = CacheDit("tiny")
        self.ratios = settings.magnitudes(self._calibrate, steps)

    def fewer(self, count: int, scheduler: str | None) -> Run:
        """No cache, but fewer steps of a solver; None is Euler."""
        changes: dict[str, Any] = {"sampler.steps": count, "sampler.solver": scheduler is not None}
        data = stacked("control", {**self.base, **changes}).resolved()
        sampler = data["sampler"] if scheduler is None else {**data["sampler"], "scheduler": scheduler}
        return partial(self.paint, Recipe.parse({**data, "sampler": sampler}, "control"))

    def ours(self, fields: dict[str, Any]) -> Run:
        """SVD-Cache; gains are fitted once, to other prompts."""
        return partial(self.paint, stacked("ours", {**self.base, **fields}))

    def mixed(self, schedule: str) -> Run:
        """A letter for each step; where there are calibrated ones, their factors are fitted once, to other prompts."""
        file = Path(tempfile.mkdtemp()) / "factors.safetensors"
        fitted = {"macs": 0.16, "calibrate": "auto", "factors": str(file)} if "C" in schedule else {}
        data = {**self.base, "cache": {"method": "mixed", "schedule": schedule, **fitted}}
        return partial(self.paint, Recipe.parse({**data, "calibration": shapes.seen_prompts(16, 3)}, "ours"))

    def cached(self, candidates: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Run]]:
        """Caches that a recipe can name."""
        for label, stage in candidates:
            yield label, partial(self.paint, Recipe.parse({**self.base, "cache": stage}, label))

    def by_cachedit(self, candidates: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, Run]]:
        for label, job in candidates:
            yield label, partial(self.ask, job)

    def paint(self, recipe: Recipe, prompts: Prompts) -> Outcome:
        """Run a recipe. A cache that decides for the whole batch gets one picture at a time."""
        stack, images, full, spent = load(recipe), [], [], 0
        together = BATCH if all(adapter.per_item for _, adapter in recipe.stages()) else 1
        for at in range(0, len(prompts.texts), together):
            made = stack.sample(prompts.texts[at : at + together], prompts.seeds[at : at + together])
            tally = stack.pipe.passes.kinds
            images.append(made.images)
            full += [tally[FULL] * stack.pipe.clock.steps / tally.total()] * len(made.images)
            spent += made.macs
        ran = (statistics.fmean(full), min(full), max(full))
        return Outcome(torch.cat(images), ran, spent / (self.macs * len(prompts.texts)))

    def ask(self, job: dict[str, Any], prompts: Prompts) -> Outcome:
        """Run a job of cache-dit's, in its own process."""
        ratio = self.process.ask("cache", **job)["macs_ratio"]
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/pictures.safetensors"
            guidance = self.base["sampler"]["guidance"]
            full = self.process.ask("paint", prompts=prompts.texts, seeds=prompts.seeds, guidance=guidance, file=file)
            images = load_file(file)["images"]
        return Outcome(images, (full["full"],) * 3, ratio)

    def ran(self, stage: dict[str, Any]) -> float:
        """How many steps a cache runs in full on the first seen prompts."""
        few = Prompts(self.seen.texts[:FEW], self.seen.seeds[:FEW], self.seen.uncached[:FEW])
        return self.paint(Recipe.parse({**self.base, "cache": stage}, "trial"), few).full[0]

    def _calibrate(self, config: Any) -> None:
        pipe = pipeline("tiny")
        pipe.transformer.enable_cache(config)
        paint(pipe, self.seen.texts, self.seen.seeds, self.steps, self.base["sampler"]["guidance"])


def uncached(plain: Stack, prompts: list[str], first_seed: int) -> Prompts:
    seeds = [first_seed + place for place in range(len(prompts))]
    return Prompts(prompts, seeds, sampled(plain, prompts, first_seed)[0])


if __name__ == "__main__":
    main()
