"""A batch under a certificate says of every row what was decided, and a resumed one is the undisturbed one."""

import json
from pathlib import Path
from typing import Any

import pytest

from ditstack.batch.page import NAME
from ditstack.batch.report import BatchReport
from ditstack.batch.run import Job
from ditstack.batch.spec import CERTIFICATE, BatchSpec
from ditstack.calibration.certificate import Certificate, certificate_file
from ditstack.calibration.promised import CERTIFIED, LATE
from ditstack.errors import BadFile, StaleFactors
from ditstack.measure.promise.certify import certify
from ditstack.recipe.recipe import Recipe

RECIPE = Recipe.read(
    "tiny-none-native-svdcache",
    ["sampler.steps=6", "quality.promise.psnr=15", "quality.promise.share=0.5", "quality.promise.confidence=0.5"],
)
ROWS = "id,prompt,guidance\na,a red circle,\nb,a blue star,\nc,a green square,5\nd,a white star,\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITSTACK_HOME", str(tmp_path_factory.mktemp("home")))
        found = certify(RECIPE, RECIPE.prompts[:2], lambda text: None)
    assert found is not None
    return found


def run(folder: Path, rows: str = ROWS, **more: Any) -> BatchReport:
    path = folder.with_suffix(".csv")
    path.write_text(rows)
    report = Job(BatchSpec(RECIPE, path, folder, 2, promise=True, **more)).run()
    assert report is not None
    return report


def lines(folder: Path) -> dict[str, Any]:
    return {one["id"]: one for one in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}


def test_every_row_says_what_was_decided_its_steps_and_its_scores(tmp_path: Path, certificate: Certificate) -> None:
    certificate.save(certificate_file(RECIPE))
    report = run(tmp_path / "out")
    found = {name: one["promise"] for name, one in lines(tmp_path / "out").items()}
    assert {name: one["decision"] for name, one in found.items()} == {
        "a": CERTIFIED, "b": CERTIFIED, "c": "in full: guidance 5.0 (certified: 3.0)", "d": CERTIFIED,
    }  # fmt: skip
    assert found["c"]["steps"] == {"full": 6}
    assert found["a"]["steps"]["full"] < 6
    assert LATE in found["a"]["scores"]
    assert LATE not in found["c"]["scores"], "nothing of it was forecast"
    assert {one["certificate"] for one in found.values()} == {certificate.digest}
    assert report.promise is not None
    assert report.promise.pictures == 3
    assert report.promise.in_full == {"in full: guidance 5.0 (certified: 3.0)": 1}
    kept = json.loads((tmp_path / "out" / CERTIFICATE).read_text())
    assert kept["changes"] == certificate.changes
    assert report.resolved["cache"]["interval"] == certificate.changes["cache"]["interval"]
    page = (tmp_path / "out" / NAME).read_text()
    assert str(certificate) in page
    assert page.count("data:image/webp") == 4
    assert page.index("<small>a green square</small>") < page.index("<small>a red circle</small>")


def test_a_batch_that_goes_on_makes_the_same_bytes_and_tells_of_all_its_pictures(
    tmp_path: Path, certificate: Certificate
) -> None:
    certificate.save(certificate_file(RECIPE))
    run(tmp_path / "whole")
    run(tmp_path / "cut")
    names = sorted(one.name for one in (tmp_path / "cut" / "pictures").iterdir())
    (tmp_path / "cut" / "pictures" / names[0]).unlink()
    (tmp_path / "cut" / NAME).write_text("mine")
    report = run(tmp_path / "cut")
    assert (tmp_path / "cut" / NAME).read_text() == "mine"
    assert any("batch.html was changed by somebody else and is left alone" in note for note in report.notes)
    assert report.written == 1
    assert report.promise is not None
    assert report.promise.pictures == 3
    for name in names:
        assert (tmp_path / "cut/pictures" / name).read_bytes() == (tmp_path / "whole/pictures" / name).read_bytes()
    without = [{**one, "run": ""} for one in lines(tmp_path / "cut").values()]
    assert sorted(map(json.dumps, without)) == sorted(
        json.dumps({**one, "run": ""}) for one in lines(tmp_path / "whole").values()
    )


def test_another_certificate_is_another_batch_and_none_is_refused(tmp_path: Path, certificate: Certificate) -> None:
    with pytest.raises(BadFile, match="there is no certificate"):
        run(tmp_path / "out")
    certificate.save(certificate_file(RECIPE))
    run(tmp_path / "out", ROWS.splitlines()[0] + "\na,a red circle,\n")
    certificate.model_copy(update={"broken": 1}).save(certificate_file(RECIPE))
    with pytest.raises(BadFile, match="begun with another certificate"):
        run(tmp_path / "out", ROWS.splitlines()[0] + "\na,a red circle,\n")


def test_a_certificate_of_something_else_stops_a_batch_before_its_first_picture(
    tmp_path: Path, certificate: Certificate
) -> None:
    other = {**certificate.conditions, "weights": "0" * 32}
    certificate.model_copy(update={"conditions": other}).save(certificate_file(RECIPE))
    with pytest.raises(StaleFactors, match="weights: was 00000"):
        run(tmp_path / "out")
    assert not (tmp_path / "out" / "pictures").exists()
