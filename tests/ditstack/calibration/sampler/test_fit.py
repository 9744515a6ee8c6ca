"""A sampler fitted to a tiny pipeline: its loss falls, its gradient is right, a killed fit goes on, weights stay."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.assembly.build import build
from ditstack.calibration.run import CalibrationRun, Partial
from ditstack.calibration.sampler.fit import WAYS, SamplerFit, SamplerWish
from ditstack.calibration.sampler.gradient import ByGradient
from ditstack.calibration.sampler.loss import loss_of
from ditstack.calibration.trajectories import differentiable
from ditstack.maths.multistep import Method, Parameters
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle", "a blue star", "a green square", "a white ring"]


def run(folder: Path | None = None, quantize: str | None = None) -> CalibrationRun:
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": 3, "size": "16x16"}}
    data |= {"quantize": {"method": "torchao", "scheme": quantize}} if quantize else {}
    recipe = Recipe.parse(data, "r")
    partial = Partial(folder / "partial", {}) if folder else Partial()
    return CalibrationRun(build(recipe, tiny.flux()), P, recipe.sampler, lambda text: None, partial=partial)


def wish(iterations: int = 4, by: str = "gradient") -> SamplerWish:
    return SamplerWish(2, iterations, 3, by, reference_steps=6, tries=2)


def begun(fit: SamplerFit) -> Parameters:
    """The free numbers, as Adams-Bashforth 2."""
    return Parameters(fit.grid.process, fit.grid.spread(fit.wish.evaluations), fit.grid.end)


def loss(fit: SamplerFit, method: Any) -> float:
    with torch.no_grad():
        return float(loss_of(fit.run(method, [0, 1, 2]), fit.aims[:3]))


@pytest.mark.parametrize("by", ["gradient", "probes"])
def test_what_is_found_is_no_worse_on_other_prompts_than_where_it_began(by: str) -> None:
    calibration = run()
    fit = SamplerFit(calibration.pipe, calibration, wish(2, by))
    parameters = begun(fit)
    before = fit.score(parameters.method())
    assert sum(fit.score(WAYS[by](fit).descend(parameters, before))) >= sum(before)


def test_a_small_step_along_the_gradient_lowers_the_loss() -> None:
    calibration = run()
    fit = SamplerFit(calibration.pipe, calibration, wish())
    parameters = begun(fit)
    before = loss(fit, parameters.method())
    ByGradient(fit).backward(parameters, [0, 1, 2])
    with torch.no_grad():
        size = sum(float(one.grad.square().sum()) for one in parameters.parameters() if one.grad is not None)
        for one in parameters.parameters():
            assert one.grad is not None
            one -= 1e-5 * one.grad / size**0.5  # the loss bends within 1e-4: a time is told in thousandths
    assert loss(fit, parameters.method()) < before


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_the_gradient_through_all_evaluations_is_that_of_differences(quantize: str | None) -> None:
    calibration = run(quantize=quantize)
    fit = SamplerFit(calibration.pipe, calibration, wish())
    parameters = begun(fit)
    with differentiable(fit.pipe):
        loss_of(fit.run(parameters.method(), [0, 1, 2]), fit.aims[:3]).backward()
    assert parameters.changes.grad is not None
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            parameters.changes[1, 0] += sign * 1e-2
            values.append(loss(fit, parameters.method()))
            parameters.changes[1, 0] -= sign * 1e-2
    assert float(parameters.changes.grad[1, 0]) == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.05)


def test_with_as_many_evaluations_as_the_reference_it_starts_as_the_reference() -> None:
    calibration = run()
    fit = SamplerFit(calibration.pipe, calibration, SamplerWish(6, 1, 3, reference_steps=6, grid_steps=6))
    assert min(fit.score(begun(fit).method())) > 90


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_gradient_that_holds_every_evaluation_is_the_one_that_runs_them_again(quantize: str | None) -> None:
    calibration, found = run(quantize=quantize), []
    fit = SamplerFit(calibration.pipe, calibration, wish())
    for again in (True, False):
        parameters, way = begun(fit), ByGradient(fit)
        way.again = again
        way.backward(parameters, [0, 1, 2])
        found.append([one.grad for one in parameters.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_held_at_once_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = run()
    fit = SamplerFit(calibration.pipe, calibration, wish())
    way = ByGradient(fit)
    for held, again in ((2**30, False), (2**16, True)):
        monkeypatch.setattr("ditstack.calibration.trajectories.HELD", held)
        way.hold(begun(fit))
        assert way.again is again
    monkeypatch.setattr("ditstack.calibration.trajectories.HELD", 2**30)
    monkeypatch.setattr("ditstack.calibration.trajectories.LARGE", 100)
    way.hold(begun(fit))
    assert way.again, "a large transformer is not tried"


def test_a_fit_begins_from_numbers_that_are_known_already() -> None:
    calibration = run()
    found = SamplerFit(calibration.pipe, calibration, wish(2)).tensors()
    fit = SamplerFit(calibration.pipe, calibration, SamplerWish(2, 1, 3, reference_steps=6, start=Method(**found)))
    again = begun(fit)
    again.start_from(Method(**found))
    for name, one in again.method().tensors().items():
        torch.testing.assert_close(one.detach(), found[name], rtol=1e-4, atol=1e-4)
    assert sum(fit.score(Method(**fit.tensors()))) >= sum(fit.score(Method(**found)))


def test_after_a_fit_the_pipe_is_as_it_was() -> None:
    calibration = run(quantize="int8")
    pipe = calibration.pipe
    own, transformer = pipe.pipeline.scheduler, pipe.transformers["transformer"]
    weights = {name: id(one) for name, one in transformer.named_parameters()}
    wanted = {name: one.requires_grad for name, one in transformer.named_parameters()}
    before = calibration.latents()
    SamplerFit(pipe, calibration, wish(2)).tensors()
    assert pipe.pipeline.scheduler is own
    assert {name: id(one) for name, one in transformer.named_parameters()} == weights
    assert {name: one.requires_grad for name, one in transformer.named_parameters()} == wanted
    assert torch.equal(calibration.latents(), before)


@pytest.mark.parametrize("by", ["gradient", "probes"])
def test_a_killed_fit_goes_on_to_the_same_numbers(by: str, tmp_path: Path) -> None:
    whole = SamplerFit(run().pipe, run(), wish(4, by)).tensors()

    def stop(part: str, done: int, count: int) -> None:
        if part == "sampler" and done >= (2 if by == "gradient" else 5):  # of 4 iterations, or of 4 times 2 prompts
            raise KeyboardInterrupt

    killed = run(tmp_path)
    killed.bar = stop
    killed.partial.keep = lambda part, tensors, at_once=False, keep=killed.partial.keep: keep(part, tensors, True)
    with pytest.raises(KeyboardInterrupt):
        SamplerFit(killed.pipe, killed, wish(4, by)).tensors()
    again = SamplerFit(run(tmp_path).pipe, run(tmp_path), wish(4, by)).tensors()
    for name, one in whole.items():
        torch.testing.assert_close(again[name], one, rtol=1e-5, atol=1e-5)
