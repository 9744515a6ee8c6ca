"""Trains the shipped autoencoder: its decoder undoes the linear encoder, its encoder imitates it.

PYTHONPATH=benchmarks nice -n 15 python -m testbed.train_autoencoder .train/autoencoder --minutes 10
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from testbed.latents import LinearEncoder, pictures
from testbed.networks import autoencoder

NOISE = 0.03  # of the latents, since a sampled latent is never exact
RATE = 3e-3


def losses(model: AutoencoderTiny, image: Tensor, z: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Of the decoder in pictures in [-1, 1], of the encoder in latents."""
    noisy = (z + NOISE * torch.randn_like(z)) / scale
    with torch.autocast("cpu", torch.bfloat16):
        painted = model.decoder(noisy)
        coded = model.encoder(image.contiguous(memory_format=torch.channels_last))
    error = painted.float() - image
    return error.square().mean() + 0.1 * error.abs().mean(), (coded.float() - z / scale).square().mean()


def train(folder: Path, minutes: float, size: int, threads: int) -> None:
    """Writes the weights at the end of the time and every two minutes before."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    linear, model = LinearEncoder(), autoencoder()
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    rng = np.random.default_rng(1)
    began = saved = time.monotonic()
    step = 0
    while (left := 1 - (time.monotonic() - began) / 60 / minutes) > 0:
        image = torch.cat([pictures(rng, size // 2, level)[1] for level in (1, int(rng.integers(2, 4)))])
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / 50, left / 0.6, 1)
        decoder, encoder = losses(model, image, linear.encode(image), model.config["scaling_factor"])
        (decoder + encoder).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            now = f"{datetime.now(UTC):%H:%M:%S}"
            print(f"{now} step {step} decoder {decoder:.5f} encoder {encoder:.5f}", flush=True)
        if time.monotonic() - saved > 120:
            save(model, folder)
            saved = time.monotonic()
    save(model, folder)


def save(model: torch.nn.Module, folder: Path) -> None:
    """Replaces the file at once or not at all."""
    torch.save(model.state_dict(), folder / "weights.new")
    os.replace(folder / "weights.new", folder / "weights.pt")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    train(given.folder, given.minutes, given.batch, given.threads)


if __name__ == "__main__":
    main()
