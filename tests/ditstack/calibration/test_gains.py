"""Fitted gains are kept only where prompts that they were not fitted to gain clearly."""

from typing import Any

import pytest
import torch

import ditstack.calibration.gains as gains
from counting import cached
from ditstack.caching.features import FeatureCache
from ditstack.calibration.gains import PLAIN, tune_gains
from ditstack.testing import tiny_pipelines as tiny


class Prompts:
    """Four prompts whose latents are never looked at: `decibels` is told what to say."""

    prompts = ("a", "b", "c", "d")

    def __init__(self) -> None:
        self.told: list[str] = []
        self.tell = self.told.append

    def uncached_latents(self, places: range) -> torch.Tensor:
        return torch.zeros(len(places), 1)

    def latents(self, places: range) -> torch.Tensor:
        return torch.ones(len(places), 1)


def tuned(gain: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, list[str]]:
    """What comes of gains that move each deciding prompt by so many decibels, from 20 dB on."""
    calls: list[int] = []

    def decibels(*_: Any) -> list[float]:
        calls.append(len(calls))
        return [20.0, 20.0] if len(calls) == 1 else [20.0 + one for one in gain]

    monkeypatch.setattr(gains, "decibels", decibels)
    monkeypatch.setattr(gains, "ROUNDS", 1)
    monkeypatch.setattr(gains._Loop, "linearise", lambda self, *_: (torch.eye(2), torch.ones(2)))
    run: Any = Prompts()
    store = FeatureCache.on(cached(tiny.flux()))
    return tune_gains(store, run, {}, kept_steps=2, split=False)["gains"], run.told


def test_a_clear_gain_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = tuned([1.0, 1.1], monkeypatch)
    assert not torch.equal(found, torch.tensor(PLAIN).repeat(2, 1))
    assert told[-1] == "gains kept"


def test_a_gain_whose_interval_holds_zero_is_not_kept_however_large_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = tuned([5.0, -0.1], monkeypatch)
    assert torch.equal(found, torch.tensor(PLAIN).repeat(2, 1))
    assert told[-1] == "no clear gain over plain first order, which is kept"
