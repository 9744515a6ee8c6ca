"""Gains: those of a forecast, fitted in closed loop on the final latent of the cached run.

Fitting each forecast by itself on an uncached trajectory shrinks it and makes the picture worse; the errors feed back.
So a few scalars are moved by damped Gauss-Newton steps from plain first order, and kept only where prompts that were
not fitted to agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditstack.factors import Factors
from ditstack.lowrank import gram, principal
from ditstack.pipe import Pipe

if TYPE_CHECKING:
    from ditstack.calibrate import Rehearsal

PLAIN = (1.0, 0.0, 1.0, 0.0)
NUDGE, ROUNDS, DAMPINGS = 0.1, 2, (1e-3, 1e-2, 1e-1)
TINY = 1e-12


def tune_gains(
    pipe: Pipe, rehearsal: Rehearsal, tensors: dict[str, Tensor], kept_steps: int, split: bool
) -> dict[str, Tensor]:
    """Gains for every step that a forecast may rest on, beside the tensors that the cache has already.

    Half of the prompts are fitted to, the other half decide.

    Args:
        split: whether what lies in the subspaces, whose bases are among the tensors, has gains of its own.
    """
    count = len(rehearsal.prompts)
    fitting, deciding = range(count // 2), range(count // 2, count)
    gains = torch.tensor(PLAIN).repeat(kept_steps, 1)
    aims = [rehearsal.uncached_latents(part) for part in (fitting, deciding)]
    loop = _Loop(pipe, rehearsal, tensors)
    best = before = _miss(loop.run(gains, deciding), aims[1])
    for turn in range(ROUNDS):
        jacobian, gap = loop.linearise(gains, fitting, aims[0], split)
        trials = [gains + _solve(jacobian, gap, damping, gains) for damping in DAMPINGS]
        scored = [(_miss(loop.run(trial, deciding), aims[1]), trial) for trial in trials]
        score, trial = min(scored, key=lambda pair: pair[0])
        rehearsal.tell(f"round {turn + 1}: final latents' error on prompts not fitted to: {best:.5f} -> {score:.5f}")
        if score >= best:
            break
        best, gains = score, trial
    verdict = "kept" if best < before else "no better than plain first order, which stays"
    rehearsal.tell(f"gains {verdict}: {before:.5f} -> {best:.5f}")
    return {**tensors, "gains": gains}


class _Loop:
    """The cached run as a function of the gains."""

    def __init__(self, pipe: Pipe, rehearsal: Rehearsal, tensors: dict[str, Tensor]) -> None:
        self.pipe, self.rehearsal, self.tensors = pipe, rehearsal, tensors

    def run(self, gains_K4: Tensor, places: range) -> Tensor:
        self.pipe.factors = Factors({**self.tensors, "gains": gains_K4}, {})
        return self.rehearsal.latents(places)

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


def _miss(latents: Tensor, aim: Tensor) -> float:
    """Geometric mean, over prompts, of the relative L2 error."""
    gap = (latents - aim).flatten(1).norm(dim=1) / aim.flatten(1).norm(dim=1)
    return float(gap.clamp_min(TINY).log().mean().exp())


def principal_bases(pipe: Pipe, rehearsal: Rehearsal, rank: int | None, energy: float | None) -> dict[str, Tensor]:
    """The principal directions of what every site keeps at its full steps, over all prompts; none without a size."""
    if rank is None and energy is None:
        return {}
    grams: dict[str, Tensor] = {}

    def watch(site: str, feature: Tensor) -> None:
        grams[site] = grams.get(site, torch.zeros(())).to(feature.device) + gram(feature).sum(0)

    def run(place: range) -> None:
        rehearsal.latents(place)

    pipe.factors = Factors({"gains": torch.tensor([PLAIN])}, {})
    pipe.listeners.append(watch)
    try:
        rehearsal.gather("principal directions", grams, run)
    finally:
        pipe.listeners.remove(watch)
    return {f"{site}.basis": principal(total, rank, energy) for site, total in grams.items()}
