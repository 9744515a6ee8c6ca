"""A matrix tells how many pictures are broken, and which cells prove a promise; old files tell it, too."""

from pathlib import Path
from typing import Any

import pytest

from ditstack.matrix import figures, markdown, page
from ditstack.matrix.broken import Line
from ditstack.matrix.schema import Cell, Matrix, read
from ditstack.recipe.sections import Promise
from results import matrix_file

FINE, ONE_BROKEN = [40.0] * 64, [40.0] * 63 + [20.0]


def matrix(count: int = 64, **given: Any) -> Matrix:
    cells = [
        Cell(name=name, words={"cache": name}, status="ok", macs_ratio=macs, psnr_each=each)
        for name, macs, each in (("none", 1.0, FINE), ("near", 0.3, FINE), ("far", 0.2, ONE_BROKEN), ("gone", 0.1, []))
    ]
    told: dict[str, Any] = {"gate": {"psnr_p5_min": 30.0}, **given}
    return Matrix(
        model="m", machine="m", versions={}, prompts=["a"] * count, seed=0, axes={"cache": ["none", "near", "far"]},
        units=[], interaction_model="", cells=cells, **told,
    )  # fmt: skip


def told(matrix: Matrix, key: str) -> list[str]:
    return [figures.figure(matrix, cell, key).text for cell in matrix.cells]


def test_the_share_of_broken_pictures_has_an_exact_interval_and_what_tells_of_none_is_empty() -> None:
    assert told(matrix(), "broken") == ["0", "0", "1.56", ""]
    line = Line.of(matrix())
    assert line is not None
    found = line.under(matrix().cells[2])
    assert found is not None
    assert (found.low, found.mean, found.high) == pytest.approx((0.000395, 1 / 64, 0.0840), rel=1e-2)


def test_the_promise_that_so_few_prompts_can_prove_is_that_of_the_column() -> None:
    assert told(matrix(), "kept") == ["100", "30.0", "", ""]
    assert [one.note for one in figures.columns(matrix()) if one.key == "kept"] == [
        "that keep 95 % of all pictures at 30 dB, with confidence 0.95"
    ]
    promised = matrix(promise=Promise(psnr=15, share=0.6))
    assert told(promised, "kept") == ["100", "30.0", "20.0", ""], "20 dB keeps 15, and .6 forgives one more"
    assert Line.of(matrix(count=2)) == Line(30.0, 0.0, 0.95), "two prompts prove nothing"
    assert told(matrix(count=2), "kept") == ["", "", "", ""]


def test_a_matrix_that_holds_nothing_to_decibels_has_no_such_columns() -> None:
    other = matrix(gate={"ssim_min": 0.9})
    assert Line.of(other) is None
    assert not {"broken", "kept"} & {one.key for one in figures.columns(other)}
    assert "under" not in markdown.render(other).splitlines()[8]


def test_table_and_page_show_both(tmp_path: Path) -> None:
    rows = {row.split(" | ")[0]: row for row in markdown.render(matrix()).splitlines() if row.startswith("| ")}
    assert "| under 30 dB | MACs that keep 95 % of all pictures at 30 dB, with confidence 0.95 |" in rows["| cache"]
    assert "| 0 of 64 | 0.30 |" in rows["| near"]
    assert "| 1 of 64 |  |" in rows["| far"]
    text = page.render(matrix(), tmp_path)
    assert "pictures under 30 dB (%)" in text
    assert "that keep 95 % of all pictures at 30 dB" in text


def test_a_committed_matrix_tells_of_its_broken_pictures() -> None:
    found = read(matrix_file())
    assert found.promise is None
    shown = told(found, "broken")
    assert all(bool(text) == bool(cell.psnr_each) for text, cell in zip(shown, found.cells, strict=True))
    assert any(told(found, "kept"))
