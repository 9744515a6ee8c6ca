"""Converged: what the unaccelerated model makes of the calibration prompts, and its way there from noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ditstack.calibration.run import SEED
from ditstack.calibration.trajectories import Grid, stepped
from ditstack.maths.trajectory import Trajectory
from ditstack.pipeline.pipe import Pipe
from ditstack.recipe.calibration import Calibration

TOGETHER, LATENTS = 8, "converged latents"
"""Prompts of one converged run; what is gathered of them is called so."""
EVERY = 3
"""Steps between latents of the way that are kept. (Of 100 steps of the embedded model those between are 2e-4 off on
average: of what a picture is off by at 50 dB a fifteenth.)"""


def converged(pipe: Pipe, grid: Grid, calibration: Calibration, steps: int) -> Trajectory:
    """By so many steps of Adams-Bashforth 2 without a cache. What a killed calibration had is not made again."""
    method = grid.method(steps)
    scheduler = grid.scheduler(method)
    sampler = calibration.sampler.changed(steps=len(method))
    found = calibration.partial.of(LATENTS)
    count = len(calibration.prompts)
    kept = [step for step in range(0, len(method), EVERY) if method.times[step] > 0]
    for start in range(0, count, TOGETHER):
        places = range(start, min(start + TOGETHER, count))
        parts: list[Tensor] = []
        last = torch.empty(0)

        def hear(done: int, before: Tensor, after: Tensor, parts: list[Tensor] = parts) -> None:
            nonlocal last
            if done - 1 in kept:
                parts.append(before.half().cpu())
            last = after.float().cpu()

        if f"{start:06d} final" not in found:
            prompts, seeds = [calibration.prompts[at] for at in places], [SEED + at for at in places]
            with pipe.without_cache(), torch.no_grad():
                stepped(pipe, scheduler, prompts, seeds, sampler, hear)
            found |= {f"{start:06d} along": torch.stack(parts), f"{start:06d} final": last}
            calibration.partial.keep(LATENTS, found)
        calibration.bar(LATENTS, places.stop, count)
    along, final = ([found[key] for key in sorted(found) if key.endswith(name)] for name in (" along", " final"))
    times = torch.cat([method.times[kept].double(), torch.zeros(1, dtype=torch.double)])
    return Trajectory(times, torch.cat(along, 1), torch.cat(final))
