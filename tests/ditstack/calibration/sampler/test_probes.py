"""Probes: what is replayed changes nothing, derivatives are those of the graph, and a step goes down."""

from typing import Any

import pytest
import torch

from ditstack.assembly.build import build
from ditstack.calibration.run import SEED, CalibrationRun
from ditstack.calibration.sampler import probes
from ditstack.calibration.sampler.fit import SamplerFit, SamplerWish
from ditstack.calibration.sampler.loss import loss_of
from ditstack.calibration.sampler.pictures import decoded
from ditstack.calibration.sampler.probes import ByProbes, Normal, chain, numbers_of, read
from ditstack.calibration.sampler.tape import Tape
from ditstack.calibration.trajectories import differentiable, stepped
from ditstack.maths.multistep import Method, Parameters
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

P = ["a red circle", "a blue star", "a green square", "a white ring"]


@pytest.fixture(scope="module")
def fit() -> SamplerFit:
    data: dict[str, Any] = {"model": {"method": "flux", "device": "cpu"}, "sampler": {"steps": 3, "size": "16x16"}}
    recipe = Recipe.parse(data, "r")
    calibration = CalibrationRun(build(recipe, tiny.flux()), P, recipe.sampler, lambda text: None)
    return SamplerFit(calibration.pipe, calibration, SamplerWish(3, 2, 2, reference_steps=6, tries=1))


def begun(fit: SamplerFit) -> Parameters:
    return Parameters(fit.grid.process, fit.grid.spread(3), fit.grid.end)


def test_what_was_evaluated_before_a_moved_number_is_not_run_again_and_says_the_same(fit: SamplerFit) -> None:
    method, ran = begun(fit).method(), []
    transformer: Any = fit.pipe.transformers["transformer"]
    counted = transformer.norm_out.register_forward_hook(
        lambda *_: ran.append(1)
    )  # the transformer's own are heard anyway
    tape = Tape(fit.pipe)
    with tape.running():
        fit.run(method, [0])
        whole = len(ran)
        for number in numbers_of(method):
            ran.clear()
            tape.replay(number.again)
            replayed = fit.run(number.moved(method), [0])
            assert len(ran) == whole * (3 - number.again) // 3
            tape.replay(0)
            torch.testing.assert_close(replayed, fit.run(number.moved(method), [0]))
    counted.remove()


def test_what_probes_find_is_the_gradient(fit: SamplerFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "COEFFICIENT", 1e-3)
    parameters = begun(fit)
    method = parameters.method()
    found = Normal.of(fit.pipe, fit.run, fit.aims[[0, 1]], method, [0, 1], 0)
    weights = probes.shares_of(found.distance) / found.distance
    slope = 2 * chain(parameters, numbers_of(method)).T @ (found.slope.T @ weights)
    with differentiable(fit.pipe):
        loss_of(fit.run(method, [0, 1]), fit.aims[[0, 1]]).backward()
    changes = next(place for place, (name, _) in enumerate(parameters.named_parameters()) if name == "changes")
    before = sum(one.numel() for one in list(parameters.parameters())[:changes])
    exact = parameters.changes.grad
    assert exact is not None
    torch.testing.assert_close(
        slope[before : before + 9].view(3, 3), exact, rtol=0.05, atol=0.02 * float(exact.abs().max())
    )


def test_linear_pictures_are_solved_for_in_one_step() -> None:
    draw = torch.Generator().manual_seed(0)
    j_QPD, wanted = torch.randn(3, 5, 40, generator=draw, dtype=torch.double), torch.tensor([0.3, -0.2, 0.1]).double()
    off = -torch.einsum("qpd,q->pd", j_QPD, wanted)
    found = Normal(
        torch.einsum("qpd,rpd->pqr", j_QPD, j_QPD) / 40,
        torch.einsum("qpd,pd->pq", j_QPD, off) / 40,
        off.square().mean(1),
        torch.zeros(5, 3).double(),
        torch.arange(5),
        torch.zeros(5),
    )
    torch.testing.assert_close(
        found.step(torch.zeros(3).double(), torch.eye(3).double(), 0.0), wanted, rtol=1e-2, atol=1e-2
    )
    halfway = found.step(wanted / 2, torch.eye(3).double(), 0.0)
    torch.testing.assert_close(halfway, wanted / 2, rtol=1e-2, atol=1e-2)


def test_a_prompt_that_is_probed_again_counts_once_and_an_old_one_no_more(fit: SamplerFit) -> None:
    method = begun(fit).method()
    first = Normal.of(fit.pipe, fit.run, fit.aims[[0, 1]], method, [0, 1], 0)
    again = first + Normal.of(fit.pipe, fit.run, fit.aims[[1]], method, [1], 1)
    assert again.place.tolist() == [0, 1]
    assert again.since(1).place.tolist() == [1]
    assert read(method, numbers_of(method)).shape == again.around[0].shape


def test_an_iteration_lowers_the_loss_of_its_prompts(fit: SamplerFit) -> None:
    way, parameters = ByProbes(fit), begun(fit)
    places = fit.turn(0, probes.PROBED)
    before = way._loss(parameters.method(), places)
    way._move(parameters, 0, 1)
    assert way._loss(parameters.method(), places) < before


def test_latents_are_decoded_as_the_pipeline_decodes_its_own(fit: SamplerFit) -> None:
    method = Method(**{name: one.detach() for name, one in begun(fit).method().tensors().items()})
    sampler = fit.calibration.sampler
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        scheduler, three = fit.grid.scheduler(method), sampler.changed(steps=3)
        stepped(fit.pipe, scheduler, P[:2], [SEED, SEED + 1], three, lambda _, __, after: seen.append(after))
    found = decoded(fit.pipe, fit.grid, seen[-1], P[:2], [0, 0], sampler)
    torch.testing.assert_close(found, fit.run(method, [0, 1]).detach(), rtol=1e-4, atol=1e-4)


def test_a_diffusion_process_whose_pipeline_steps_both_halves_of_guidance_is_fitted_too() -> None:
    data: dict[str, Any] = {"model": {"method": "dit", "device": "cpu"}, "sampler": {"steps": 4, "guidance": 2.0}}
    recipe = Recipe.parse(data, "r")
    calibration = CalibrationRun(build(recipe, tiny.dit()), list("1234"), recipe.sampler, lambda text: None)
    fit = SamplerFit(calibration.pipe, calibration, SamplerWish(2, 1, 4, reference_steps=4, grid_steps=4, tries=2))
    assert min(fit.score(fit.grid.method(4), [0])) > 60, "the converged run is its own aim"
    start = fit.start()[1]
    assert sum(fit.score(Method(**fit.tensors()))) >= sum(fit.score(start))
