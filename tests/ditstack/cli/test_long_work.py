"""Long work that a command does unasked is told: what is fitted, to how much, and how far it is."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditstack.cli.app import app

SAID = "[a red circle in the center on a plain gray background, a blue star in the top left on a pink background]"


def test_a_run_of_a_recipe_that_was_never_calibrated_says_what_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditstack.measure.told.PAUSE", 0.0)
    words = ["run", "tiny-none-native-icc", "--prompt", "a red circle", "--out", str(tmp_path / "out")]
    words += ["--set", "sampler.steps=3", "--set", f"calibration={SAID}", "--set", "model.device=cpu"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.stderr
    assert "cache: fitting to 2 prompts" in first.stderr
    assert "2 of 2" in first.stderr.partition("cache: fitting")[2].partition("tiny-none-native-icc:")[0]
    again = CliRunner().invoke(app, [*words, "--overwrite"])
    assert again.exit_code == 0, again.stderr
    assert "fitting" not in again.stderr
