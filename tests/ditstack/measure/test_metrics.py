"""Metrics: exactly perfect against their own reference, bad against noise, left out in a sentence."""

import math

import pytest
import torch

from ditstack.assembly.sample import Pictures
from ditstack.errors import BadPipeline
from ditstack.maths import fidelity
from ditstack.measure import metrics, networks
from ditstack.measure.metrics import metrics_for
from ditstack.recipe.recipe import Recipe

JUDGE = Recipe.read("tiny").model.judge()
PROMPT = "a red circle in the center on a plain gray background"


def pictures(seed: int, *frames: int) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, *frames, 3, 64, 64, generator=generator)
    latents = torch.randn(6, 8, generator=generator)
    return Pictures(images, latents, {}, {}, 0, [PROMPT] * 6, [0] * 6)


@pytest.mark.parametrize("frames", [(), (3,)])
def test_every_metric_is_exactly_perfect_against_its_own_reference_and_bad_against_noise(frames: tuple[int]) -> None:
    usable, _ = metrics_for(JUDGE, bool(frames))
    one, noise = pictures(0, *frames), pictures(1, *frames)
    perfect, bad = (metrics.measure(usable, one, baseline) for baseline in (one, noise))
    units = {unit.name: unit for metric in usable for unit in metric.units}
    assert {"psnr", "ssim", "ms_ssim", "relative_l2", "frechet"} <= perfect.keys()
    assert ("temporal_l2" in perfect) == bool(frames)
    for name, value in perfect.items():
        best = math.inf if "psnr" in name else float(units[name].higher_is_better)
        assert (value.mean, value.low, value.high) == (best, best, best), name
        limit = 10 if "psnr" in name else 0.2
        assert bad[name].mean < limit if units[name].higher_is_better else bad[name].mean > limit, name


def test_another_size_and_nan_are_errors_in_every_metric() -> None:
    one, other = pictures(0), pictures(0)
    other.images, other.latents = other.images[..., :32], other.latents[:, :4]
    torn = pictures(0)
    torn.images[0, 0, 0, 0] = torn.latents[0, 0] = math.nan
    for metric in metrics_for(JUDGE, False)[0]:
        for wrong in (other, torn):
            if metric.against_baseline:
                with pytest.raises(BadPipeline):
                    metric.measure(one, wrong)


def test_what_is_not_at_hand_says_how_to_get_it_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    _, left_out = metrics_for(None, False)
    for name in ("LPIPS", "CLIP score", "ImageReward", "FID and KID"):
        assert any(text.startswith(f"{name} left out: ") for text in left_out)
    assert len(left_out) == len(set(left_out))
    assert all("pip install" in text or "hf download" in text for text in left_out)
    assert all("\n" not in text for text in left_out)


def test_a_metric_whose_weights_are_here_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "no_inception", str)
    monkeypatch.setattr(networks, "inception", lambda images: fidelity.stills(images).flatten(1)[:, :16])
    usable, left_out = metrics_for(None, False)
    assert metrics.measure(usable, pictures(0), pictures(0))["fid"].mean == 0
    assert metrics.measure(usable, pictures(0), pictures(1))["kid"].mean != 0
    assert not any("FID" in text for text in left_out)


def test_the_judge_knows_a_picture_from_its_prompt() -> None:
    assert JUDGE is not None
    found = metrics.measure(metrics_for(JUDGE, False)[0], pictures(0), None)
    assert found["agreement.all"].mean == 0
    assert len(set(JUDGE.prompts(40))) == 40


def test_the_frechet_distance_of_gaussians_is_the_known_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20_000, 3, generator=generator), 2 * torch.randn(20_000, 3, generator=generator) + 1
    assert float(fidelity.frechet(x, y)) == pytest.approx(3 * (1 + 1), rel=0.05)  # means 1 apart, deviations 1 and 2
    assert float(fidelity.frechet(x[:30], y[:30])) > 0
    assert (
        abs(float(fidelity.kernel_distance(x[:500], x[500:1000])))
        < 0.1
        < float(fidelity.kernel_distance(x[:500], y[:500]))
    )


def test_the_embedded_models_judge_looks_at_other_sizes_and_leaves_other_models_alone() -> None:
    assert JUDGE is not None
    small = pictures(0).images
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")
    assert torch.equal(JUDGE.features(small), JUDGE.features(large))
    assert JUDGE.agreement(small, [PROMPT] * 6) == JUDGE.agreement(large, [PROMPT] * 6)
    assert Recipe.parse({"model": {"method": "tiny", "source": "another/model"}}).model.judge() is None
