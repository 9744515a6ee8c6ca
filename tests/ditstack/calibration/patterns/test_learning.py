"""A pattern is learned from effects on final latents, for the work of the period, and kept where others gain by it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.caching.patterns import Pattern
from ditstack.calibration.patterns.fitting import told
from ditstack.calibration.patterns.learning import STRETCHES, Frame, Learning, PatternRuns
from ditstack.calibration.run import CalibrationRun, Partial

FRAME = Frame(steps=16, interval=2, saved={"attn": 1.0, "ff": 2.0, "last": 1.0})
WORTH = {"attn": 3.0, "ff": 1.0, "last": 0.0}
"""What a full run of each layer is worth, early three times as much as late."""


def scores(pattern: Pattern, places: Sequence[int]) -> list[float]:
    gain = sum(
        WORTH[layer] * (3 if step < 8 else 1) * full
        for layer, column in pattern.columns.items()
        for step, full in enumerate(column)
    )
    return [gain + place for place in places]


def test_it_learns_which_layers_and_steps_are_worth_their_work() -> None:
    learning = Learning(FRAME, scores, tries=0)
    found = learning.found(range(8))
    assert FRAME.cost(found) <= FRAME.cost(learning.start)
    gained = scores(found, [0])[0] - scores(learning.start, [0])[0]
    full = {layer: sum(column) for layer, column in found.columns.items()}
    assert full["attn"] > 8 > full["last"]
    assert sum(found.columns["attn"][:8]) >= sum(found.columns["attn"][8:])
    assert gained > 10
    assert scores(Learning(FRAME, scores).found(range(8)), [0])[0] >= scores(found, [0])[0]  # moves lose nothing


def test_prompts_set_aside_decide_between_it_and_the_period() -> None:
    found, gain = Learning(FRAME, scores, tries=0).decided(range(8), range(8, 16))
    assert gain[1] > 0
    assert found.columns != FRAME.pattern(FRAME.period()).columns

    def fooled(pattern: Pattern, places: Sequence[int]) -> list[float]:
        return scores(pattern, places) if max(places) < 8 else [float(place) for place in places]

    kept, nothing = Learning(FRAME, fooled, tries=0).decided(range(8), range(8, 16))
    assert kept.columns == FRAME.pattern(FRAME.period()).columns
    assert nothing == (0.0, 0.0, 0.0)
    assert "the fixed one is kept, the best one found is not clearly better: +0.00 dB" in told(kept, torch.zeros(4))


@pytest.mark.parametrize(("interval", "rungs"), [(2, (1, 2, 3, 4)), (5, (3, 4, 5, 6, 8)), (1, (1, 2, 3))])
def test_intervals_near_the_periods_are_measured(interval: int, rungs: tuple[int, ...]) -> None:
    assert Frame(16, interval, {}).rungs == rungs


def test_a_share_of_the_work_is_kept_beside_an_even_pattern() -> None:
    frame = Frame.of_share(16, 0.7, FRAME.saved)
    assert frame.interval == 2
    learning = Learning(frame, scores, tries=0)
    assert [sum(column) for column in learning.start.columns.values()] == [11, 11, 11]
    found = learning.found(range(8))
    assert 0.9 * learning.budget < frame.cost(found) <= learning.budget
    assert scores(found, [0])[0] > scores(learning.start, [0])[0]


def test_a_frame_spells_a_grid_with_its_last_steps_full() -> None:
    frame = Frame(8, 2, {"attn": 1.0}, last_full=2)
    assert frame.pattern(frame.period()).columns["attn"] == (True, False, True, False, True, False, True, True)
    dense = {("attn", stretch): 1 if stretch < STRETCHES // 2 else 12 for stretch in range(STRETCHES)}
    assert frame.pattern(dense).columns["attn"] == (True, True, True, True, False, False, True, True)


def test_what_a_killed_calibration_had_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []

    def runs() -> PatternRuns:
        none: Any = None
        calibration = CalibrationRun(none, ["a"] * 8, none, print, partial=Partial(tmp_path / "p"))
        return PatternRuns(calibration, ran.append)

    monkeypatch.setattr("ditstack.calibration.run.PAUSE", 0)
    monkeypatch.setattr(CalibrationRun, "uncached_latents", lambda self, places: torch.ones(len(places), 3) / 2)
    monkeypatch.setattr(CalibrationRun, "latents", lambda self, places: torch.ones(len(places), 3) * len(ran))
    pattern = FRAME.pattern(FRAME.period())
    first = runs().scores(pattern, range(6))
    assert len(ran) == 2
    again = runs()
    assert again.scores(pattern, range(6)) == first
    assert len(ran) == 2
    assert again.judge.made == 6


def test_runs_are_kept_under_the_names_that_older_calibrations_gave_them(tmp_path: Path) -> None:
    none: Any = None
    pattern = FRAME.pattern(FRAME.period())
    kept = {"uncached 0 1": torch.ones(2, 3), f"{pattern} 0 1": torch.tensor([20.0, 30.0], dtype=torch.float64)}
    Partial(tmp_path / "p").keep("patterns", kept, at_once=True)
    calibration = CalibrationRun(none, ["a"] * 2, none, print, partial=Partial(tmp_path / "p"))
    assert PatternRuns(calibration, lambda pattern: pytest.fail("run again")).scores(pattern, [0, 1]) == [20.0, 30.0]
