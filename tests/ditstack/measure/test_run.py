"""Run: what was made is kept, whatever comes after it."""

from pathlib import Path

import pytest
from rich.console import Console

from ditstack.errors import BadPipeline
from ditstack.measure import run
from ditstack.recipe.recipe import Recipe


def test_a_figure_that_fails_takes_no_picture_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BadPipeline("a metric that cannot be taken")

    monkeypatch.setattr(run, "compare", fail)
    job = run.Job(Recipe.read("tiny", ["sampler.steps=2"]), ["a red circle"], tmp_path / "out", compare=True)
    with pytest.raises(BadPipeline):
        job.run(Console(quiet=True))
    kept = {str(path.relative_to(job.folder)) for path in job.folder.rglob("*.*")}
    assert {"000-a-red-circle.png", "plain/000-a-red-circle.png", "grid.png", "recipe.yaml", "report.json"} <= kept
