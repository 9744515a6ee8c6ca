"""The committed matrix of the embedded model: a fixed part of it is measured again, and must agree."""

from pathlib import Path

import pytest
import yaml

from ditstack.files import write_atomically
from ditstack.matrix.cell import Bench
from ditstack.matrix.schema import Cell, Matrix, read
from ditstack.matrix.survey import Survey
from ditstack.recipe.recipe import Gate, Recipe
from results import matrix_file

AGAIN = ("lora-int8-native-none", "lora-none-native-svdcache", "none-none-native-svdcache")
"""The first two take four passes a picture; the last one knows the default cache's schedule."""


def committed() -> Matrix:
    return read(matrix_file())


def test_what_is_declared_agrees_with_what_was_measured() -> None:
    matrix = committed()
    assert not [f"{cell.name}: {cell.contradiction}" for cell in matrix.cells if cell.contradiction]
    assert len(matrix.prompts) >= 32
    assert all(cell.interaction is not None for cell in matrix.cells if cell.parts)


def test_a_fixed_part_of_the_matrix_is_measured_again_and_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = committed()
    monkeypatch.setattr("ditstack.matrix.survey.GATE", Gate.model_validate(matrix.gate))
    survey = Survey.of(Recipe.read(matrix.model), matrix.axes, matrix.prompts)
    write_atomically(tmp_path / "work" / "survey.json", survey.model_dump_json().encode())
    bench = Bench(tmp_path / "work")
    for cell in matrix.cells:
        if cell.name in AGAIN:
            agree(bench.record(cell.words).cell, cell)


def agree(now: Cell, then: Cell) -> None:
    """Within what another processor's sums may differ by."""
    assert (now.status, now.steps) == (then.status, then.steps)
    # read again, as a field that came since stands at its default there
    assert Recipe.parse(yaml.safe_load(then.recipe)).resolved() == yaml.safe_load(now.recipe)
    assert now.macs_ratio == pytest.approx(then.macs_ratio, rel=1e-6)
    assert now.to_baseline["psnr"].mean == pytest.approx(then.to_baseline["psnr"].mean, abs=0.2)
    assert now.to_baseline["ssim"].mean == pytest.approx(then.to_baseline["ssim"].mean, abs=2e-3)
    assert now.own["agreement.all"].mean == pytest.approx(then.own["agreement.all"].mean, abs=1 / 32 + 1e-9)
