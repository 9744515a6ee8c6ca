"""The fixed linear encoder that the transformer is trained on, and FLUX's packing of its latents.

Pixel patches of 4 x 4 x 3 = 48 numbers become 16 channels by principal components, each scaled partway
to unit variance (by the square root of its deviation), so that no direction of the noise is wasted.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from testbed.render import render
from testbed.shapes import training_scene

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


class LinearEncoder:
    """Principal components of patches, fitted to 1,024 pictures of every level; the same on every run."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        image = torch.cat([pictures(rng, 512, level)[1] for level in (1, 2, 3)])
        x = patches(image).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH**2)
        self.mean = x.mean(0)
        u, s, vh = torch.linalg.svd((x - self.mean).T @ (x - self.mean) / len(x))
        deviation = s[:CHANNELS].sqrt()
        sign = vh[:CHANNELS].sum(1, keepdim=True).sign()
        scale = deviation.sqrt()
        scale = scale * (deviation / scale).square().mean().sqrt()  # overall deviation 1
        self.down = sign * vh[:CHANNELS] / scale[:, None]  # C x 48
        self.up = (sign * vh[:CHANNELS] * scale[:, None]).T  # 48 x C

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
