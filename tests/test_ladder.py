"""The ladder on a GPU, in small: rows are written at once, nothing is lost by what ends one, a later run goes on."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu
import gpu_plan
import shelf_figures
from ditstack.recipe.recipe import Recipe
from gpu_book import SPENT
from gpu_rows import FULL, Row, ladder
from limits import Ceilings

TOP = Ceilings({"float32": 1e10, "int8": 4e10}, 1e10)
Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows of a ladder on DiT; the ceilings are made up."""
    found = [Row("bf16", 3), Row("other", 3)]
    monkeypatch.setattr(gpu, "ceilings", lambda device: TOP)
    monkeypatch.setattr(gpu, "SECONDS", 0.0)
    monkeypatch.setattr(gpu, "ladder", lambda case, small: found)
    return found


@pytest.fixture
def measure(tmp_path: Path) -> Run:
    """Measure with some arguments; the rows of the file, by name."""

    def run(*more: str, case: str = "dit") -> dict[str, dict[str, Any]]:
        gpu.main(["--case", case, "--small", "--out", str(tmp_path), *more])
        return {row["name"]: row for row in json.loads((tmp_path / f"gpu_{case}_small.json").read_text())["rows"]}

    return run


def test_a_row_holds_its_seconds_by_kind_its_floor_and_its_recipe(
    rows: list[Row], measure: Run, tmp_path: Path
) -> None:
    icc = {"cache": {"method": "icc", "interval": 2, "rank": 4}, "compile": {"method": "inductor", "backend": "eager"}}
    rows[:] = [Row("icc", 4, icc)]
    row = measure()["icc"]
    assert row["kinds"] == {"full": 2, "calibrated": 2}
    assert row["compiled_when_warm"] == 0
    assert row["first_generation"] > 0
    assert set(row["seconds_per_step"]) == set(row["times_floor"]) == set(row["roofline"]) == {"full", "calibrated"}
    assert row["roofline"]["full"]["bf16"] == pytest.approx(
        2 * (row["floor"]["full"]["linears"]["macs"] + row["floor"]["full"]["attention"]["macs"]) / 1e10
    )
    gpu.main(["--recipes", str(tmp_path / "gpu_dit_small.json"), "--out", str(tmp_path / "recipes")])
    (file,) = (tmp_path / "recipes").iterdir()
    assert Recipe.read(file).adapters["cache"].method == "icc"


def test_a_row_that_dies_of_anything_loses_nothing_else(
    rows: list[Row], measure: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gpu._measure

    def dying(shape: Any, row: Row, *more: Any) -> None:
        if row.name == "bf16":
            raise KeyError("something nobody thought of")
        whole(shape, row, *more)

    monkeypatch.setattr(gpu, "_measure", dying)
    rows.append(Row("sage", 3, {"attention": {"method": "sage"}}))
    found = measure()
    assert found["bf16"]["refused"] == "KeyError: 'something nobody thought of'"
    assert found["other"]["seconds"] > 0
    assert "CUDA" in found["sage"]["refused"]


def test_a_budget_that_ends_inside_a_row_keeps_what_is_known_and_a_later_run_goes_on(
    rows: list[Row], measure: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time()
    ticks = {"now": clock}
    monkeypatch.setattr("gpu_book.time.time", lambda: ticks["now"])
    steps = gpu.step_seconds

    def late(*more: Any) -> dict[str, float]:
        found = steps(*more)
        ticks["now"] += 1e6
        return found

    monkeypatch.setattr(gpu, "step_seconds", late)
    found = measure("--budget", "500000")
    assert found["bf16"]["cut"] == SPENT
    assert found["bf16"]["seconds_per_step"]["full"] > 0
    assert "seconds" not in found["bf16"]
    assert found["other"]["refused"] == SPENT
    monkeypatch.setattr(gpu, "step_seconds", steps)
    again = measure("--resume")
    assert all(row["seconds"] > 0 for row in again.values())
    monkeypatch.setattr(gpu, "_measure", lambda *_: pytest.fail("it was measured already"))
    assert measure("--resume") == again


def test_a_process_that_can_launch_nothing_more_starts_again_with_what_is_left(
    rows: list[Row], measure: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    started: list[list[str]] = []

    def execv(_python: str, command: list[str]) -> None:
        started.append(command)
        raise SystemExit

    monkeypatch.setattr(gpu, "_measure", poisoned)
    monkeypatch.setattr("os.execv", execv)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        measure("--until", "9e9")
    assert started[0][1:] == ["gpu.py", "--resume", "--until", "9000000000.0"]


def test_a_video_is_timed_by_single_steps_and_needs_no_package_that_writes_videos(
    rows: list[Row], measure: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return getattr(sys.modules.get(name), "__spec__", None) if name == "imageio_ffmpeg" else find(name, *more)

    monkeypatch.delitem(sys.modules, "imageio_ffmpeg", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert without("imageio_ffmpeg") is None
    rows[:] = [Row("best", 20, {"cache": {"method": "svdcache", "interval": 5}}, single=True)]
    row = measure(case="hunyuanvideo")["best"]
    monkeypatch.delitem(sys.modules, "imageio_ffmpeg")
    assert row["kinds"] == {"full": 4, "forecast": 16}
    each = row["seconds_per_step"]
    assert row["seconds"] == pytest.approx(4 * each["full"] + 16 * each["forecast"])


def test_every_row_is_of_one_slice_and_each_slice_says_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    for case in FULL:
        for row in ladder(case, small=False):
            assert [number for number, cases in gpu_plan.LADDERS.items() if case in cases and number == row.part]
            assert row.name in " ".join(gpu_plan.told(row.part))
        gpu.main(["--case", case, "--dry-run"])
        assert f"{case}: about" in capsys.readouterr().out
    assert [row.name for row in ladder("flux", small=True)] == [row.name for row in ladder("flux", small=False)]


def test_no_row_begins_when_the_budget_is_spent(rows: list[Row], measure: Run) -> None:
    assert {row["refused"] for row in measure("--budget", "0").values()} == {SPENT}


def test_a_peer_that_runs_out_of_time_leaves_what_it_has_printed(
    rows: list[Row], measure: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(command: list[str], **more: Any) -> Any:
        raise gpu.subprocess.TimeoutExpired(command, more["timeout"], output=b'{"seconds": 1.5}\n')

    monkeypatch.setattr(gpu.subprocess, "run", too_long)
    rows[:] = [Row("peer", 8, None)]
    assert measure()["peer"]["seconds"] == 1.5
    assert measure("--resume")["peer"]["cut"] == SPENT


@pytest.mark.parametrize(
    "name", ["flux-int8-sage-svdcache", "flux-fp8-sage-svdcache", "flux-fp8-sage-svdcache-compiled"]
)
def test_the_shelfs_best_recipes_are_rows_of_the_ladder(name: str) -> None:
    recipe = Recipe.read(name)
    rows = [row for row in ladder("flux", small=False) if row.stages and row.steps == recipe.sampler.steps]
    found = [Recipe.parse({"model": "flux", **(row.stages or {})}, row.name) for row in rows]
    assert [one.name for one in found if shelf_figures.stages_of(one) == shelf_figures.stages_of(recipe)]
