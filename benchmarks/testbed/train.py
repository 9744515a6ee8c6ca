"""Trains the embedded model on the CPU; the same command again goes on from the last checkpoint.

    PYTHONPATH=benchmarks nice -n 15 python -m testbed.train .train/run --end 2030-01-01T06:00

The learning rate falls to zero over the last part of the time before `--end` (UTC).
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers import transformer_flux
from torch import Tensor, nn

from testbed.latents import LinearEncoder, pack, to_tensor
from testbed.networks import Painter
from testbed.render import render
from testbed.shapes import omit, training_scene

SAVE_EVERY = 180.0  # seconds
LOG_EVERY = 50  # steps


@dataclass
class Settings:
    """Everything that a run is decided by."""

    folder: Path
    end: datetime
    decay_minutes: float
    batch: int
    threads: int
    compiled: bool
    seed: int = 0
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    warmup: int = 100  # steps
    average: float = 0.998
    no_caption: float = 0.1
    unsaid: float = 0.15
    two_objects: float = 0.0  # share of level-2 scenes


@dataclass
class State:
    """What a checkpoint holds."""

    painter: Painter
    average: dict[str, Tensor]
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes to a neighbour first, so that a kill leaves the old file whole."""
        state: dict[str, Any] = {
            "painter": self.painter.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counts": (self.step, self.samples, self.seconds),
        }
        fresh = path.with_suffix(".new")
        torch.save(state, fresh)
        os.replace(fresh, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.painter.load_state_dict(state["painter"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.samples, self.seconds = state["counts"]


def plain_attention(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """Softmax attention on (B, T, H, D): with 80 tokens its backward pass is 5 times as fast as the CPU's flash kernel."""
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    weight = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).softmax(-1)
    return torch.matmul(weight, v).transpose(1, 2)


def optimizers(painter: Painter, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else."""
    blocks = (painter.transformer.transformer_blocks, painter.transformer.single_transformer_blocks)
    matrices = [weight for part in blocks for weight in part.parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in painter.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=settings.muon_rate, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=settings.adam_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def start(settings: Settings) -> State:
    """A fresh state, or that of the checkpoint if there is one."""
    torch.manual_seed(settings.seed)
    painter = Painter()
    average = {name: value.clone() for name, value in painter.state_dict().items()}
    state = State(painter, average, optimizers(painter, settings))
    path = settings.folder / "state.pt"
    if path.exists():
        state.load(path)
    return state


def batch(rng: np.random.Generator, settings: Settings, encoder: LinearEncoder) -> tuple[list[str], Tensor]:
    """Captions that leave things unsaid, and packed latents."""
    levels = np.where(rng.random(settings.batch) < settings.two_objects, 2, 1)
    scenes = [training_scene(rng, int(level)) for level in levels]
    captions = [
        "" if rng.random() < settings.no_caption else str(omit(scene, rng, settings.unsaid)) for scene in scenes
    ]
    return captions, pack(encoder.encode(to_tensor(render(scenes, rng))))


def loss(painter: nn.Module, captions: list[str], z_NTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rectified flow: x = (1 - t) z + t noise, the velocity is noise - z. Also the noise levels and the loss of each."""
    # stratified logit-normal levels: the same distribution with less variance of the gradient
    n = len(z_NTC)
    even = (torch.randperm(n) + torch.rand(n)) / n
    t = torch.sigmoid(torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4)) + 0.2)
    noise = torch.randn_like(z_NTC)
    x = torch.lerp(z_NTC, noise, t[:, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        velocity = painter(x, t, captions)
    each = (velocity.float() - (noise - z_NTC)).square().mean((1, 2))
    return each.mean(), t, each.detach()


def rate(settings: Settings, step: int) -> float:
    """Share of the full learning rate: a short rise, then flat, then down to 0 at the end."""
    left = (settings.end - datetime.now(UTC)).total_seconds() / 60
    return max(0.0, min(1.0, (step + 1) / settings.warmup, left / settings.decay_minutes))


def average_in(state: State, decay: float) -> None:
    """Moves the averaged weights towards the present ones."""
    weight = 1 - min(decay, (1 + state.step) / (10 + state.step))
    now = state.painter.state_dict()
    torch._foreach_lerp_([state.average[name] for name in now], list(now.values()), weight)


def train(settings: Settings) -> None:
    """Until the end, or until asked to stop (SIGTERM); either way the state is saved."""
    torch.set_num_threads(settings.threads)
    settings.folder.mkdir(parents=True, exist_ok=True)
    transformer_flux.dispatch_attention_fn = plain_attention
    encoder = LinearEncoder()
    state = start(settings)
    if settings.compiled:
        state.painter.transformer.compile_repeated_blocks()
    rng = np.random.default_rng((settings.seed, state.step))
    torch.manual_seed(settings.seed + state.step)
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    saved = last = time.monotonic()
    seen: list[tuple[Tensor, Tensor]] = []
    while (share := rate(settings, state.step)) > 0 and not stops:
        for optimizer, full in zip(state.optimizers, (settings.muon_rate, settings.adam_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * share
        value, t, each = loss(state.painter, *batch(rng, settings, encoder))
        value.backward()
        nn.utils.clip_grad_norm_(state.painter.parameters(), 1.0)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        average_in(state, settings.average)
        state.step += 1
        state.samples += settings.batch
        seen.append((t, each))
        if state.step % LOG_EVERY == 0:
            spent, last = time.monotonic() - last, time.monotonic()
            state.seconds += spent
            report(state, seen, LOG_EVERY * settings.batch / spent, share)
            seen.clear()
        if time.monotonic() - saved > SAVE_EVERY:
            state.save(settings.folder / "state.pt")
            saved = time.monotonic()
    state.save(settings.folder / "state.pt")


def report(state: State, seen: list[tuple[Tensor, Tensor]], speed: float, share: float) -> None:
    """One line: counts, speed, learning rate, loss by noise level."""
    t, each = (torch.cat(part) for part in zip(*seen, strict=True))
    edges = (0.0, 0.3, 0.6, 0.85, 1.0)
    parts = [each[(t >= low) & (t < high)].mean().item() for low, high in zip(edges, edges[1:], strict=False)]
    losses = " ".join(f"{part:.4f}" for part in parts)
    print(
        f"{datetime.now(UTC):%H:%M:%S} step {state.step} samples {state.samples} {speed:.0f}/s"
        f" rate {share:.2f} loss {each.mean():.4f} by noise {losses}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", type=datetime.fromisoformat, required=True, help="UTC")
    parser.add_argument("--decay-minutes", type=float, default=35.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--two-objects", type=float, default=0.0)
    parser.add_argument("--eager", action="store_true", help="no torch.compile")
    given = parser.parse_args()
    train(
        Settings(
            folder=given.folder,
            end=given.end.replace(tzinfo=UTC),
            decay_minutes=given.decay_minutes,
            batch=given.batch,
            threads=given.threads,
            compiled=not given.eager,
            two_objects=given.two_objects,
        )
    )


if __name__ == "__main__":
    main()
