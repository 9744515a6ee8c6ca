"""The peers' comparison: settings run as many full steps as asked, and the table says where we do not win."""

from collections.abc import Callable
from typing import Any

import pytest

import settings
from ditstack import Recipe, load
from ditstack.pipeline.pipe import FULL
from tables import peers


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


def row(name: str, kind: str, psnr: list[float]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "asked": 7,
        "psnr": [sum(psnr) / len(psnr)] * 3,
        "psnr_each": psnr,
        "ssim": [0.5] * 3,
        "ssim_each": [one / 100 for one in psnr],
    }


def test_the_table_names_who_is_not_beaten_and_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("worse", "peer", [30.0, 31.0, 32.0]),
        row("better", "control", [41.0, 42.0, 43.0]),
        row("svdcache, even", "ours", [45.0, 45.0, 45.0]),
        row("svdcache (default)", "ours", [40.0, 41.0, 42.0]),
    ]
    sampler = {"sampler": {"guidance": 3.0}}
    data = {"rows": rows, "steps": 28, "prompts": 3, "machine": "here", "resolved": sampler, "not_run": {}}
    monkeypatch.setattr(peers, "latest", lambda case: data)
    text = peers.peers_short()
    assert "| svdcache (default) | **41.0** |" in text, "what ships is compared, not the best of ours"
    assert "| worse | 31.0 (+10.0; +10.0 to +10.0) |" in text
    assert "does not clearly beat: at 7 full steps better in PSNR (-1.0; -1.0 to -1.0), better in SSIM" in text
    rows.remove(rows[1])
    assert "Our default beats every peer and control" in peers.peers_short()
