"""The tables of the committed matrix's front: what nothing beats, and what is cheapest of its kind above a gate."""

from pathlib import Path

import pytest

from ditstack.matrix.schema import Cell, Estimate, Matrix
from tables import front


def matrix(*cells: Cell) -> Matrix:
    return Matrix(
        model="tiny",
        machine="a machine",
        versions={},
        prompts=["a", "b"],
        seed=0,
        gate={},
        axes={},
        units=[],
        interaction_model="",
        cells=list(cells),
    )


def cell(distill: str, cache: str, macs: float, psnr: float, **given: object) -> Cell:
    words = {"distill": distill, "quantize": "none", "cache": cache}
    found = {name: Estimate(mean=psnr, low=psnr - 1, high=psnr + 1) for name in ("psnr", "psnr_p5")}
    made = Cell(name="-".join(words.values()), words=words, status="ok", plain_macs_ratio=macs, macs_ratio=macs)
    return made.model_copy(update={"to_baseline": found, "speedup": 1 / macs, "pictures": ["a"], **given})


CELLS = (
    cell("none", "none", 1.0, float("inf"), steps={"full": 28}),
    cell("solver.9", "none", 0.32, 46.0),
    cell("solver.12", "svdcache", 0.2, 33.0),
    cell("none", "svdcache", 0.3, 42.0),
    cell("none", "reuse", 0.31, 41.0),
    cell("lora", "none", 0.1, 60.0, to_plain={"psnr": Estimate(mean=34, low=32, high=36)} | {
        "psnr_p5": Estimate(mean=30, low=29, high=31)
    }),
    cell("none", "none", 0.5, 45.0, status="control", name="14 evaluations, Euler"),
    cell("none", "idle", 0.05, 99.0, status="idle"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "matrix_file", lambda: Path("matrix.json"))
    monkeypatch.setattr(front, "read", lambda path: matrix(*CELLS))


def test_the_front_leaves_out_what_costs_more_and_is_further_off() -> None:
    rows = [line.split(" | ")[:2] for line in front.matrix_front().splitlines() if line.startswith("| ")][2:]
    assert rows == [
        ["| lora", "0.100"],
        ["| svdcache", "0.300"],
        ["| solver.9", "0.320"],
        ["| the plain model", "1.000"],
    ]


def test_each_gate_names_the_cheapest_of_each_kind_by_its_low_end() -> None:
    text = front.matrix_gates()
    both = "solver.12 + svdcache: 0.200"
    assert f"| 30 dB | lora: 0.100 | solver.9: 0.320 | svdcache: 0.300 | {both} | lora: 0.100 | 14 eval" in text
    assert (
        "| 40 dB | svdcache: 0.300 | solver.9: 0.320 | svdcache: 0.300 | - | - | 14 evaluations, Euler: 0.500" in text
    )
    assert "| 45 dB | solver.9: 0.320 | solver.9: 0.320 | - | - | - | - |" in text
    assert "| 50 dB | the plain model: 1.000 | - | - | - | - | - |" in text
