"""Quality: perfect against itself, bad against noise, an error where it makes no sense."""

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ditstack.errors import BadPipeline
from ditstack.maths import fidelity
from ditstack.maths.fidelity import bootstrap, psnr, relative_l2, ssim


def pictures(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_a_picture_against_itself_is_perfect() -> None:
    one = pictures()
    assert psnr(one, one) == [math.inf] * 3
    assert ssim(one, one) == pytest.approx([1.0] * 3)
    assert relative_l2(one, one) == [0.0] * 3


def test_noise_is_bad_and_a_little_noise_is_what_torchmetrics_says() -> None:
    one, noise = pictures(), pictures(1)
    assert max(psnr(one, noise)) < 9
    assert max(ssim(one, noise)) < 0.2
    near = one * 0.99
    want = [float(peak_signal_noise_ratio(near[i], one[i], data_range=1.0)) for i in range(3)]
    assert psnr(near, one) == pytest.approx(want, abs=1e-3)
    assert min(psnr(near, one)) > 40


@pytest.mark.parametrize("shape", [(3, 3, 64, 48), (2, 4, 3, 32, 32), (2, 3, 16, 16), (1, 3, 6, 90)])
def test_ssim_is_what_torchmetrics_says(shape: tuple[int, ...]) -> None:
    a = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    b = (a + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    want = structural_similarity_index_measure(a.flatten(0, -4), b.flatten(0, -4), data_range=1.0, reduction="none")
    assert isinstance(want, torch.Tensor)
    assert ssim(a, b) == pytest.approx(want.reshape(len(a), -1).mean(1).tolist(), abs=1e-5)
    assert ssim(a, a) == [1.0] * len(a)
    assert ssim(a[..., :3, :2], a[..., :3, :2]) == [1.0] * len(a)


def test_psnr_does_not_wrap_as_bytes_would() -> None:
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert psnr(black, white) == [0.0]


@pytest.mark.parametrize("other", [torch.rand(3, 3, 16, 16), torch.full((3, 3, 32, 32), math.nan)])
def test_another_size_and_nan_are_errors_not_numbers(other: torch.Tensor) -> None:
    for metric in (psnr, ssim, relative_l2):
        with pytest.raises(BadPipeline):
            metric(pictures(), other)


def test_the_interval_of_a_clear_gain_excludes_zero_and_that_of_noise_does_not() -> None:
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
    mean, low, high = bootstrap((noise + 3).tolist())
    assert 2.5 < low < mean < high < 3.5
    _, low, high = bootstrap((noise - noise.mean()).tolist())
    assert low < 0 < high


def test_intervals_of_infinite_values_are_ordered() -> None:
    assert bootstrap([math.inf] * 4) == (math.inf,) * 3
    assert bootstrap([math.inf, 30.0, 30.0, 30.0])[1] == 30.0


def test_what_a_mean_of_decibels_hides_the_other_statistics_show() -> None:
    values = [40.0] * 39 + [10.0]
    found = {of.__name__: fidelity.bootstrap(values, of=of)[0] for of in STATISTICS}
    assert found["mean"] == pytest.approx(39.25)
    # -10 log10((39 * 1e-4 + 1e-1) / 40)
    assert found["of_mean_square"] == pytest.approx(25.854, abs=1e-3)
    assert found["low_end"] == 40
    assert found["worst"] == 10
    assert fidelity.bootstrap([*values[2:], 10.0, 10.0], of=fidelity.low_end)[0] < 40


def test_statistics_of_two_methods_are_compared_on_the_same_prompts() -> None:
    one = [40.0, 30.0, 20.0, 35.0] * 8
    for of in STATISTICS:
        value, low, high = fidelity.paired([value + 1 for value in one], one, of)
        assert (value, low, high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    infinite = [math.inf] * 4
    assert fidelity.paired(infinite, infinite) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 20, 21, 64])
@pytest.mark.parametrize("odd", [0.0, math.inf, -math.inf, math.nan])
def test_the_low_end_is_torchs_quantile_to_the_last_bit(count: int, odd: float) -> None:
    values = torch.randn(50, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[::3, count // 2] = odd
    for one in (values, values[0]):
        kind = "linear" if torch.isfinite(one).all() else "lower"
        torch.testing.assert_close(
            fidelity.low_end(one), one.quantile(0.05, -1, interpolation=kind), rtol=0, atol=0, equal_nan=True
        )


STATISTICS = (fidelity.mean, fidelity.of_mean_square, fidelity.low_end, fidelity.worst)
