"""Fitted samplers in a matrix: beside the plain model as caches are, and fitted once for what runs in each cell."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.calibration.aims import Aims
from ditstack.files import write_atomically
from ditstack.maths.multistep import Method
from ditstack.matrix.cell import Bench, Record
from ditstack.matrix.combine import Job
from ditstack.matrix.schema import Cell
from ditstack.matrix.survey import Survey, name_of
from ditstack.measure.bench import weight_bytes
from ditstack.recipe.recipe import Recipe
from ditstack_adapters.distill.solver import FittedSolver


def survey(axes: dict[str, list[str]], steps: int = 4) -> Survey:
    base = Recipe.read("tiny", [f"sampler.steps={steps}", "sampler.guidance=1.0", "quality.psnr_min=40"])
    return Survey.of(base, axes, list(base.prompts[:1]))


def bench(folder: Path, asked: Survey) -> Bench:
    write_atomically(folder / "survey.json", asked.model_dump_json().encode())
    return Bench(folder)


def test_a_fitted_sampler_accelerates_the_plain_model_where_a_lora_is_a_baseline_of_its_own() -> None:
    asked = survey(
        {"distill": ["none", "lora", "solver.3"], "quantize": ["none", "int8"], "cache": ["none", "svdcache"]}, 12
    )
    fitted = {"distill": "solver.3", "quantize": "int8", "cache": "svdcache"}
    assert asked.recipe(fitted).sampler.steps == 3
    assert asked.plain(fitted) == asked.plain({}), "with the steps of the base recipe, not the method's default"
    assert asked.plain({**fitted, "distill": "lora"}) != asked.plain({})
    assert [name_of(part) for part in asked.parts(fitted)] == [
        "solver.3-none-none",
        "none-int8-none",
        "none-none-svdcache",
    ]
    assert not asked.is_sampler_alone({"distill": "solver.3", "quantize": "none", "cache": "none"}), "it has a control"
    assert asked.few() == [("none", 4), ("none", 8), ("lora", 4)], "one step fewer of it is another fit"
    own = Recipe.read("tiny-int8-native-none-9eval", ["distill.baseline_steps=28"])
    assert Survey.of(own, asked.axes, ["x"]).plain(fitted).sampler.steps == 28


def test_what_stands_on_a_fitted_sampler_is_fitted_once_for_each_cell_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = survey({"distill": ["none", "solver.3"], "quantize": ["none", "int8"]})
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ditstack.calibration.calibrate.plain_aims", lambda *_: Aims())
    fits: list[int] = []

    def of_euler(self: FittedSolver, pipe: Any, calibration: Any) -> dict[str, Any]:
        fits.append(weight_bytes(pipe))
        sigmas = torch.tensor([1.0, 0.8, 0.5, 0.0])
        return Method(1000 * sigmas[:-1], sigmas, torch.ones(3, 1)).tensors()

    monkeypatch.setattr(FittedSolver, "fit", of_euler)
    words = {"distill": "solver.3", "quantize": "none"}
    alone = bench(tmp_path / "work", asked).record(words).cell
    assert (alone.steps, alone.macs_ratio, alone.to_plain) == ({"full": 3}, 0.75, {})
    assert 1 < alone.psnr_each[0] < math.inf, "to the plain model with all its steps"
    assert alone.control.startswith("3 evaluations, ")
    rounded = bench(tmp_path / "work", asked).record({**words, "quantize": "int8"}).cell
    assert len(fits) == 2, "the rounded weights have a fit of their own, and the unrounded ones keep theirs"
    assert fits[1] < fits[0]
    assert 1 < rounded.to_unquantized["psnr"].mean < math.inf
    assert rounded.control == alone.control
    bench(tmp_path / "work", asked).record({**words, "quantize": "int8"})
    assert len(fits) == 2, "a resumed matrix fits nothing again"


def test_another_solver_under_a_fitted_sampler_is_refused_and_the_matrix_goes_on(tmp_path: Path) -> None:
    asked = survey({"distill": ["none", "solver.3"], "sampler": ["none", "unipc-2"]})
    both = {"distill": "solver.3", "sampler": "unipc-2"}
    refused = bench(tmp_path / "work", asked).record(both).cell
    assert refused.status == "refused"
    assert "distill solver names 3 steps, and sampler.steps is 2" in refused.reasons[0]
    job = Job(asked, tmp_path)
    for chosen in asked.combinations():
        cell = refused if chosen == both else Cell(name=name_of(chosen), words=chosen, status="ok")
        write_atomically(job.work / f"{name_of(chosen)}.json", Record(cell=cell).model_dump_json().encode())
    assert [one.status for one in job.matrix().cells] == ["ok", "ok", "ok", "refused"]
