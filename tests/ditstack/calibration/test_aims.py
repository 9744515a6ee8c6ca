"""Aims: a sampler is fitted towards the unrounded model, which is gone before the rounded one is made."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ditstack import Recipe, apply
from ditstack.assembly.build import build
from ditstack.calibration.aims import WEIGHTS_ARE_CHANGED, wants_aims
from ditstack.calibration.calibrate import calibrate
from ditstack.calibration.converged import converged
from ditstack.calibration.run import CalibrationRun
from ditstack.calibration.sampler.fit import SamplerWish
from ditstack.calibration.trajectories import read_grid
from ditstack.factors import Factors, fingerprint
from ditstack.maths.trajectory import Trajectory
from ditstack.testing import tiny_pipelines as tiny
from ditstack_adapters.distill.solver import FittedSolver

P = ["a red circle", "a blue star", "a green square", "a white ring"]
STEPS = 6
SOLVER = {
    "method": "solver",
    "evaluations": 2,
    "iterations": 1,
    "tries": 1,
    "batch": 1,
    "calibrate": "auto",
    "baseline_steps": 4,
}


class Killed(BaseException):
    """As if by a signal."""


def recipe(scheme: str | None = "int4", **changes: Any) -> Recipe:
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "distill": {**SOLVER, **changes},
        "sampler": {"size": "16x16"},
        "calibration": P,
        **({"quantize": {"method": "torchao", "scheme": scheme}} if scheme else {}),
    }
    return Recipe.parse(data, "aims")


@pytest.fixture(autouse=True)
def aimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Trajectory | None]:
    """What each fit was given to aim at."""
    seen: list[Trajectory | None] = []
    fit = FittedSolver.fit

    def noting(self: FittedSolver, pipe: Any, calibration: CalibrationRun) -> dict[str, Tensor]:
        seen.append(calibration.aims)
        return fit(self, pipe, calibration)

    monkeypatch.setattr(FittedSolver, "fit", noting)
    monkeypatch.setattr(SamplerWish, "reference_steps", STEPS)
    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))
    return seen


def of_plain() -> Tensor:
    plain = recipe().plain()
    pipe = build(plain, tiny.flux())
    run = CalibrationRun(pipe, P, plain.sampler, lambda text: None)
    return converged(pipe, read_grid(pipe, plain.sampler, 4, P[:1]), run, STEPS).final


def test_on_rounded_weights_it_aims_at_what_the_unrounded_ones_tend_to(
    aimed: list[Trajectory | None], tmp_path: Path
) -> None:
    stack = apply(tiny.flux(), recipe())
    calibrate(recipe(), P, tmp_path / "f", lambda text: None)
    plain, whole = of_plain(), fingerprint({"transformer": tiny.flux().transformer})
    for one in aimed:
        assert one is not None
        torch.testing.assert_close(one.final, plain, rtol=0, atol=0)
    for factors in (stack.factors, Factors.load(tmp_path / "f")):
        assert factors is not None
        assert factors.conditions["aims"] == f"{STEPS} steps of the unaccelerated model, weights {whole}"
    assert len(aimed) == 2
    assert WEIGHTS_ARE_CHANGED not in stack.notes


def test_the_unrounded_model_is_gone_before_the_rounded_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def load(self: Any, **_: Any) -> Any:
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        pipeline = tiny.flux()
        made.append(weakref.ref(pipeline.transformer))
        return pipeline

    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", load)
    calibrate(recipe(), P, tmp_path / "f", lambda text: None)
    assert alive == [0, 0]


def test_aims_that_a_killed_calibration_had_are_not_made_again(
    aimed: list[Trajectory | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until(part: str) -> Any:
        def bar(now: str, done: int, count: int) -> None:
            if now == part:
                raise Killed

        return bar

    with pytest.raises(Killed):
        calibrate(recipe(), P, tmp_path / "f", lambda text: None, until("sampler"))
    with monkeypatch.context() as inside:
        inside.setattr("ditstack.calibration.converged.stepped", lambda *_: pytest.fail("made again"))
        with pytest.raises(Killed):
            calibrate(recipe(), P, tmp_path / "f", lambda text: None, until("converged latents"))
    calibrate(recipe(), P, tmp_path / "f", lambda text: None)
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
    assert len(aimed) == 2


def test_the_stack_itself_is_aimed_at_where_that_is_asked_for_or_nothing_is_rounded(
    aimed: list[Trajectory | None],
) -> None:
    for one in (recipe(aim="stack"), recipe(scheme=None)):
        assert not wants_aims(one)
        apply(tiny.flux(), one)
    assert aimed == [None, None]


def test_refitted_to_weights_that_are_rounded_already_it_says_what_it_aims_at(aimed: list[Trajectory | None]) -> None:
    stack = apply(tiny.flux(), recipe())
    again = apply(stack.pipeline, recipe(evaluations=3))
    assert aimed[1] is None
    assert again.notes == [WEIGHTS_ARE_CHANGED]
