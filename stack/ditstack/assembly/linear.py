"""A solver of diffusers as a multistep method: most are linear in the latents and in what the model says.

Stepped along its own grid with unit vectors in place of latents and outputs, such a solver says by itself which share
of every earlier output each step takes: DPM-Solver++, DEIS, and UniPC with its corrector, which reads older outputs
again. What comes of it takes the solver's own steps, and a fit can begin as the best of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ditstack.maths.multistep import Method, Process
from ditstack.pipeline.fitted_scheduler import output_of

# N evaluations; unit vectors have N + 1 entries: the first latents, and the N derivatives

EXACT = 1e-4
"""How far a step may be from what is read of it, as a share of the latents, before a solver counts as not linear."""


def unrolled(scheduler: Any, process: Process, kind: str, end: float) -> Method | None:
    """The method that a scheduler is whose `set_timesteps` was called; None for one that is none.

    One is none whose evaluations are not its steps (Heun), that adds noise, that is not linear in its inputs, or whose
    latents move without the model.

    Args:
        kind: what the model predicts, as `process_of` says.
        end: the ODE's coordinate after the last step.
    """
    times = scheduler.timesteps.detach().double().cpu()
    count = len(times)
    if count < 2 or not (times.diff() < 0).all():
        return None
    nodes = torch.cat([process.at(times), times.new_full((1,), end)])
    units = torch.eye(count + 1, dtype=torch.double).reshape(count + 1, 1, count + 1, 1, 1)
    x, rows, scale = units[0], [], _scale(nodes, kind)
    for at, t in enumerate(scheduler.timesteps):
        told = output_of(units[at + 1], x, nodes[at], kind)
        after = scheduler.step(told.float(), t, x.float(), return_dict=False)[0].double()
        rows.append((after * scale[at + 1] - x * scale[at]).flatten() / (nodes[at + 1] - nodes[at]))
        x = after
    table = torch.stack(rows)
    if not table.isfinite().all() or table[:, 0].abs().max() > EXACT:
        return None
    newest_first = [torch.cat([row[1 : at + 2].flip(0), row.new_zeros(count - 1 - at)]) for at, row in enumerate(table)]
    return Method(times.float(), nodes.float(), torch.stack(newest_first).float())


def _scale(nodes: Tensor, kind: str) -> Tensor:
    """What latents are multiplied by, so that they change by derivatives alone."""
    return torch.ones_like(nodes) if kind == "flow_prediction" else (1 + nodes**2).sqrt()
