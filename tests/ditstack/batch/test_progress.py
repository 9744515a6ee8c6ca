"""Progress: what is told off a terminal, how a few rows are shared, and what a picture cost."""

import json
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ditstack.assembly.sample import Pictures
from ditstack.batch import progress
from ditstack.batch.report import summarise
from ditstack.batch.rows.batches import Item
from ditstack.batch.run import Job
from stub_batch import RECIPE, paint, spec

TEXT = "".join(f"{place}\n" for place in range(40))


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str) -> list[str]:
    monkeypatch.setattr(progress, "SECONDS", 0.02)

    def slow(items: Sequence[Item]) -> Pictures:
        time.sleep(0.05)
        return paint(items)

    Job(spec(tmp_path), log_format=kind, make=slow).run(Console(file=StringIO()))  # pyright: ignore
    said = [line for line in capsys.readouterr().err.splitlines() if "done" in line]
    assert len(said) >= 4
    return said


def test_off_a_terminal_a_line_every_few_seconds_says_what_is_done_the_rate_and_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = told(tmp_path, capsys, monkeypatch, "text")
    assert "0 of 5 done, 0.00 per second" in said[0]
    assert " per second, " in said[-1]
    assert said[-1].endswith(" s left")


def test_for_collectors_every_line_is_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [json.loads(line) for line in told(tmp_path, capsys, monkeypatch, "json")]
    assert {*said[0]} == {"time", "event", "done", "total", "failed", "per_second", "seconds_left"}
    assert (said[0]["event"], said[0]["done"], said[0]["total"], said[0]["seconds_left"]) == ("progress", 0, 5, None)
    assert said[-1]["done"] >= 2
    assert said[-1]["per_second"] > 0


def test_what_was_repaired_is_told_before_the_first_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Job(spec(tmp_path), make=paint).run()
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    Job(spec(tmp_path), make=paint).run(Console(file=StringIO()))
    assert "manifest.jsonl: found 1 lines that are torn; left out" in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "world", "size"), [(64, 1, 40), (64, 2, 20), (64, 3, 14), (16, 2, 16), (64, 64, 1)])
def test_no_process_takes_all_rows(tmp_path: Path, asked: int, world: int, size: int) -> None:
    one = spec(tmp_path, TEXT, batch_size=asked)
    one.begin()
    one.settle_size(asked, world)
    assert one.size == size
    shares = [sum(len(batch) for batch in one.batches(bytearray(), rank, world)) for rank in range(world)]
    assert sum(shares) == 40
    assert max(shares) <= 2 * size
    one.ledger.leave()
    assert spec(tmp_path, TEXT, batch_size=asked).size == size, "also for a run that goes on with another world"
    assert spec(tmp_path, TEXT, batch_size=3).size == 0


def test_the_report_says_what_a_picture_cost(tmp_path: Path) -> None:
    seconds = {"encode": 1.0, "denoise": 8.0, "decode": 3.0}
    total = {"failed": 0, "write": 0.1, "waited": 0.0, "elapsed": 10.0, "stopped": False}
    totals = [{"rank": rank, "written": 2 + 2 * rank, "seconds": seconds, **total} for rank in range(2)]
    cost = summarise(RECIPE, totals, 0, 2).cost
    assert cost is not None
    assert cost.pictures_per_hour == pytest.approx(6 * 360)
    assert cost.device_seconds_per_picture == pytest.approx(20 / 6)
    assert cost.stage_seconds_per_picture == pytest.approx({"encode": 2 / 6, "denoise": 16 / 6, "decode": 1.0})
    report = Job(spec(tmp_path), make=paint).run()
    assert report is not None
    assert report.cost is not None
    again = Job(spec(tmp_path), make=paint).run()
    assert again is not None
    assert again.cost is None
