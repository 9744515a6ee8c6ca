"""Quality: how near pictures are to those that their unaccelerated baseline made. The mathematics, nothing else."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ditstack.errors import BadPipeline

# B batch, F frames, C channels, H height, W width; pictures are float in [0, 1], (B, C, H, W) or (B, F, C, H, W)
# N pictures of a set, D features

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's scales (Wang et al. 2003), the finest first."""
WINDOW = 11
"""Side of SSIM's window in pixels."""
SPREAD = 1.5
"""Standard deviation of the window's bell in pixels."""


def psnr(images: Tensor, baseline: Tensor) -> list[float]:
    """Peak signal-to-noise ratio per picture in dB, from floats; infinite for equal pictures."""
    require_equal_sizes(images, baseline)
    error = (images.double() - baseline.double()).square().flatten(1).mean(1)
    return (-10 * error.log10()).tolist()


def ssim(images: Tensor, baseline: Tensor) -> list[float]:
    """Structural similarity per picture, in [-1, 1] (Wang et al. 2004); of a video, the mean over its frames.

    (2 mu_a mu_b + c1) (2 cov_ab + c2) / ((mu_a^2 + mu_b^2 + c1) (var_a + var_b + c2)), the border mirrored
    """
    require_equal_sizes(images, baseline)
    pairs = zip(images.split(1), baseline.split(1), strict=True)  # one by one: a video fills the memory
    values = [_ssim(*(stills(one).double() for one in pair)) for pair in pairs]
    return [float(value.mean()) for value in values]


