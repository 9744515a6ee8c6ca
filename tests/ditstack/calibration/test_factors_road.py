"""Once is enough: each linear is regressed once, and the weights are read once for a load and its report."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import ditstack.calibration.conditions as calibrating
import ditstack.stack as standing
from ditstack import Recipe, apply
from ditstack.caching.features import FeatureCache
from ditstack.caching.linears import LowRankLinears
from ditstack.calibration import fits
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny


def stand(file: Path, **cache: Any) -> Stack:
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "cache": {"method": "icc", "calibrate": "auto", "factors": str(file), **cache},
        "sampler": {"steps": 4, "size": "16x16"},
        "calibration": ["a red star", "a blue ring"],
    }
    return apply(tiny.flux(), Recipe.parse(data, "once"))


@pytest.mark.parametrize("cache", [{"rank": 0.125}, {"macs": 0.5}])
def test_each_linear_is_regressed_once(cache: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[int] = Counter()
    regress = fits.regress

    def counted(weight: torch.Tensor, *more: Any) -> Any:
        seen[int(weight.double().sum().mul(1e9))] += 1
        return regress(weight, *more)

    monkeypatch.setattr(fits, "regress", counted)
    stack = stand(tmp_path / "f", **cache)
    on_tokens = {name for name in LowRankLinears.on(stack.pipe).linears if "norm" not in name}
    assert set(seen.values()) == {1}
    assert len(seen) == len(on_tokens)


def test_weights_are_read_once_for_a_load_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    fingerprint = calibrating.fingerprint

    def counted(modules: Any) -> str:
        read.append(fingerprint(modules))
        return read[-1]

    monkeypatch.setattr(calibrating, "fingerprint", counted)
    monkeypatch.setattr(standing, "fingerprint", counted)
    for _ in range(2):  # fitted, then loaded
        read.clear()
        stack = stand(tmp_path / "f")
        assert [stack.report().weights] == read
        assert read == [fingerprint(stack.pipe.transformers)]


def test_compensated_weights_are_those_that_a_report_names(tmp_path: Path) -> None:
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "quantize": {"method": "torchao", "scheme": "int4", "compensate": 0.125},
        "sampler": {"steps": 2, "size": "16x16"},
        "calibration": ["a red star", "a blue ring"],
    }
    stack = apply(tiny.flux(), Recipe.parse(data, "compensated"))
    assert stack.report().weights == calibrating.fingerprint(stack.pipe.transformers)


def test_factors_on_trial_are_given_back_whatever_happens(tmp_path: Path) -> None:
    stack = stand(tmp_path / "f")
    cache = LowRankLinears.on(stack.pipe)
    before = cache.factors

    def interrupted() -> None:
        with cache.trial({}):
            assert cache.factors == {}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cache.factors == before != {}
    assert all(hook.correction is not None for name, hook in cache._hooks.items() if f"{name}.up" in before)


def test_several_caches_stand_on_one_pipe_each_with_its_own_factors(tmp_path: Path) -> None:
    stack = stand(tmp_path / "f", method="mixed", schedule="FCSC", rank=0.125)
    features, linears = FeatureCache.on(stack.pipe), LowRankLinears.on(stack.pipe)
    assert stack.pipe.caches == [features, linears]
    assert features.factors == {}
    assert linears.factors
