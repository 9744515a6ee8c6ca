"""Run: what was made is kept, whatever comes after it."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from ditstack.errors import BadFile, BadPipeline
from ditstack.folders import rewrite_own
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


def test_a_comparison_is_overwritten_like_any_run_and_a_changed_report_stays(tmp_path: Path) -> None:
    job = run.Job(Recipe.read("tiny", ["sampler.steps=2"]), ["a red circle"], tmp_path / "out", compare=True)
    job.overwrite = True
    for _ in range(2):
        job.run(Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["out"]
    assert json.loads((job.folder / "report.json").read_text())["compare"]["speedup"] > 0
    (job.folder / "report.json").write_text("mine")
    with pytest.raises(BadFile, match=r"report.json was changed by somebody else meanwhile, and is left alone"):
        rewrite_own(job.folder, "report.json", b"{}")
