"""The page of a batch: one file, every text escaped, the rows to look at first, and nobody else's file replaced."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ditstack.batch import page
from ditstack.batch.report import BatchReport, KeptPromise
from ditstack.batch.store.folder import folder_of
from ditstack.calibration.certificate import Attempt, Certificate
from ditstack.calibration.promised import CERTIFIED, LATE
from ditstack.marks import is_signed_html
from ditstack.recipe.sections import Promise

EVIL = "<script>alert(1)</script> & co"
TESTED = Attempt(changes={"cache": {"interval": 2}}, pictures=4, broken=0, macs=0.5, kept=True)
CERTIFICATE = Certificate(
    recipe="r", promise=Promise(psnr=30), changes={"cache": {"interval": 2}}, pictures=4, broken=0, proved=0.9,
    macs=0.5, prompts="", seen=[], tested=[TESTED], scores={LATE: [0.01, 0.02, 0.03, 0.04]},
)  # fmt: skip


def entry(number: int, late: float, decision: str = CERTIFIED, prompt: str = "a red circle") -> dict[str, Any]:
    told = {"decision": decision, "steps": {"full": 3, "forecast": 3}, "macs": 2e9, "scores": {LATE: late}}
    made = {"file": f"pictures/{number}.png", "bytes": 0, "seed": number, "prompt": prompt}
    return {"number": number, "id": f"row-{number}", "copy": 0, "promise": told, **made}


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    folder = folder_of(tmp_path / "out")
    (tmp_path / "out" / "pictures").mkdir(parents=True)
    entries = [entry(0, 0.01), entry(1, 0.05, prompt=EVIL), entry(2, 0.0, "in full: guidance 5"), entry(3, 0.03)]
    for one in entries[:3]:
        path = tmp_path / "out" / one["file"]
        Image.new("RGB", (200, 100)).save(path)
        one["bytes"] = path.stat().st_size

    def told() -> Iterator[dict[str, Any]]:
        yield from entries
        yield entries[0]

    return SimpleNamespace(folder=folder, certificate=CERTIFICATE, ledger=SimpleNamespace(entries=told))


def report(**more: Any) -> BatchReport:
    kept = KeptPromise(certificate=str(CERTIFICATE), digest="d", pictures=3, in_full={"in full": 1}, drift="")
    given: dict[str, Any] = {"promise": kept, "failures": 0, "complete": True, **more}
    return BatchReport(
        recipe=EVIL, resolved={}, versions={}, machine="m", seed=0, pictures=4, written=4, batch_size=2,
        pictures_per_second=1.0, seconds={}, steps={}, macs=0, peak_memory=0, devices=[], **given,
    )  # fmt: skip


def test_rows_made_in_full_come_first_then_those_whose_forecast_was_farthest_off(spec: Any) -> None:
    view = page.View(spec, report())
    assert [row.id for row in view.rows] == ["row-2", "row-1", "row-3", "row-0"]
    assert [row.rank for row in view.rows[1:]] == [
        "above all of calibration", "top 50 % of calibration", "top 100 % of calibration",
    ]  # fmt: skip
    assert [row.kind for row in view.rows] == ["full", *["certified"] * 3]
    assert [bool(row.picture) for row in view.rows] == [True, True, False, True], "one picture is gone"
    assert view.left_out == 0
    assert view.tested == [str(TESTED)]


def test_it_is_one_file_that_asks_for_nothing_and_every_text_is_escaped(spec: Any) -> None:
    text = page.render(spec, report())
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert text.count("data:image/webp") == 3


def test_a_page_that_others_changed_is_left_alone_and_ours_is_replaced(spec: Any, tmp_path: Path) -> None:
    path = tmp_path / "out" / page.NAME
    assert page.write(spec, report()) == ""
    assert is_signed_html(path.read_bytes())
    assert page.write(spec, report(complete=False)) == ""
    assert "Stopped before its end" in path.read_text()
    path.write_text(path.read_text().replace("Stopped", "stopped"))
    before = path.read_bytes()
    assert "batch.html was changed by somebody else" in page.write(spec, report())
    assert path.read_bytes() == before


def test_rows_that_failed_and_rows_that_are_not_shown_are_told_of(
    spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "ROWS", 2)
    (tmp_path / "out" / "errors.jsonl").write_text(json.dumps({"line": 7, "id": "x", "error": EVIL}) + "\ntorn")
    text = page.render(spec, report(failures=1))
    assert "2 more are in <code>manifest.jsonl</code>" in text
    assert "line 7, x: &lt;script&gt;" in text


def test_a_batch_without_a_promise_has_a_page_too(spec: Any) -> None:
    spec.certificate = None
    spec.ledger.entries = lambda: iter([{**entry(0, 0.0), "promise": {}, "steps": 6}])
    text = page.render(spec, report(promise=None))
    assert "decision" not in text
    assert "6 steps" in text
    spec.ledger.entries = lambda: iter(())
    assert "No picture is made yet" in page.render(spec, report(promise=None))
