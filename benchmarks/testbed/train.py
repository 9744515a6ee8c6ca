"""Trains the embedded model on the CPU; the same command again goes on from the last checkpoint.

    PYTHONPATH=benchmarks nice -n 15 python -m testbed.train .train/run --end 2030-01-01T06:00

The learning rate falls to zero over the last part of the time before `--end` (UTC).
Each process computes with one thread and owns a share of the parameters; weights and gradients lie in
shared memory. They meet twice a step, so a busy core slows the run down but never stops it, as it does
with one process of many threads, which meet thousands of times a step.
"""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from testbed import flow
from testbed.diary import Diary
from testbed.latents import LinearEncoder
from testbed.networks import Painter

SAVE_EVERY = 150.0  # seconds
LOG_EVERY = 50  # steps
WARMUP = 60  # steps, also after a restart, since the optimizers start afresh
MUON_RATE, ADAM_RATE = 0.02, 2e-3
AVERAGE = 0.999  # decay of the weights' running average


@dataclass(frozen=True)
class Settings:
    """Everything that a run is decided by."""

    folder: Path
    end: datetime
    decay_minutes: float
    batch: int
    processes: int
    compiled: bool
    two_objects: float
    seed: int


@dataclass
class Shared:
    """What all processes see."""

    painter: Painter
    average: dict[str, Tensor]
    gradients: Tensor  # processes x parameters
    counts: Tensor  # steps, samples
    asked: Tensor  # the parent wishes to stop
    stop: Tensor  # the first process tells all to, where none is ahead of another
    barrier: Barrier

    def save(self, path: Path) -> None:
        """Writes to a neighbour first, so that a kill leaves the old file whole."""
        state: dict[str, Any] = {
            "painter": self.painter.state_dict(),
            "average": self.average,
            "counts": self.counts,
        }
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)


def share(settings: Settings) -> Shared:
    """A fresh state, or that of the checkpoint if there is one."""
    torch.manual_seed(settings.seed)
    painter, counts = Painter(), torch.zeros(2, dtype=torch.long)
    average = {name: value.clone() for name, value in painter.state_dict().items()}
    path = settings.folder / "state.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        painter.load_state_dict(state["painter"])
        average, counts = state["average"], torch.as_tensor(state["counts"][:2])
    size = sum(weight.numel() for weight in painter.parameters())
    gradients, asked, stop = torch.zeros(settings.processes, size), torch.zeros(1), torch.zeros(1)
    for tensor in (gradients, counts, asked, stop):
        tensor.share_memory_()
    barrier = torch.multiprocessing.get_context("spawn").Barrier(settings.processes, timeout=900)
    return Shared(painter.share_memory(), average, gradients, counts, asked, stop, barrier)


def optimizers(painter: Painter, rank: int, processes: int) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else: of each, this process's share."""
    blocks = (painter.transformer.transformer_blocks, painter.transformer.single_transformer_blocks)
    matrices = [weight for part in blocks for weight in part.parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in painter.parameters() if id(weight) not in chosen]
    matrices.sort(key=torch.Tensor.numel)
    rest.sort(key=torch.Tensor.numel)
    return [
        torch.optim.Muon(matrices[rank::processes], lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(rest[rank::processes], lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def rate(settings: Settings, step: int) -> float:
    """Share of the full learning rate: a short rise, then flat, then down to 0 at the end."""
    left = (settings.end - datetime.now(UTC)).total_seconds() / 60
    return max(0.0, min(1.0, (step + 1) / WARMUP, left / settings.decay_minutes))


def exchange(shared: Shared, rank: int) -> None:
    """Replaces each gradient by the mean over the processes, clipped to norm 1."""
    weights = list(shared.painter.parameters())
    flat = [torch.zeros_like(w).view(-1) if w.grad is None else w.grad.view(-1) for w in weights]
    torch.cat(flat, out=shared.gradients[rank])
    shared.barrier.wait()
    mean = shared.gradients.mean(0)
    mean /= mean.norm().clamp_min(1.0)
    for weight, part in zip(weights, mean.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)


def average_in(shared: Shared) -> None:
    """Moves the averaged weights towards the present ones."""
    step = int(shared.counts[0])
    weight = 1 - min(AVERAGE, (1 + step) / (10 + step))
    now = shared.painter.state_dict()
    for name, value in now.items():
        shared.average[name].lerp_(value, weight)


def work(rank: int, settings: Settings, shared: Shared) -> None:
    """One process: until the end, or until asked to stop; either way the state is saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    flow.use_plain_attention()
    encoder, painter = LinearEncoder(), shared.painter
    if settings.compiled:
        painter.transformer.compile_repeated_blocks()
    mine = optimizers(painter, rank, settings.processes)
    seed = (settings.seed, int(shared.counts[0]), rank)
    rng = np.random.default_rng(seed)
    torch.manual_seed(int(rng.integers(2**31)))
    diary, own, step = Diary(SAVE_EVERY, settings.processes), settings.batch // settings.processes, 0
    while not shared.stop:
        factor = rate(settings, step)
        for optimizer, full in zip(mine, (MUON_RATE, ADAM_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = full * factor
        t, each = flow.loss(painter, *flow.batch(rng, own, settings.two_objects, encoder))
        each.mean().backward()
        exchange(shared, rank)
        for optimizer in mine:
            optimizer.step()
        painter.zero_grad()
        shared.barrier.wait()
        step += 1
        if rank == 0:
            shared.counts += torch.tensor([1, own * settings.processes])
            average_in(shared)
            diary.add(t, each.detach())
            if step % LOG_EVERY == 0:
                diary.write(int(shared.counts[0]), int(shared.counts[1]), factor)
            if diary.due():
                shared.save(settings.folder / "state.pt")
            shared.stop.fill_(float(factor <= 0 or bool(shared.asked)))
        shared.barrier.wait()
    if rank == 0:
        shared.save(settings.folder / "state.pt")


def train(settings: Settings) -> None:
    """Starts the processes and waits for them; SIGTERM ends the run after the present step."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    shared = share(settings)
    signal.signal(signal.SIGTERM, lambda *_: shared.asked.fill_(1))
    spawn(work, (settings, shared), nprocs=settings.processes)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", type=datetime.fromisoformat, required=True, help="UTC")
    parser.add_argument("--decay-minutes", type=float, default=35.0)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--two-objects", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="no torch.compile")
    given = vars(parser.parse_args())
    given["end"] = given["end"].replace(tzinfo=UTC)
    train(Settings(compiled=not given.pop("eager"), **given))


if __name__ == "__main__":
    main()
