"""Regression: coefficients by least squares in closed loop, and the search for the times that they follow from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.assembly.build import build
from ditstack.calibration.converged import converged
from ditstack.calibration.run import CalibrationRun, Partial
from ditstack.calibration.sampler.fit import SamplerFit, SamplerWish
from ditstack.calibration.sampler.regression import Moments, Regression
from ditstack.calibration.sampler.search import Search
from ditstack.calibration.trajectories import stepped
from ditstack.maths.multistep import gaps_of, times_of
from ditstack.maths.trajectory import Trajectory
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle", "a blue star", "a green square", "a white ring"]
MADE: dict[str, Callable[[], Any]] = {"flux": tiny.flux, "dit": tiny.dit}


def begun(family: str = "flux", folder: Path | None = None, batch: int = 2, evaluations: int = 3) -> SamplerFit:
    sampler = {"steps": 4, "guidance": 2.0} | ({"size": "16x16"} if family == "flux" else {})
    recipe = Recipe.parse({"model": {"method": family, "device": "cpu"}, "sampler": sampler}, "r")
    prompts = P if family == "flux" else list("1234")
    if folder:
        folder.mkdir(exist_ok=True)
    partial = Partial(folder / "partial", {}) if folder else Partial()
    pipe = build(recipe, MADE[family]())
    run = CalibrationRun(pipe, prompts, recipe.sampler, lambda text: None, partial=partial)
    return SamplerFit(pipe, run, SamplerWish(evaluations, 1, batch, reference_steps=12, grid_steps=4))


def test_coefficients_that_are_exact_are_found() -> None:
    draw = torch.Generator().manual_seed(0)
    outputs = [torch.randn(5, 4, 8, generator=draw) for _ in range(3)]
    way = 1.4 * outputs[0] - 0.5 * outputs[1] + 0.1 * outputs[2]
    torch.testing.assert_close(
        Moments.of(outputs, way).solve().float(), torch.tensor([1.4, -0.5, 0.1]), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("family", MADE)
def test_its_pictures_are_nearer_than_those_of_unfitted_coefficients_at_the_same_times(family: str) -> None:
    fit = begun(family)
    times = fit.grid.spread(3)
    method, _ = Regression(fit, [0, 1]).method(times)
    torch.testing.assert_close(method.times.double(), times, rtol=1e-6, atol=1e-4)
    assert sum(fit.score(method, [0, 1])) > max(sum(fit.score(fit.grid.method(3, order), [0, 1])) for order in (1, 2))


def test_it_is_the_same_for_prompts_that_are_run_in_other_batches_and_asks_the_model_once_for_each_evaluation() -> None:
    found = []
    for batch in (1, 2, 4):
        fit, ran = begun(batch=batch), []
        transformer: Any = fit.pipe.transformers["transformer"]
        transformer.norm_out.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        found.append(Regression(fit, range(4)).method(fit.grid.spread(3)))
        assert len(ran) == 3 * 4 // batch, "three evaluations of each batch"
    for method, loss in found[1:]:
        torch.testing.assert_close(method.coefficients, found[0][0].coefficients, rtol=1e-3, atol=1e-3)
        assert loss == pytest.approx(found[0][1], abs=0.02)


def test_searched_times_are_no_worse_and_a_killed_search_goes_on_to_the_same(tmp_path: Path) -> None:
    whole = begun(folder=tmp_path / "whole")
    start = whole.grid.spread(3)
    first = Regression(whole, list(whole.fitted)).method(start)[1]
    best = Search(whole, 4).best([start])
    assert Regression(whole, list(whole.fitted)).method(best.times.double())[1] <= first

    def stop(part: str, done: int, count: int) -> None:
        if part == "sampler's times" and done == 3:
            raise KeyboardInterrupt

    killed: Any = begun(folder=tmp_path / "killed")
    killed.calibration.bar = stop
    with pytest.raises(KeyboardInterrupt):
        Search(killed, 4).best([start])
    again, ran = begun(folder=tmp_path / "killed"), []
    anew: Any = again.calibration
    anew.bar = lambda part, done, count: ran.append(done)
    for one, other in zip(Search(again, 4).best([start]).tensors().values(), best.tensors().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert ran == [4, 5]
    sizes = [float(one.calibration.partial.of("search")["size"]) for one in (whole, again)]
    assert sizes[0] == sizes[1]


def test_gaps_and_times_are_each_others_inverse() -> None:
    times = torch.tensor([981.0, 700.0, 690.0, 20.0], dtype=torch.double)
    torch.testing.assert_close(times_of(gaps_of(times), 981.0), times)


def test_between_kept_latents_stands_the_cubic_through_the_nearest_four_and_at_its_end_the_picture() -> None:
    times = torch.tensor([1000.0, 900.0, 800.0, 500.0, 300.0, 200.0, 100.0, 0.0], dtype=torch.double)
    draw = torch.Generator().manual_seed(1)
    a, b, c, d, other = (torch.randn(3, 4, 2, generator=draw) for _ in range(5))

    def exact(time: float) -> torch.Tensor:
        t = time / 1000
        return a + b * t + c * t**2 + (d if time >= 500 else other) * (t - 0.5) ** 3

    found = Trajectory(times, torch.stack([exact(one) for one in times[:-1].tolist()]), exact(0.0))
    for time in (1000.0, 930.0, 840.0, 150.0, 40.0):
        torch.testing.assert_close(found.at(time, [2, 0]), exact(time)[[2, 0]], rtol=1e-4, atol=1e-4)
    assert torch.equal(found.at(0.0, [1]), exact(0.0)[[1]])


@pytest.mark.parametrize("family", MADE)
def test_what_is_kept_of_a_converged_run_is_where_it_was(family: str) -> None:
    fit = begun(family)
    grid = fit.grid
    found = converged(fit.pipe, grid, fit.calibration, 12)
    assert len(found.times) == len(found.along) + 1
    assert float(found.times[0]) == float(grid.times[0])
    shorter = grid.method(12)
    with torch.no_grad():
        seen: dict[int, torch.Tensor] = {}
        scheduler, sampler = grid.scheduler(shorter), fit.calibration.sampler.changed(steps=len(shorter))
        stepped(fit.pipe, scheduler, *fit.of([0]), sampler, lambda done, before, _: seen.update({done - 1: before}))
    torch.testing.assert_close(found.along[1, :1].float(), seen[3].cpu(), rtol=2e-3, atol=2e-3)
