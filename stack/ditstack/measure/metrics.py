"""Metrics behind one small interface: each says what it is called, whether it can be taken here, and its estimates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ditstack.maths import fidelity
from ditstack.maths.fidelity import Statistic
from ditstack.measure import networks
from ditstack.report import Estimate, Unit

if TYPE_CHECKING:
    from ditstack.assembly.sample import Pictures
    from ditstack.recipe.model import Judge

DRAWS = 200
"""Resamples for the interval of a distance between sets, each of which costs a decomposition."""

LOW_END: dict[str, tuple[str, Statistic]] = {
    "psnr_p5": ("PSNR, 5th percentile", fidelity.low_end),
    "psnr_mse": ("PSNR of the mean squared error", fidelity.of_mean_square),
    "psnr_worst": ("PSNR of the worst picture", fidelity.worst),
}
"""What a mean of dB hides: broken pictures."""


class Metric(Protocol):
    """Measures pictures, against those of a baseline or by themselves."""

    @property
    def units(self) -> tuple[Unit, ...]: ...

    @property
    def against_baseline(self) -> bool: ...

    @property
    def missing(self) -> Callable[[], str]:
        """Says nothing, or one sentence: what is not at hand, and how to get it."""
        ...

    def measure(self, made: Pictures, baseline: Pictures) -> dict[str, Estimate]:
        """An estimate for each unit that these pictures can tell of.

        Raises:
            BadPipeline: the pictures differ in size, or hold NaN.
        """
        ...


@dataclass(frozen=True)
class Fidelity:
    """A number for each picture beside its baseline."""

    unit: Unit
    each: Callable[[Pictures, Pictures], list[float]]
    missing: Callable[[], str] = str
    against_baseline: bool = True
    of: Statistic = fidelity.mean
    """What is told of all of them."""

    @property
    def units(self) -> tuple[Unit, ...]:
        return (self.unit,)

    def measure(self, made: Pictures, baseline: Pictures) -> dict[str, Estimate]:
        return {self.unit.name: estimate(self.each(made, baseline), self.of)}


@dataclass(frozen=True)
class Distance:
    """A number for a set of pictures beside the set of their baselines; prompts are drawn again for its interval."""

    unit: Unit
    features: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    missing: Callable[[], str] = str
    against_baseline: bool = True

    @property
    def units(self) -> tuple[Unit, ...]:
        return (self.unit,)

    def measure(self, made: Pictures, baseline: Pictures) -> dict[str, Estimate]:
        fidelity.require_equal_sizes(made.images, baseline.images)
        a_BFD, b_BFD = (self.features(one.images).unflatten(0, (len(one.images), -1)) for one in (made, baseline))
        places = fidelity.resamples(len(a_BFD), draws=DRAWS)
        draws = self.distance(a_BFD[places].flatten(1, 2), b_BFD[places].flatten(1, 2))
        low, high = fidelity.interval(draws)
        return {
            self.unit.name: Estimate(
                mean=float(self.distance(a_BFD.flatten(0, 1), b_BFD.flatten(0, 1))), low=low, high=high
            )
        }


@dataclass(frozen=True)
class Agreement:
    """The share of pictures that show what their prompts say, in all attributes and in each."""

    judge: Judge
    missing: Callable[[], str] = str
    against_baseline: bool = False

    @property
    def units(self) -> tuple[Unit, ...]:
        names = ("all", *self.judge.attributes)
        return tuple(_unit(f"agreement.{name}", f"agrees in {name}", higher_is_better=True) for name in names)

    def measure(self, made: Pictures, baseline: Pictures) -> dict[str, Estimate]:
        verdicts = self.judge.agreement(fidelity.stills(made.images), made.prompts)
        shares = {"agreement.all": [float(all(verdict.values())) for verdict in verdicts]}
        for name in self.judge.attributes:
            shares[f"agreement.{name}"] = [float(verdict[name]) for verdict in verdicts if name in verdict]
        return {name: estimate(values) for name, values in shares.items() if values}


def estimate(values: list[float], of: Statistic = fidelity.mean) -> Estimate:
    """A statistic over prompts, the mean by default, with its interval."""
    mean, low, high = fidelity.bootstrap(values, of=of)
    return Estimate(mean=mean, low=low, high=high)


def metrics_for(judge: Judge | None, video: bool) -> tuple[list[Metric], list[str]]:
    """The metrics that can be taken here, and a sentence for each that cannot."""
    every = [*_fidelities(), *(_of_videos() if video else ()), *_of_weights(video), *(_judged(judge) if judge else ())]
    left_out = dict.fromkeys(text for one in every if (text := one.missing()))
    return [one for one in every if not one.missing()], list(left_out)


def measure(metrics: list[Metric], made: Pictures, baseline: Pictures | None) -> dict[str, Estimate]:
    """What the metrics say of pictures: those against a baseline if there is one, else of the pictures alone."""
    chosen = [one for one in metrics if one.against_baseline == (baseline is not None)]
    return {name: value for one in chosen for name, value in one.measure(made, baseline or made).items()}


def _unit(name: str, title: str, unit: str = "", *, higher_is_better: bool) -> Unit:
    return Unit(name=name, title=title, unit=unit, higher_is_better=higher_is_better)


def _of_images(function: Callable[[Tensor, Tensor], list[float]]) -> Callable[[Pictures, Pictures], list[float]]:
    return lambda made, baseline: function(made.images, baseline.images)


def _fidelities() -> list[Metric]:
    return [
        Fidelity(_unit("psnr", "PSNR", "dB", higher_is_better=True), _of_images(fidelity.psnr)),
        *(
            Fidelity(_unit(name, title, "dB", higher_is_better=True), _of_images(fidelity.psnr), of=of)
            for name, (title, of) in LOW_END.items()
        ),
        Fidelity(_unit("ssim", "SSIM", higher_is_better=True), _of_images(fidelity.ssim)),
        Fidelity(
            _unit("ms_ssim", "MS-SSIM", higher_is_better=True), _of_images(fidelity.ms_ssim), networks.no_torchmetrics
        ),
        Fidelity(
            _unit("relative_l2", "relative L2 of the latents", higher_is_better=False),
            lambda made, baseline: fidelity.relative_l2(made.latents, baseline.latents),
        ),
    ]


def _of_videos() -> list[Metric]:
    return [
        Fidelity(_unit("frame_psnr", "PSNR by frame", "dB", higher_is_better=True), _of_images(fidelity.frame_psnr)),
        Fidelity(
            _unit("temporal_l2", "relative L2 of motion", higher_is_better=False), _of_images(fidelity.temporal_l2)
        ),
    ]


def _of_weights(video: bool) -> list[Metric]:
    """Those that need trained weights of others."""
    lpips, fid = networks.no_lpips, networks.no_inception
    found: list[Metric] = [
        Fidelity(_unit("lpips", "LPIPS", higher_is_better=False), _of_images(networks.lpips), lpips),
        Fidelity(
            _unit("clip", "CLIP score", higher_is_better=True),
            lambda made, _: networks.clip_score(made.images, made.prompts),
            networks.no_clip,
            against_baseline=False,
        ),
        Fidelity(
            _unit("image_reward", "ImageReward", higher_is_better=True),
            lambda made, _: networks.image_reward(made.images, made.prompts),
            networks.no_image_reward,
            against_baseline=False,
        ),
    ]
    sights = {"": networks.inception} | ({"_motion": _in_motion(networks.inception)} if video else {})
    for suffix, features in sights.items():
        title = " of motion" if suffix else ""
        found += [
            Distance(_unit(f"fid{suffix}", f"FID{title}", higher_is_better=False), features, fidelity.frechet, fid),
            Distance(
                _unit(f"kid{suffix}", f"KID{title}", higher_is_better=False), features, fidelity.kernel_distance, fid
            ),
        ]
    return found


def _judged(judge: Judge) -> list[Metric]:
    unit = _unit("frechet", "Frechet distance", higher_is_better=False)
    return [Distance(unit, lambda images: judge.features(fidelity.stills(images)), fidelity.frechet), Agreement(judge)]


def _in_motion(features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Features of the differences between neighbouring frames, no change being grey."""
    return lambda images: features(images.diff(dim=1) / 2 + 0.5)
