"""What a killed tuning had measured is taken over, where it still holds."""

from pathlib import Path
from typing import Any

import pytest

from ditstack.errors import BadFile
from ditstack.measure.bench import Trial
from ditstack.recipe.recipe import Recipe
from ditstack.tuning import tune
from ditstack.tuning.kept import SCORES, Kept
from tuners import painter, tuner

GATE = "psnr_min=35"


def counted(monkeypatch: pytest.MonkeyPatch, most: int = -1) -> list[str]:
    """What is measured from now on; after so many trials somebody presses Ctrl-C."""
    made: list[str] = []

    def trial(recipe: Recipe, prompts: list[str], **how: Any) -> Trial:
        if "against" in how:
            if len(made) == most:
                raise KeyboardInterrupt
            made.append(f"{recipe.name} {len(prompts)}")
        return painter(0.004, 0.01)(recipe, prompts, **how)

    monkeypatch.setattr(tune, "trial", trial)
    return made


def noting(notes: Path, told: list[str], *gate: str) -> tune.Tuner:
    one = tuner(GATE, *gate)
    one.notes, one.tell = notes, told.append
    return one


def test_a_killed_tuning_goes_on_where_it_was_and_chooses_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes, told = tmp_path / "tuned.yaml.tune", list[str]()
    every = counted(monkeypatch)
    whole = tuner(GATE).choose()
    assert whole is not None
    before = counted(monkeypatch, most=5)
    with pytest.raises(KeyboardInterrupt):
        noting(notes, told).choose()
    after = counted(monkeypatch)
    search = noting(notes, told)
    assert search.choose() == whole
    assert before + after == every
    assert len(before) == 5
    assert "5 measurements of an earlier run are taken over" in told
    counted(monkeypatch, most=0)
    assert noting(notes, told).choose() == whole, "nothing is left to measure"
    search.finish()
    assert not notes.exists()


def test_what_was_measured_under_other_conditions_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes, told = tmp_path / "tuned.yaml.tune", list[str]()
    first = counted(monkeypatch)
    noting(notes, told).choose()
    second = counted(monkeypatch)
    noting(notes, told, "psnr_worst_min=1").choose()
    assert len(second) == len(first)
    assert "what an earlier run measured is measured anew, since it had another recipe" in told


def test_a_file_that_holds_no_measurements_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted(monkeypatch)
    one = noting(tmp_path / "mine.tune", [])
    (tmp_path / "mine.tune").write_text("my own words")
    with pytest.raises(BadFile, match="holds no measurements of a tuning; move it away"):
        one.choose()
    assert (tmp_path / "mine.tune").read_text() == "my own words"


@pytest.mark.parametrize(
    "text",
    [
        "my own words",
        "[1]",
        '{"conditions": {}, "known": {"a": "words"}}',
        '{"conditions": {}, "runs": {}}',
        '{"known": {}}',
    ],
)
def test_a_file_that_holds_no_notes_of_a_search_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes"
    path.write_text(text)
    with pytest.raises(BadFile, match="holds no notes of a search; move it away"):
        Kept(SCORES, path, {})
    assert path.read_text() == text


def test_what_was_kept_comes_back_to_the_last_bit_under_the_same_conditions_alone(tmp_path: Path) -> None:
    path, told = tmp_path / "notes", list[str]()
    Kept(SCORES, path, {"steps": 4}).add("a", [0.1 + 0.2, float("inf")])
    assert Kept(SCORES, path, {"steps": 4}).known == {"a": [0.1 + 0.2, float("inf")]}
    assert Kept(SCORES, path, {"steps": 4, "beside": 2}, told.append).known == {}
    assert told == ["what an earlier run measured is measured anew, since it had another beside"]
