"""Whether a subspace pays: forms of the principal part beside full-space first order, at equal full steps.

    PYTHONPATH=benchmarks python benchmarks/subspace.py --models tiny dit dit@1.5 flux2 pixart [--prompts 24]

Seven full steps of 28, graded. Bases are offline, over sixteen calibration prompts. What is chosen or fitted is so on
half of them, and decided on the other half. "Predictable" directions are those of the whole space in which second order
foretells the next full step better than first order does; how many of them take it is chosen in closed loop.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from defaults import SEED, Model, pictures
from ditstack.assembly.build import build
from ditstack.assembly.sample import sample
from ditstack.caching.features import FeatureCache
from ditstack.calibration.choice import halves
from ditstack.calibration.gains import plain_gains, principal_bases, tune_gains
from ditstack.calibration.run import CalibrationRun
from ditstack.compat import hush, hush_loading
from ditstack.factors import fingerprint
from ditstack.maths import fidelity
from ditstack.maths.predictors import lagrange
from ditstack.maths.schedule import graded
from ditstack.pipeline.pipe import Pipe
from ditstack_adapters.cache.svdcache import SvdCache
from results import add_row, place_of

STEPS, FULL, RANK = 28, 7, 16
CUTS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the directions that may take second order."""
ORDER_2_INSIDE = {"gains": torch.tensor([[1.0, 1.0, 1.0, 0.0]])}
TOGETHER = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "dit", "dit@1.5", "flux2", "pixart"])
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--without", default="nothing", help="forms whose name holds this word are left out")
    wanted = parser.parse_args()
    hush()
    hush_loading()
    for word in wanted.models:
        Subspace(Model(word, 32), wanted.prompts).measure(wanted.without)


