"""Gains: those of a forecast, fitted in closed loop on the final latent of the cached run.

Fitting each forecast by itself on an uncached trajectory shrinks it and makes the picture worse; the errors feed back.
So a few scalars are moved by damped Gauss-Newton steps from plain first order, and kept only where prompts that were
not fitted to gain clearly: with a 95 % interval that excludes zero.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.caching.features import FeatureCache
from ditstack.maths.fidelity import decibels, paired
from ditstack.maths.lowrank import gram, principal

if TYPE_CHECKING:
    from ditstack.recipe.calibration import Calibration

PLAIN = (1.0, 0.0, 1.0, 0.0)
NUDGE, ROUNDS, DAMPINGS = 0.1, 2, (1e-3, 1e-2, 1e-1)
TINY = 1e-12


def tune_gains(
    store: FeatureCache, calibration: Calibration, tensors: dict[str, Tensor], kept_steps: int, split: bool
) -> dict[str, Tensor]:
    """Gains for every step that a forecast may rest on, beside the tensors that the cache has already.

    Half of the prompts are fitted to, the other half decide.

    Args:
        split: whether what lies in the subspaces, whose bases are among the tensors, has gains of its own.
    """
    if kept_steps < 2:
        calibration.tell("no forecast uses two full steps; there are no gains to fit")
        return {**tensors, **plain_gains(kept_steps)}
    count = len(calibration.prompts)
    fitting, deciding = range(count // 2), range(count // 2, count)
    gains = plain_gains(kept_steps)["gains"]
    aims = [calibration.uncached_latents(part) for part in (fitting, deciding)]
    loop = _Loop(store, calibration, tensors)
    plain, best = gains, decibels(loop.run(gains, deciding), aims[1])
    for turn in range(ROUNDS):
        jacobian, gap = loop.linearise(gains, fitting, aims[0], split)
        trials = [gains + _solve(jacobian, gap, damping, gains) for damping in DAMPINGS]
        scored = [(decibels(loop.run(trial, deciding), aims[1]), trial) for trial in trials]
        score, trial = max(scored, key=lambda pair: fmean(pair[0]))
        mean, low, high = paired(score, best)
        told = f"{mean:+.2f} dB ({low:+.2f} to {high:+.2f})"
        calibration.tell(f"round {turn + 1}: final latents of prompts not fitted to are nearer by {told}")
        if low <= 0:
            break
        best, gains = score, trial
    verdict = "no clear gain over plain first order, which is kept" if gains is plain else "gains kept"
    calibration.tell(verdict)
    return {**tensors, "gains": gains}


def plain_gains(kept_steps: int) -> dict[str, Tensor]:
    """Those of plain first order."""
    return {"gains": torch.tensor(PLAIN).repeat(kept_steps, 1)}


class _Loop:
    """The cached run as a function of the gains."""

    def __init__(self, store: FeatureCache, calibration: Calibration, tensors: dict[str, Tensor]) -> None:
        self.store, self.calibration, self.tensors = store, calibration, tensors

    def run(self, gains_K4: Tensor, places: range) -> Tensor:
        with self.store.trial({**self.tensors, "gains": gains_K4}):
            return self.calibration.latents(places)

    def linearise(self, gains_K4: Tensor, places: range, aim: Tensor, split: bool) -> tuple[Tensor, Tensor]:
        """The change of the latents per gain, by finite differences, and what is missing to the aim.

        Both are relative to what each prompt misses now: it is decibels that count, not the hardest prompt.
        """
        start = self.run(gains_K4, places)
        scale = (aim - start).flatten(1).norm(dim=1, keepdim=True).clamp_min(TINY)
        columns = []
        for row in range(1, len(gains_K4)):
            for group in ((0,), (1,), (2,), (3,)) if split else ((0, 2), (1, 3)):
                trial = gains_K4.clone()
                trial[row, list(group)] += NUDGE
                columns.append((((self.run(trial, places) - start).flatten(1) / scale) / NUDGE).flatten())
        return torch.stack(columns, 1), ((aim - start).flatten(1) / scale).flatten()


def _solve(jacobian: Tensor, gap: Tensor, damping: float, gains_K4: Tensor) -> Tensor:
    """The damped Gauss-Newton step, spread over the gains' rows."""
    normal = jacobian.mT @ jacobian
    ridge = damping * normal.diagonal().mean() * torch.eye(len(normal))
    step = torch.linalg.solve(normal + ridge, jacobian.mT @ gap)
    rows = step.reshape(len(gains_K4) - 1, -1)
    rows = rows if rows.shape[1] == 4 else rows.repeat(1, 2)
    return torch.cat([torch.zeros(1, 4), rows])


def principal_bases(
    store: FeatureCache, calibration: Calibration, rank: int | None, energy: float | None
) -> dict[str, Tensor]:
    """The principal directions of what every site keeps at its full steps, over all prompts; none without a size."""
    if rank is None and energy is None:
        return {}
    grams: dict[str, Tensor] = {}

    def watch(site: str, feature: Tensor) -> None:
        grams[site] = grams.get(site, torch.zeros(())).to(feature.device) + gram(feature).sum(0)

    def run(place: range) -> None:
        calibration.latents(place)

    store.listeners.append(watch)
    try:
        with store.trial({"gains": torch.tensor([PLAIN])}):
            calibration.gather("principal directions", grams, run)
    finally:
        store.listeners.remove(watch)
    return {f"{site}.basis": principal(total, rank, energy) for site, total in grams.items()}