def _ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Of every pixel, (B, C, H, W)."""
    c1, c2 = 0.01**2, 0.03**2
    mu_a, mu_b = _blurred(a_BCHW), _blurred(b_BCHW)
    var_a, var_b = (_blurred(x.square()) - mu.square() for x, mu in ((a_BCHW, mu_a), (b_BCHW, mu_b)))
    covariance = _blurred(a_BCHW * b_BCHW) - mu_a * mu_b
    alike = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
    return alike / ((mu_a.square() + mu_b.square() + c1) * (var_a.clamp_min(0) + var_b.clamp_min(0) + c2))


def _blurred(x_BCHW: Tensor) -> Tensor:
    """The mean under a bell of WINDOW pixels, or fewer where a side has fewer."""
    reach = [min(WINDOW // 2, side - 1) for side in x_BCHW.shape[-2:]]
    bells = []
    for one in reach:
        places = torch.arange(-one, one + 1, dtype=x_BCHW.dtype, device=x_BCHW.device)
        bells.append(torch.softmax(-places.square() / (2 * SPREAD**2), 0))
    padded = torch.nn.functional.pad(x_BCHW, (reach[1], reach[1], reach[0], reach[0]), mode="reflect")
    planes = padded.flatten(0, 1)[:, None]
    return torch.nn.functional.conv2d(planes, bells[0].outer(bells[1])[None, None]).reshape(x_BCHW.shape)


def ms_ssim(images: Tensor, baseline: Tensor) -> list[float]:
    """SSIM over as many of the five scales as the picture is large enough for, their weights scaled to sum to 1."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    require_equal_sizes(images, baseline)
    side = min(images.shape[-2:])
    weights = SCALES[: max(n for n in range(1, 6) if n == 1 or side // (n - 1) ** 2 >= WINDOW)]
    values = multiscale_structural_similarity_index_measure(
        stills(images),
        stills(baseline),
        data_range=1.0,
        kernel_size=WINDOW,
        reduction="none",
        betas=tuple(weight / sum(weights) for weight in weights),
        normalize="relu",
    )
    return values.reshape(len(images), -1).mean(1).tolist()


def frame_psnr(images: Tensor, baseline: Tensor) -> list[float]:
    """The mean over a video's frames of their PSNR, which a single bad frame moves less than the PSNR of the whole."""
    require_equal_sizes(images, baseline)
    return torch.tensor(psnr(stills(images), stills(baseline))).reshape(len(images), -1).mean(1).tolist()


def temporal_l2(images: Tensor, baseline: Tensor) -> list[float]:
    """|a - b| / |b| of the differences between neighbouring frames: whether things move as they did."""
    return relative_l2(images.diff(dim=1), baseline.diff(dim=1))


def relative_l2(latents: Tensor, baseline: Tensor) -> list[float]:
    """|a - b| / |b| of the final latents, per item."""
    require_equal_sizes(latents, baseline)
    gap = (latents.double() - baseline.double()).flatten(1).norm(dim=1)
    return (gap / baseline.double().flatten(1).norm(dim=1)).tolist()


def decibels(latents: Tensor, baseline: Tensor) -> list[float]:
    """-20 log10 of the relative L2 error of the final latents, per item: more is better, at most 180."""
    return [-20 * math.log10(max(error, 1e-9)) for error in relative_l2(latents, baseline)]


def frechet(features_ND: Tensor, baseline_ND: Tensor) -> Tensor:
    """Frechet distance of two sets as Gaussians (Heusel et al. 2017); leading dimensions are sets of their own.

    tr (Ca Cb)^1/2 is the nuclear norm of A B^T / (N - 1), A and B the centred features, whichever side is smaller.
    Equal sets are at exactly 0, where rounding would leave a trace.
    """
    require_equal_sizes(features_ND, baseline_ND)
    means = [one.double().mean(-2, keepdim=True) for one in (features_ND, baseline_ND)]
    a, b = features_ND.double() - means[0], baseline_ND.double() - means[1]
    traces = a.square().sum((-2, -1)) + b.square().sum((-2, -1))
    if a.shape[-2] > a.shape[-1]:
        a, b = torch.linalg.qr(a, mode="r").R, torch.linalg.qr(b, mode="r").R
    mixed = torch.linalg.svdvals(a @ b.mT).sum(-1)
    distance = (means[0] - means[1]).square().sum((-2, -1)) + (traces - 2 * mixed) / (features_ND.shape[-2] - 1)
    return torch.where((features_ND == baseline_ND).all(-1).all(-1), 0.0, distance)


def kernel_distance(features_ND: Tensor, baseline_ND: Tensor) -> Tensor:
    """Squared kernel distance with (x y / D + 1)^3 (Binkowski et al. 2018), without the terms of a pair with itself.

    Those of an item with its own baseline are left out too, so that equal sets have distance 0.
    """
    require_equal_sizes(features_ND, baseline_ND)
    x, y, n = features_ND.double(), baseline_ND.double(), features_ND.shape[-2]

    def apart(a: Tensor, b: Tensor) -> Tensor:
        kernel = (a @ b.mT / a.shape[-1] + 1) ** 3
        return (kernel.sum((-2, -1)) - kernel.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))

    return apart(x, x) + apart(y, y) - 2 * apart(x, y)


def mean(values: Tensor) -> Tensor:
    """Of the last dimension."""
    return values.mean(-1)


def of_mean_square(decibels: Tensor) -> Tensor:
    """The PSNR of the mean squared error of all pictures, which a broken one pulls down as a mean of dB does not."""
    return -10 * (10 ** (-decibels / 10)).mean(-1).log10()


def low_end(values: Tensor) -> Tensor:
    """The 5th percentile: one picture in twenty is below it. `torch.quantile` would sort all of them."""
    place = 0.05 * (values.shape[-1] - 1)
    below = math.floor(place)
    least = values.topk(min(below + 2, values.shape[-1]), largest=False).values
    if not torch.isfinite(values).all():
        return torch.where(values.isnan().any(-1), math.nan, least[..., below])
    return torch.lerp(least[..., below], least[..., -1], place - below)


def worst(values: Tensor) -> Tensor:
    """The least."""
    return values.amin(-1)


Statistic = Callable[[Tensor], Tensor]
"""What is told of many prompts' values, in the last dimension."""


def bootstrap(
    values: Sequence[float], seed: int = 0, draws: int = 10_000, of: Statistic = mean
) -> tuple[float, float, float]:
    """A statistic, the mean by default, with its 95 % interval over prompts."""
    data = torch.tensor(values, dtype=torch.float64)
    low, high = interval(of(data[resamples(len(data), seed, draws)]))
    return float(of(data)), low, high


def paired(values: Sequence[float], others: Sequence[float], of: Statistic = mean) -> tuple[float, float, float]:
    """By how much a statistic of one method is above another's, prompts being drawn together, with its 95 % interval.

    Of the mean that is the mean difference, prompt by prompt; pictures that are equal to their baseline in both differ
    by 0.
    """
    if of is mean:
        return bootstrap([0.0 if a == b else a - b for a, b in zip(values, others, strict=True)])
    first, second = (torch.tensor(one, dtype=torch.float64) for one in (values, others))
    places = resamples(len(first))
    low, high = interval(of(first[places]) - of(second[places]))
    return float(of(first) - of(second)), low, high


@functools.lru_cache(maxsize=4)
def resamples(count: int, seed: int = 0, draws: int = 10_000) -> Tensor:
    """(draws, count) places, with repetition: the same for the same count, so that metrics stay paired."""
    return torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed))


def interval(draws: Tensor) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws; infinite draws are ordered, not interpolated."""
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    kind = "linear" if torch.isfinite(draws).all() else "lower"
    low, high = torch.quantile(draws.double(), ends, interpolation=kind).tolist()
    return low, high


def stills(images: Tensor) -> Tensor:
    """(B, C, H, W) of pictures as they are, of videos every frame."""
    return images.flatten(0, -4)


def require_equal_sizes(a: Tensor, b: Tensor) -> None:
    """Refuse what cannot be compared.

    Raises:
        BadPipeline: other sizes, NaN or infinity.
    """
    if a.shape != b.shape:
        raise BadPipeline(f"found pictures of {tuple(a.shape)} and {tuple(b.shape)}; only equal sizes can be compared")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise BadPipeline("a picture holds NaN or infinity; it cannot be compared")