class Subspace:
    """The forms on one model."""

    def __init__(self, model: Model, prompts: int) -> None:
        self.model, self.prompts, self.plain = model, model.prompts[:prompts], model.plain(STEPS)
        self.full = graded(STEPS, FULL)
        self.pipe: Pipe = build(self.plain.with_(cache=self.fields()))
        self.run = CalibrationRun(self.pipe, model.calibration, self.plain.sampler, print)
        self.store = FeatureCache.on(self.pipe)

    def fields(self, **more: Any) -> dict[str, Any]:
        return {"method": "svdcache", "schedule": list(self.full), **more}

    def measure(self, without: str) -> None:
        aims = pictures(self.plain, self.model.prompts, SEED, fingerprint(self.pipe.transformers))[: len(self.prompts)]
        for name, cache, tensors in self.forms(without):
            self.use(cache, tensors)
            made = sample(self.pipe, self.prompts, [SEED + at for at in range(len(self.prompts))], self.plain.sampler)
            row = {"model": self.model.word, "name": name, "prompts": len(self.prompts)}
            row["psnr_each"] = fidelity.psnr(made.images, aims)
            add_row("subspace", {"steps": STEPS, "full": FULL}, row, ("model", "name"))
            print(f"{self.model.word} {name}: {fmean(row['psnr_each']):.2f} dB", flush=True)

    def use(self, cache: SvdCache, tensors: dict[str, Tensor]) -> None:
        self.store.make = lambda site: cache._predictor(site, self.store.factors)
        cache.take(self.pipe, tensors)

    def forms(self, without: str) -> Iterator[tuple[str, SvdCache, dict[str, Tensor]]]:
        """Those that are not measured yet."""
        file = place_of("subspace")
        known = json.loads(file.read_text())["rows"] if file.is_file() else []
        there = {row["name"] for row in known if row["model"] == self.model.word}
        for name, form in FORMS.items():
            if name not in there and without not in name:
                yield name, *form(self)

    def simple(self, order: int) -> tuple[SvdCache, dict[str, Tensor]]:
        return SvdCache(order=order, coordinate="step"), {}

    def inside(self, rank: int) -> tuple[SvdCache, dict[str, Tensor]]:
        self.use(*self.simple(1))
        return SvdCache(rank=rank), principal_bases(self.store, self.run, rank, None)

    def second_inside(self) -> tuple[SvdCache, dict[str, Tensor]]:
        return SvdCache(predictor="fitted"), {**self.inside(RANK)[1], **ORDER_2_INSIDE}

    def gains(self, split: bool) -> tuple[SvdCache, dict[str, Tensor]]:
        bases = self.inside(RANK)[1] if split else {}
        cache = SvdCache(predictor="fitted")
        self.use(cache, {**bases, **plain_gains(FULL)})
        return cache, tune_gains(self.store, self.run, bases, FULL, split)

    def predictable(self, beyond: bool) -> tuple[SvdCache, dict[str, Tensor]]:
        """Second order in as many directions as is best in closed loop, or in none, the most predictable first.

        Args:
            beyond: whether those may take it, too, in which it foretells the next full step worse than first order.
        """
        directions, cache = self.directions(beyond), SvdCache(predictor="fitted")
        fitting, deciding = halves(self.run)
        trials = {share: cut(directions, share) for share in CUTS}
        best = max(trials, key=lambda share: fmean(self.scores(cache, trials[share], fitting)))
        gain = fidelity.paired(*(self.scores(cache, trials[share], deciding) for share in (best, 0.0)))
        print(f"{best} of {[one.shape[1] for one in directions.values()]} directions: {gain}", flush=True)
        return cache, trials[best if gain[1] > 0 else 0.0]

    def scores(self, cache: SvdCache, tensors: dict[str, Tensor], places: list[int]) -> list[float]:
        self.use(cache, tensors)
        found = []
        for at in range(0, len(places), TOGETHER):
            part = places[at : at + TOGETHER]
            found += fidelity.decibels(self.run.latents(part), self.run.uncached_latents(part))
        return found

    def directions(self, beyond: bool) -> dict[str, Tensor]:
        """Of each site, those in which second order foretells full steps better, the surest first; or all of them."""
        whole = self.inside(100_000)[1]
        known: dict[Any, list[tuple[Tensor, float]]] = {}
        won: dict[str, Tensor] = {}

        def watch(site: str, feature: Tensor) -> None:
            at = float(self.pipe.clock.index)
            key = site, self.pipe.clock.branch
            past = known.get(key, []) if at else []
            z = feature @ whole[f"{site}.basis"].to(feature)
            if len(past) >= 3:
                errors = [_error(past[-order - 1 :], z, at) for order in (1, 2)]
                won[site] = won.get(site, torch.zeros(2, z.shape[-1])) + torch.stack(errors)
            known[key] = [*past, (z, at)]

        self.use(*self.simple(1))
        self.store.listeners.append(watch)
        try:
            for place in range(len(self.run.prompts) // 2):
                self.run.latents([place])
        finally:
            self.store.listeners.remove(watch)
        found = {}
        for site, (first, second) in won.items():
            order = (second / first.clamp_min(1e-12) if beyond else second - first).argsort()
            kept = order if beyond else order[second[order] < first[order]]
            found[site] = whole[f"{site}.basis"][:, kept]
        return found


def _error(past: list[tuple[Tensor, float]], z: Tensor, at: float) -> Tensor:
    weights = lagrange([when for _, when in past], at)
    forecast = sum(one * weight for (one, _), weight in zip(past, weights, strict=True))
    return (forecast - z).square().flatten(0, -2).sum(0)


def cut(directions: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    bases = {f"{site}.basis": one[:, : round(share * one.shape[1])] for site, one in directions.items()}
    return {**bases, **ORDER_2_INSIDE}


FORMS = {
    "whole space, order 1": lambda one: one.simple(1),
    "whole space, order 2": lambda one: one.simple(2),
    f"order 1 in {RANK} directions, the rest reused": lambda one: one.inside(RANK),
    f"order 1 in {4 * RANK} directions, the rest reused": lambda one: one.inside(4 * RANK),
    f"order 2 in {RANK} directions, order 1 in the rest": lambda one: one.second_inside(),
    "order 2 in predictable directions, order 1 in the rest": lambda one: one.predictable(beyond=False),
    "order 2 in as many directions as pay, the most predictable first": lambda one: one.predictable(beyond=True),
    "gains for each full step, whole space": lambda one: one.gains(split=False),
    f"gains for each full step, {RANK} directions apart": lambda one: one.gains(split=True),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
