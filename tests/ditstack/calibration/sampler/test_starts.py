"""Starts: unfitted methods by their titles, each as the solver of that name paints."""

from typing import Any

import pytest
import torch

from ditstack.assembly.build import build
from ditstack.calibration.run import CalibrationRun
from ditstack.calibration.sampler.fit import SamplerFit, SamplerWish
from ditstack.calibration.sampler.starts import CROWDED, crowded, starts
from ditstack.maths.multistep import Method
from ditstack.recipe.recipe import Recipe
from ditstack.stack import apply
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle", "a blue star", "a green square", "a white ring"]
FLUX: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": 5, "size": "16x16"}}


@pytest.fixture(scope="module")
def fit() -> SamplerFit:
    recipe = Recipe.parse(FLUX, "r")
    calibration = CalibrationRun(build(recipe, tiny.flux()), P, recipe.sampler, lambda text: None)
    return SamplerFit(calibration.pipe, calibration, SamplerWish(5, reference_steps=6))


def test_a_start_paints_what_the_solver_of_its_name_does(fit: SamplerFit) -> None:
    found = starts(fit.pipe, fit.grid, fit.calibration.sampler, 5, 50, P[:1])
    solvers = {"DPM-Solver++ 2M": ("DPMSolverMultistepScheduler", 2), "UniPC, order 3": ("UniPCMultistepScheduler", 3)}
    for title, (name, order) in solvers.items():
        sampler = {**FLUX["sampler"], "scheduler": name, "settings": {"solver_order": order}}
        stack = apply(tiny.flux(), Recipe.parse({**FLUX, "sampler": sampler}, "r"))
        theirs = stack.sample(P[:2], [10_000_000, 10_000_001]).images
        torch.testing.assert_close(fit.run(found[title], [0, 1]), theirs, rtol=1e-3, atol=1e-3)


def test_there_are_several_solvers_each_on_times_that_crowd_more_or_less_towards_noise(fit: SamplerFit) -> None:
    found = starts(fit.pipe, fit.grid, fit.calibration.sampler, 5, 50, P[:1])
    assert {title.partition(", its")[0] for title in found} >= {"Euler", "Adams-Bashforth 2", "UniPC, order 2"}
    for title in ("Euler", "UniPC, order 2"):
        middle = [float(one.nodes[2]) for name, one in found.items() if name.partition(", its")[0] == title]
        assert middle == sorted(set(middle)), "the later times of a factor above one are nearer to noise"
        assert len(middle) == len(CROWDED)


def test_crowded_times_keep_their_first_and_their_order() -> None:
    times = torch.tensor([999.0, 800.0, 500.0, 100.0], dtype=torch.double)
    assert torch.equal(crowded(times, 1.0, 1000), times)
    moved = crowded(times, 2.0, 1000)
    assert moved[0] == 999
    assert (moved.diff() < 0).all()
    assert (moved[1:] > times[1:]).all()


def test_the_fit_begins_as_the_best_of_them_or_as_what_it_is_given(
    fit: SamplerFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    title, method = fit.start()
    best = sum(fit.score(method, [0, 1]))
    found = starts(fit.pipe, fit.grid, fit.calibration.sampler, 5, 50, P[:1])
    assert best == pytest.approx(max(sum(fit.score(one, [0, 1])) for one in found.values()))
    exact = fit.grid.method(6)
    given = Method(exact.times[:5], torch.cat([exact.nodes[:5], exact.nodes[-1:]]), found[title].coefficients)
    monkeypatch.setattr(fit, "score", lambda one, places=None: [float(one is given)])
    monkeypatch.setattr(fit, "wish", SamplerWish(5, start=given))
    assert fit.start() == ("what it started from", given)
