"""Quality: how near a picture is to the one that its unaccelerated twin made."""

from __future__ import annotations

import torch
from torch import Tensor

from ditstack.errors import BadPipeline

# B batch, C channels, H height, W width; pictures are float in [0, 1]


def psnr(images_BCHW: Tensor, twin_BCHW: Tensor) -> list[float]:
    """Peak signal-to-noise ratio per picture in dB, from floats; infinite for equal pictures."""
    _check(images_BCHW, twin_BCHW)
    error = (images_BCHW.double() - twin_BCHW.double()).square().flatten(1).mean(1)
    return (-10 * error.log10()).tolist()


def ssim(images_BCHW: Tensor, twin_BCHW: Tensor) -> list[float]:
    """Structural similarity per picture, in [-1, 1] (torchmetrics); of a video, the mean over its frames."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check(images_BCHW, twin_BCHW)
    stills, twins = images_BCHW.flatten(0, -4), twin_BCHW.flatten(0, -4)
    values = structural_similarity_index_measure(stills, twins, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(images_BCHW), -1).mean(1).tolist()


def relative_l2(latents: Tensor, twin: Tensor) -> list[float]:
    """|a - b| / |b| of the final latents, per item."""
    _check(latents, twin)
    gap = (latents.double() - twin.double()).flatten(1).norm(dim=1)
    return (gap / twin.double().flatten(1).norm(dim=1)).tolist()


def bootstrap(values: list[float], seed: int = 0, draws: int = 10_000) -> tuple[float, float, float]:
    """The mean with its 95 % interval over prompts; give paired differences to compare two methods."""
    data = torch.tensor(values, dtype=torch.float64)
    picks = torch.randint(len(data), (draws, len(data)), generator=torch.Generator().manual_seed(seed))
    means = data[picks].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(data.mean()), low, high


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise BadPipeline(f"found pictures of {tuple(a.shape)} and {tuple(b.shape)}; only equal sizes can be compared")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise BadPipeline("a picture holds NaN or infinity; it cannot be compared")
