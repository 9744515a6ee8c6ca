"""What a killed tuning had measured is taken over, where it still holds."""

from pathlib import Path
from typing import Any

import pytest

from ditstack.errors import BadFile
from ditstack.measure.bench import Trial
from ditstack.recipe.recipe import Recipe
from ditstack.tuning import tune
from tuners import painter, tuner


def test_a_killed_tuning_goes_on_where_it_was_and_chooses_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate, notes, told = ("psnr_min=35",), tmp_path / "tuned.yaml.tune", list[str]()

    def counted(most: int) -> list[str]:
        made: list[str] = []

        def trial(recipe: Recipe, prompts: list[str], **how: Any) -> Trial:
            if "against" in how:
                if len(made) == most:
                    raise KeyboardInterrupt
                made.append(f"{recipe.name} {len(prompts)}")
            return painter(0.004, 0.01)(recipe, prompts, **how)

        monkeypatch.setattr(tune, "trial", trial)
        return made

    def noting(*changes: str) -> tune.Tuner:
        one = tuner(*gate, *changes)
        one.notes, one.tell = notes, told.append
        return one

    every = counted(-1)
    whole = tuner(*gate).choose()
    before = counted(5)
    with pytest.raises(KeyboardInterrupt):
        noting().choose()
    after = counted(-1)
    search = noting()
    choice = search.choose()
    assert before + after == every
    assert len(before) == 5
    assert "5 measurements of an earlier run are taken over" in told
    assert whole is not None
    assert choice == whole
    counted(0)
    assert noting().choose() == whole, "nothing is left to measure"
    other = counted(-1)
    noting("psnr_worst_min=1").choose()
    assert len(other) == len(every)
    assert "what an earlier run measured is measured anew, since it had another recipe" in told
    search.finish()
    assert not notes.exists()


def test_a_file_that_holds_no_measurements_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tune, "trial", painter(0.004, 0.01))
    one = tuner("psnr_min=35")
    one.notes = tmp_path / "mine.tune"
    one.notes.write_text("my own words")
    with pytest.raises(BadFile, match="holds no measurements of a tuning; move it away"):
        one.choose()
    assert one.notes.read_text() == "my own words"
