"""A linear code of videos: principal components of patches of 4 x 4 pixels and 4 frames, the first frame by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# B videos, F frames, f latent frames, C channels of a latent, L latent side, N numbers of a patch

SIDE, TIME = 4, 4


class Patches(nn.Module):
    """Fitted to (B, 3, F, S, S) videos in [-1, 1]; channels are scaled partway to unit variance, together to it."""

    first_mean: Tensor
    first_down: Tensor
    later_mean: Tensor
    later_down: Tensor

    def __init__(self, video: Tensor, channels: int) -> None:
        super().__init__()
        for name, part in (("first", video[:, :, :1]), ("later", video[:, :, 1:])):
            cut = cut_up(part).flatten(0, -2)
            mean = cut.mean(0)
            _, variance, axes = torch.linalg.svd((cut - mean).T @ (cut - mean) / len(cut))
            deviation = variance[:channels].sqrt()
            scale = deviation.sqrt() * deviation.mean().sqrt()
            self.register_buffer(f"{name}_mean", mean)
            self.register_buffer(f"{name}_down", axes[:channels] / scale[:, None])

    def encode(self, video: Tensor) -> Tensor:
        """(B, C, f, L, L) of (B, 3, F, S, S)."""
        first, later = cut_up(video[:, :, :1]), cut_up(video[:, :, 1:])
        coded = [
            (first - self.first_mean) @ self.first_down.T,
            (later - self.later_mean) @ self.later_down.T,
        ]
        return torch.cat(coded, 1).permute(0, 4, 1, 2, 3)


def cut_up(video: Tensor) -> Tensor:
    """(B, f, L, L, N): patches of 4 x 4 pixels over 4 frames, or over the one frame that there is."""
    b, c, f, h, w = video.shape
    time = min(TIME, f)
    parts = video.reshape(b, c, f // time, time, h // SIDE, SIDE, w // SIDE, SIDE)
    return parts.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
