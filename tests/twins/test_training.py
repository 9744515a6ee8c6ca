"""A twin's training goes on where a kill stopped it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from twinning import train
from twinning.train import Run, begin


class Killed(Exception):
    """Stands for a signal that no program survives."""


class Stub:
    """Two blocks that learn to say nothing; killed after so many steps, if asked to be."""

    name, muon_rate = "stub", 0.02

    def __init__(self, killed_at: int | None = None) -> None:
        self.killed_at, self.steps = killed_at, 0

    def painter(self) -> Any:
        painter: Any = nn.Module()
        painter.transformer = nn.Module()
        painter.transformer.transformer_blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        return painter

    def batch(self, seen: int) -> int:
        return 4

    def loss(self, painter: Any, rng: np.random.Generator, size: int, seen: int) -> tuple[Tensor, Tensor]:
        if self.steps == self.killed_at:
            raise Killed
        self.steps += 1
        x = torch.randn(size, 4)
        for block in painter.transformer.transformer_blocks:
            x = block(x)
        return torch.rand(size), x.square().mean(1)


@pytest.fixture(autouse=True)
def _save_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)


class Clock:
    """A second passes with every step; nothing else takes time."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(train, "time", made)
    step = train.step

    def timed(*words: Any) -> tuple[Tensor, Tensor]:
        made.now += 1
        return step(*words)

    monkeypatch.setattr(train, "step", timed)
    return made


def run(twin: Stub, folder: Path, clock: Clock, seconds: float) -> Run:
    return train.train(twin, folder, clock.now + seconds, seed=3, compiled=False)


def momenta(of: Run) -> list[Tensor]:
    states = [state for optimizer in of.optimizers for state in optimizer.state.values()]
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def test_a_killed_run_goes_on_with_weights_optimizers_and_counts(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(Killed):
        run(Stub(killed_at=5), tmp_path, clock, 60)
    taken_up = begin(Stub(), tmp_path, seed=3)
    assert (taken_up.steps, taken_up.samples) == (5, 20)
    assert any(momentum.any() for momentum in momenta(taken_up))
    again = begin(Stub(), tmp_path, seed=4)
    for one, other in zip(momenta(taken_up), momenta(again), strict=True):
        assert torch.equal(one, other)
    for name, value in taken_up.painter.state_dict().items():
        assert torch.equal(value, again.painter.state_dict()[name])
    assert run(Stub(), tmp_path, clock, 3).steps == 8


def test_a_kill_while_saving_leaves_the_state_before(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(Killed):
        run(Stub(killed_at=3), tmp_path, clock, 60)
    (tmp_path / "state.new").write_bytes(b"torn")
    assert begin(Stub(), tmp_path, seed=3).steps == 3


def test_idle_time_between_two_starts_does_not_count(tmp_path: Path, clock: Clock) -> None:
    first = run(Stub(), tmp_path, clock, 2).trained
    clock.now += 1000
    assert run(Stub(), tmp_path, clock, 3).trained == first + 2
