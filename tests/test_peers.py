"""The peers' comparison: settings run as many full steps as asked, and the table says where we do not win."""

from collections.abc import Callable
from typing import Any

import pytest

import settings
from ditstack import Recipe, load
from ditstack.pipeline.pipe import FULL
from tables import first, peers


def test_every_schedule_has_the_number_of_full_steps_that_was_asked_for() -> None:
    for count in (12, 9, 7, 4):
        for full in settings.schedules(50, count).values():
            assert len(set(full)) == len(full) == count
            assert full[0] == 0
            assert max(full) < 50


def test_diffusers_runs_the_number_of_full_steps_that_was_asked_for() -> None:
    (_, stage), *_ = settings.taylorseer(12, 4, lite=True)
    stack = load(Recipe.parse({"model": {"method": "tiny"}, "cache": stage, "sampler": {"steps": 12, "size": "64x64"}}))
    stack.sample(["a red circle"])
    assert stack.pipe.passes.steps[FULL] == 4


@pytest.mark.parametrize(
    "curve", [lambda threshold: 50 / (1 + threshold), lambda threshold: 12 if threshold < 1 else 3]
)
def test_a_threshold_is_found_that_comes_nearest(curve: Callable[[float], float]) -> None:
    asked = 5
    ((_, found),) = settings.fbcache(asked, lambda stage: curve(stage["threshold"]))
    assert abs(curve(found["threshold"]) - asked) < 2.5


def row(name: str, kind: str, psnr: list[float], seen: float = 0.0) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "asked": 7,
        "full": [7.0, 7.0, 7.0],
        "macs_ratio": 0.14,
        "setting": "",
        "psnr_on_seen": seen,
        "psnr_each": psnr,
        "converged_each": [one - 1 for one in psnr],
        "ssim_each": [one / 100 for one in psnr],
    }


def text_of(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    sampler = {"sampler": {"guidance": 3.0}}
    data = {"rows": rows, "steps": 28, "prompts": 3, "machine": "here", "resolved": sampler, "not_run": {}}
    monkeypatch.setattr(peers, "latest", lambda case: data)
    return peers.peers_short()


def test_the_table_names_every_row_that_is_not_beaten_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("worse", "peer", [30.0, 31.0, 32.0]),
        row("better", "control", [41.0, 42.0, 43.0], seen=2.0),
        row("other control", "control", [31.0, 32.0, 33.0], seen=1.0),
        row("mixed, searched", "ours", [45.0, 45.0, 45.0]),
        row("svdcache (default)", "ours", [40.0, 41.0, 42.0]),
    ]
    text = text_of(rows, monkeypatch)
    assert "| svdcache (default) | **41.0 / 40.1** | **40.0 / 39.1** |" in text, "what ships is compared"
    assert "| better | **42.0 / 41.1** | **41.0 / 40.1** |" in text, "the control that was best on other prompts"
    assert "| mean, to converged | -1.00 (-1.00 to -1.00) |" in text
    said = text.partition("Where another row")[2]
    assert "not clearly below its mean at 7, to uncached: mixed, searched -4.00 (-5.00 to -3.00); better -1.00" in said
    assert "worse" not in said
    assert "No other row, ours or theirs" in text_of([rows[0], rows[2], rows[4]], monkeypatch)
    full = peers.peers_full()
    assert "above every other row in mean, low end" in full


def test_a_row_with_broken_pictures_is_behind_in_the_low_end_though_not_in_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = row("svdcache (default)", "ours", [60.0] * 9 + [10.0])
    control = row("steady", "control", [40.0] * 10, seen=1.0)
    said = text_of([ours, control], monkeypatch).partition("Where another row")[2]
    assert "above its PSNR of the mean squared error at 7, to uncached: steady -20.00" in said
    assert "MSE to uncached -20.00" in peers.peers_full()


def test_the_first_screen_names_the_control_the_size_of_the_gain_and_who_is_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        row("a peer", "peer", [30.0, 31.0, 32.0]),
        row("fewer steps: Euler", "control", [31.0, 32.0, 33.0], seen=2.0),
        row("fewer steps: UniPC", "control", [45.0, 46.0, 47.0], seen=1.0),
        row("svdcache (default)", "ours", [40.0, 41.0, 42.0]),
    ]
    data = {"rows": rows, "steps": 28, "prompts": 3, "machine": "here"}
    fitted = {**row("fitted sampler", "ours", [50.0, 51.0, 52.0]), "model": "tiny", "full": 7}
    of_case = {"peers": data, "solver": {"rows": [fitted, {**fitted, "model": "dit"}]}}
    monkeypatch.setattr(first, "latest", of_case.__getitem__)
    text = first.first_screen()
    assert "| no cache, by a sampler fitted to the model | 51.0 / 50.1 |" in text
    assert "| **svdcache, our default** | **41.0 / 40.1** |" in text
    assert "| no cache, by the solver best on other prompts | 32.0 / 31.1 (Euler) |" in text
    assert "| default over no cache, mean, to uncached | +9.00 (+9.00 to +9.00) |" in text
    assert "fewer steps: UniPC in mean (at 7), low end (at 7), squared error (at 7)." in text
    data["rows"] = [rows[0], rows[1], rows[3]]
    assert "No other row, ours or theirs, is ahead" in first.first_screen()
