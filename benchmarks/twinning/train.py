"""Trains a twin until a time of day, on one thread; killed at any moment, the same command goes on.

    PYTHONPATH=benchmarks nice -n 19 python -m twinning.train dit .train/dit --end 2026-01-01T12:00

A run that was stopped goes on with its weights, averages, optimizers and counts as they were when last saved.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from testbed.diary import Diary
from twinning.muon import Muon
from twinning.parts import use_plain_attention
from twinning.twin import NAMES, Learner, find

SAVE_EVERY = 120.0  # seconds
LOG_EVERY = 50  # steps
WARMUP = 60  # steps, also after a restart
ADAM_RATE = 2e-3
AVERAGE = 0.997  # decay of the weights' running average: a few hundred steps, since a run has a few thousand
DECAY = 0.3  # share of the time that a run trains in all, over which the rate falls to 0


@dataclass
class Run:
    """All that a kill must not lose."""

    painter: Any
    average: dict[str, Tensor]
    optimizers: list[torch.optim.Optimizer]
    steps: int = 0
    samples: int = 0
    trained: float = 0.0  # seconds
    seed: int = 0

    def save(self, folder: Path) -> None:
        """Writes to a neighbour first, so that a kill leaves the old file whole."""
        state: dict[str, Any] = {
            "painter": self.painter.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "samples": self.samples,
            "trained": self.trained,
            "seed": self.seed,
        }
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / "state.new")
        os.replace(folder / "state.new", folder / "state.pt")

    def resume(self, folder: Path) -> None:
        """Takes up what was saved there, if anything was."""
        if not (folder / "state.pt").exists():
            return
        state = torch.load(folder / "state.pt", weights_only=True)
        self.painter.load_state_dict(state["painter"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name in ("steps", "samples", "trained", "seed"):
            setattr(self, name, state[name])

    def average_in(self) -> None:
        """Moves the averaged weights towards the present ones."""
        weight = 1 - min(AVERAGE, (1 + self.steps) / (10 + self.steps))
        now = self.painter.state_dict()
        for name, value in self.average.items():
            value.lerp_(now[name], weight)


def begin(twin: Learner, folder: Path, seed: int) -> Run:
    """A fresh run, or the one that the folder keeps."""
    torch.manual_seed(seed)
    painter = twin.painter()
    average = {name: value.clone() for name, value in painter.state_dict().items()}
    run = Run(painter, average, optimizers(painter, twin.muon_rate), seed=seed)
    run.resume(folder)
    return run


def stacks(painter: Any) -> list[Any]:
    """The transformer's lists of blocks."""
    return [part for name, part in painter.transformer.named_children() if name.endswith("transformer_blocks")]


def optimizers(painter: Any, muon_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks' layers, AdamW for all else."""
    matrices = [
        layer.weight
        for part in stacks(painter)
        for name, layer in part.named_modules()
        if isinstance(layer, nn.Linear) and ".emb." not in name
    ]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in painter.parameters() if id(weight) not in chosen]
    found: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=muon_rate),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    for optimizer in found:
        optimizer.param_groups[0]["full"] = optimizer.param_groups[0]["lr"]
    return found


def step(run: Run, twin: Learner, rng: np.random.Generator, factor: float) -> tuple[Tensor, Tensor]:
    """One step of all optimizers; noise levels and losses of its samples."""
    for optimizer in run.optimizers:
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["full"] * factor
    t, each = twin.loss(run.painter, rng, twin.batch(run.samples), run.samples)
    each.mean().backward()
    torch.nn.utils.clip_grad_norm_(run.painter.parameters(), 1.0)
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    run.steps += 1
    run.samples += len(each)
    run.average_in()
    return t.detach(), each.detach()


def train(twin: Learner, folder: Path, end: float, seed: int, compiled: bool = True) -> Run:
    """Until `end`, in seconds since 1970, or SIGTERM; either way the state is saved."""
    run, asked = begin(twin, folder, seed), []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    if compiled:
        torch._dynamo.config.automatic_dynamic_shapes = False  # another resolution is compiled anew, and faster
        for block in (one for stack in stacks(run.painter) for one in stack):
            block.compile()
    rng = np.random.default_rng((seed, run.steps))
    torch.manual_seed(int(rng.integers(2**31)))
    first, diary, last = run.steps, Diary(SAVE_EVERY), time.time()
    while not asked and (now := time.time()) < end:
        run.trained, last = run.trained + now - last, now
        factor = min(1.0, (run.steps - first + 1) / WARMUP, (end - now) / (run.trained + end - now) / DECAY)
        diary.add(*step(run, twin, rng, factor))
        if run.steps % LOG_EVERY == 0:
            diary.write(run.steps, run.samples, factor)
        if diary.due():
            run.save(folder)
    run.save(folder)
    return run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("twin", choices=NAMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", type=datetime.fromisoformat, required=True, help="UTC")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="no torch.compile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    use_plain_attention()
    end = given.end.replace(tzinfo=UTC).timestamp()
    train(find(given.twin), given.folder, end, given.seed, compiled=not given.eager)


if __name__ == "__main__":
    main()
