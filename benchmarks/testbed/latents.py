"""The fixed linear encoder that the transformer is trained on, and FLUX's packing of its latents.

Pixel patches of 4 x 4 x 3 = 48 numbers become 16 channels by principal components, each scaled partway
to unit variance (by the square root of its deviation), so that no direction of the noise is wasted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ditstack_adapters.model.embedded.render import render
from ditstack_adapters.model.embedded.shapes import training_scene

# N pictures, S side in pixels, L latent side, C latent channels, T image tokens

PATCH = 4
CHANNELS = 16


def patches(image_N3SS: Tensor) -> Tensor:
    """(N, 48, L, L) pixel patches of pictures in [-1, 1]."""
    return torch.nn.functional.pixel_unshuffle(image_N3SS, PATCH)


def pictures(rng: np.random.Generator, n: int, level: int) -> tuple[list[str], Tensor]:
    """Full captions and (N, 3, S, S) pictures in [-1, 1]."""
    scenes = [training_scene(rng, level) for _ in range(n)]
    return [str(scene) for scene in scenes], to_tensor(render(scenes, rng))


def to_tensor(image_NSS3: np.ndarray) -> Tensor:
    """(N, 3, S, S) in [-1, 1] of (N, S, S, 3) in [0, 1]."""
    return torch.from_numpy(image_NSS3).permute(0, 3, 1, 2) * 2 - 1


def fit(image_N3SS: Tensor) -> dict[str, Tensor]:
    """Mean (48), encoder (C x 48) and decoder (48 x C) of pictures in [-1, 1]."""
    x = patches(image_N3SS).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH**2)
    mean = x.mean(0)
    _, variance, vh = torch.linalg.svd((x - mean).T @ (x - mean) / len(x))
    deviation = variance[:CHANNELS].sqrt()
    scale = deviation.sqrt()
    scale = scale * (deviation / scale).square().mean().sqrt()  # overall deviation 1
    axes = vh[:CHANNELS] * vh[:CHANNELS].sum(1, keepdim=True).sign()
    return {"mean": mean, "down": axes / scale[:, None], "up": (axes * scale[:, None]).T.contiguous()}


class LinearEncoder:
    """The result of `fit` on 512 pictures of each level, kept in a file, since the weights depend on it."""

    def __init__(self) -> None:
        parts = load_file(Path(__file__).with_name("encoder.safetensors"))
        self.mean, self.down, self.up = parts["mean"], parts["down"], parts["up"]

    def encode(self, image_N3SS: Tensor) -> Tensor:
        """(N, C, L, L)."""
        x = patches(image_N3SS) - self.mean[:, None, None]
        return torch.einsum("cp,nphw->nchw", self.down, x)

    def decode(self, z_NCLL: Tensor) -> Tensor:
        """(N, 3, S, S): the linear reconstruction."""
        x = torch.einsum("pc,nchw->nphw", self.up, z_NCLL) + self.mean[:, None, None]
        return torch.nn.functional.pixel_shuffle(x, PATCH)


def pack(z_NCLL: Tensor) -> Tensor:
    """(N, T, 4 C): 2 x 2 latents to a token, as FluxPipeline does."""
    n, c, h, w = z_NCLL.shape
    return z_NCLL.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)
