"""The papers' tables on the twins: rows go on where they were, controls do at least the work, directions are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import replication
import results
from replicating import bench as benches
from replicating import icc, svdcache
from replicating.bench import Bench, Case, Setting, share
from replicating.likeness import likeness, real

ROOT = Path(__file__).parents[2]


def small(bench: Bench) -> Iterator[Case]:
    cache = {"method": "icc", "interval": 2, "rank": 0}
    yield bench.uncached("N=2")
    yield Case("N=2", "reuse", lambda: bench.stack(cache=cache), "no cache")
    yield from bench.as_costly("N=2", "reuse", "reuse", briefly=True)
    yield Case("N=2", "D/9: rrr", lambda: icc.icc(bench, "rrr", 1 / 9, calibration=["red star", "blue circle"]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for module in (benches, replication):
        monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(benches, "TRIALS", 2)
    monkeypatch.setattr(benches, "kept", lambda said, make: make())
    monkeypatch.setattr(icc, "WIDEST", 1 / 9)
    monkeypatch.setitem(replication.TABLES, 1, lambda: iter([(Setting("dit", 4), small)]))
    return tmp_path


def test_a_table_is_measured_row_by_row_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row["name"]: row for row in replication.measured(1, 2)}
    assert min(rows["no cache"]["psnr_each"]) == float("inf")
    assert rows["no cache"]["macs_ratio"] == 1
    assert rows["reuse"]["ran"] == {"full": 2, "calibrated": 2}
    control = rows["reuse: control, 3 of its own steps"]  # the fewest steps with at least the work
    assert control["macs_ratio"] == 0.75 > rows["reuse"]["macs_ratio"] > 0.5
    assert control["against"] == "reuse"
    assert rows["reuse"]["shares"]["calibrated"] < rows["D/9: rrr"]["shares"]["calibrated"] < 0.5
    assert {row["seed"] for row in rows.values()} == {1000}
    assert not list(replication.measured(1, 2))
    monkeypatch.setattr(benches, "weights", lambda twin: "of a new export")
    assert benches.Bench(Setting("dit", 4), 2, replication.known(1)).row("N=2", "reuse") is None


def test_only_rows_that_are_asked_for_are_measured(folder: Path) -> None:
    assert [row["name"] for row in replication.measured(1, 2, ("no cache",))] == ["no cache"]
    row = replication.known(1)[0]
    assert replication.line(row).startswith("dit, 4 steps, guidance 4, seed 1000")
    row.pop("agree")  # no judge knows pictures of another size
    assert "%" not in replication.line(row)


def test_the_first_components_of_a_fit_are_cut_of_it() -> None:
    up, down = torch.randn(6, 4), torch.randn(8, 5)
    tensors = {"q+k.down": down, "q.up": up, "k.up": 2 * up}
    found = icc.cut(tensors, 0.5, without=2)
    assert found["q+k.down"].equal(down[[0, 1, 4, 5]])
    assert found["k.up"][:, 0].equal(2 * up[:, 0])
    assert not found["k.up"][:, 1].any()
    assert up.all()
    assert share(1 / 9) == "D/9"


def test_a_smooth_direction_is_told_from_a_volatile_one() -> None:
    steps = torch.linspace(0, 4, 40)
    features = torch.randn(40, 1, 3, 16, 8) * 0.1
    features[..., 0] = steps[:, None, None, None] * 10 + torch.randn(3, 16)
    found = svdcache.analysed(features)["features"]
    smooth, rest = found["groups"][:2]
    assert (found["rank"], smooth["directions"], rest["directions"]) == (1, "principal", "residual")
    assert smooth["missed"] < 0.01
    assert rest["missed"] == pytest.approx(3, rel=0.1)  # a second difference of noise beside a first one
    assert found["same_basis"]["1"] > 0.99


def test_pictures_of_the_generator_are_more_like_it_than_noise() -> None:
    assert real(80).shape == (80, 32)
    drawn = benches.Embedded().prompts(2)
    noise = likeness(torch.rand(2, 3, 64, 64), drawn)
    plain = likeness(torch.full((2, 3, 64, 64), 0.5), drawn)
    assert plain["is_like"] == pytest.approx(1)
    assert noise["fid_like"] > 0
