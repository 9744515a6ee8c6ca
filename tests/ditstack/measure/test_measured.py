"""Seconds a picture on the shelf, from a made-up report of a made-up GPU."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import shelf_figures
from ditstack.cli.app import app
from ditstack.errors import BadFile
from ditstack.measure import measured
from ditstack.measure.measured import FILE, measured_seconds
from ditstack.recipe.recipe import Recipe

NAME = "flux-int8-sage-svdcache"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shelf's folder with what was measured of one recipe; a row of other steps and a refused one are none of it."""
    own = {"steps": 28, "recipe": Recipe.read(NAME).to_yaml()}
    rows = [
        {"name": "fewer steps", **own, "steps": 20, "seconds": 0.1},
        {"name": "refused", **own, "refused": "no room"},
        {"name": "its own", **own, "seconds": 1.2345},
    ]
    results = tmp_path / "imaginary_2030-01-01"
    results.mkdir()
    (results / "gpu_flux.json").write_text(json.dumps({"machine": "Imaginary GPU", "rows": rows}))
    shelf_figures.main([str(results), "--shelf", str(tmp_path)])
    monkeypatch.setattr(measured, "shelf", lambda: tmp_path)
    return tmp_path


def test_a_recipe_that_a_gpu_report_has_is_shown_with_its_seconds(shelf: Path) -> None:
    (found,) = measured_seconds().values()
    assert (found.seconds, found.device, found.report) == (
        1.2345,
        "Imaginary GPU",
        "imaginary_2030-01-01/gpu_flux.json",
    )
    said = CliRunner().invoke(app, ["recipes"]).output.splitlines()
    assert [line.split()[0] for line in said if "1.23 s a picture on Imaginary GPU" in line] == [NAME]
    rows = {row["recipe"]: row for row in json.loads(CliRunner().invoke(app, ["recipes", "--json"]).output)}
    assert rows[NAME]["seconds"]["seconds"] == 1.2345
    assert rows["flux"]["seconds"] is None


def test_without_a_report_nothing_is_said_and_a_torn_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "shelf", lambda: tmp_path)
    assert measured_seconds() == {}
    (tmp_path / FILE).write_text('{"recipes": ')
    with pytest.raises(BadFile, match=r"benchmarks/shelf_figures\.py"):
        measured_seconds()
