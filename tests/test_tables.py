"""Tables of the pages: what they say is computed over every row, those without a cache too."""

import json
from pathlib import Path
from typing import Any

import pytest

from tables import icc, matrix, replication, solver, svdcache, twin_matrix


def row(name: str, full: int, psnr: float, kind: str = "ours") -> dict[str, Any]:
    each = [psnr - 1, psnr, psnr + 1]
    return {"name": name, "full": full, "kind": kind, "psnr_each": each, "converged_each": each, "psnr_on_seen": psnr}


def shown(table: Any, monkeypatch: pytest.MonkeyPatch, **rows: list[dict[str, Any]]) -> str:
    def latest(case: str) -> dict[str, Any]:
        return {"rows": rows[case], "prompts": 3, "steps": 50, "machine": "here", "calibration": 1}

    for module in (svdcache, icc, solver):
        monkeypatch.setattr(module, "latest", latest)
    monkeypatch.setattr(svdcache, "newest", latest)
    return table()


def test_a_solver_alone_that_is_the_better_buy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [row(f"control: {one}", 7, psnr, "control") for one, psnr in (("Euler", 30.0), ("UniPC", 42.0))]
    over = [row(f"svdcache over {one}, 28 steps", 7, 40.0) for one in ("Euler", "UniPC")]
    more = [row(one, 28, 50.0, "control") for one in ("Euler", "UniPC")]
    text = shown(svdcache.svdcache_solvers, monkeypatch, svdcache=plain, svdcache_solvers=[*over, *more])
    assert "| no cache, UniPC | 42.0 / 41.1 | 42.0 / 41.1 |" in text
    assert "| UniPC | 50.0 / 49.1; 50.0 / 49.1 |" in text
    assert "- 7 evaluations, mean to uncached: no cache, UniPC\n" in text
    plain[1] = row("control: UniPC", 7, 39.0, "control")
    text = shown(svdcache.svdcache_solvers, monkeypatch, svdcache=plain, svdcache_solvers=[*over, *more])
    assert "svdcache over Euler, 28 steps, +1.00 (+1.00 to +1.00) over no cache, UniPC" in text


def test_the_papers_recipe_is_set_beside_the_other_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [row("average, .9 on the old value", 12, 20.0), row("first order", 12, 45.0)]
    text = shown(svdcache.svdcache_read, monkeypatch, svdcache_read=[row(svdcache.RECIPE, 12, 38.0), *others])
    assert text.endswith("by its mean to the uncached pictures: the recipe at 12 full steps.")
    assert f"| **{svdcache.RECIPE}** |" in text
    others[0] = row("average, .9 on the old value", 12, 39.0)
    text = shown(svdcache.svdcache_read, monkeypatch, svdcache_read=[row(svdcache.RECIPE, 12, 38.0), *others])
    assert "average, .9 on the old value at 12 (+1.00 (+1.00 to +1.00) over the recipe)" in text


def test_a_fitted_sampler_stands_first_and_says_what_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("control: Euler", 9, 38.0), row("fitted sampler", 9, 43.0), row("few-step LoRA", 4, 20.0)]
    for one in rows:
        one["model"] = "tiny"
    rows.append({**row("fitted sampler", 9, 99.0), "model": "dit"})
    text = shown(solver.solver, monkeypatch, solver=rows)
    assert "| 9 | **fitted sampler** | 43.0 / 42.1 / 42.0 |  | 43.0 / 42.1 |\n| 9 | control: Euler | 38.0" in text
    assert "| +5.00 (+5.00 to +5.00) |" in text
    assert "99.0" not in text
    gates = shown(solver.solver_gates, monkeypatch, solver=rows)
    assert "| 35 dB | 9 | - | - | - | 9 |" in gates
    assert "| 40 dB | 9 | - | - | - | - |" in gates


def test_what_tune_chose_for_a_gate_is_told_or_that_nothing_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"gate": 35, "chosen": "reuse", "macs": 0.1, "speedup": 9.9, "psnr": 39.0, "psnr_p5": 32.0}
    rows = [kept, {"gate": 60, "chosen": None, "nearest": "reuse"}]
    monkeypatch.setattr(solver, "latest", lambda case: {"rows": rows, "prompts": 3, "steps": 50, "machine": "here"})
    text = solver.solver_tuned()
    assert "| 35 dB | reuse | 0.10 | 9.9 | 39.0 / 32.0 |" in text
    assert "| 60 dB | out of reach |  |  |  |" in text


def test_what_a_refit_wins_is_told_beside_what_was_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("fitted elsewhere", 9, 34.0), row("fitted here", 9, 35.0), row("fitted elsewhere", 9, 50.0)]
    for one, where in zip(rows, ("int4", "int4", "guidance 2"), strict=True):
        one["where"] = where
    monkeypatch.setattr(
        solver, "latest", lambda case: {"rows": rows, "prompts": 3, "evaluations": 9, "machine": "here"}
    )
    text = solver.solver_carried()
    assert "| int4 |  |  | 34.0 / 33.1 | 35.0 / 34.1 | +1.00 (+1.00 to +1.00) |" in text
    assert "| guidance 2 |  |  | 50.0 / 49.1 |  |  |" in text


def test_factors_stand_beside_the_best_of_all_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    def fitted(name: str, psnr: float) -> dict[str, Any]:
        return {"group": "N=2", "name": f"D/8: {name}", "psnr": [psnr, 0.0, 0.0], "psnr_each": [psnr, psnr + 1]}

    rows = [
        fitted("svd", 40.0),
        fitted("rrr", 43.0),
        fitted("control, 19 full steps", 41.0),
        fitted("best control, 19 evaluations, UniPC, order 2", 45.0),
    ]
    text = shown(icc.icc_controls, monkeypatch, icc=rows)
    assert "| N=2, D/8 | rrr: 43.0 | best control, 19 evaluations, UniPC, order 2: 45.0 | -2.00" in text


def test_the_matrixs_idle_cells_are_counted_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(status: str, distill: str = "none", *reasons: str) -> dict[str, Any]:
        return {"status": status, "words": {"distill": distill, "cache": "fbcache"}, "reasons": list(reasons)}

    cells = [cell("ok"), cell("idle", "lora", "idle: cache skipped nothing", "a note"), cell("control")]
    axes = {"distill": ["none", "lora"], "cache": ["fbcache"]}
    data = {"cells": cells, "axes": axes, "prompts": ["a"], "gate": {"psnr_p5_min": 30.0}}
    folder = matrix.RESULTS / "here" / "matrix" / "matrix.json"
    monkeypatch.setattr(matrix, "matrix_file", lambda: folder)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: json.dumps(data))
    text = matrix.matrix()
    assert "all 2 combinations" in text
    axes["distill"].append("solver.9")
    assert "2 of the 3 combinations" in matrix.matrix()
    assert "1 ok, 1 idle. A cell is ok where the worse end of its interval keeps psnr_p5_min 30" in text
    assert "(fbcache on the lora in 1 cells). The 1 controls" in text


def test_a_papers_row_stands_beside_the_controls_of_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = {
        "twin": "dit",
        "steps": 4,
        "guidance": 4.0,
        "seed": 1,
        "size": "",
        "on": "{}",
        "prompts": 3,
        "samples": 9,
    }

    def measured(name: str, psnr: float, **more: Any) -> dict[str, Any]:
        ran = {"ran": {"full": 4}, "shares": {"full": 1.0}, "macs_ratio": 0.75}
        return {"name": name, "psnr_each": [psnr - 1, psnr, psnr + 1], **setting, **ran, **more}

    spent = {"ran": {"full": 2, "calibrated": 2}, "shares": {"full": 1.2, "calibrated": 0.3}}
    rows = [
        measured("D/6: svd", 40.0, **spent),
        measured("D/6: control, 3 of its own steps", 39.0),
        measured("D/6: best control with 3 steps, UniPC", 42.0),
        measured("D/9: svd", 30.0),
        measured("no cache", float("inf"), fid_like_real=7.0),
    ]
    monkeypatch.setattr(replication, "newest", lambda case: {"rows": rows, "machine": "here"})
    ours, best = replication.replication_1().splitlines(), replication.replication_3().splitlines()
    assert ours[2].startswith("| no cache |  |  |")
    assert "| D/6: svd | 40.0 / 39.1 | +1.00 (+1.00 to +1.00) | 0.75 | 0.65 |  |  |  |" in ours
    assert "| D/9: svd | 30.0 / 29.1 |  | 0.75 |  |  |  |  |" in ours
    assert ours[-1].endswith("at a FID-like distance of 7 of 3.")
    assert any(line.startswith("| D/6: svd | 40.0 / 39.1 | -2.00 (-2.00 to -2.00) | 1.33 x |") for line in best)
    assert ours[0].startswith("| twin-dit after 9 samples, 4 steps, guidance 4, seed 1, 3 prompts |")


def test_only_combinations_that_fare_otherwise_on_a_twin_are_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cell(cache: str, low: float, status: str = "degraded") -> dict[str, Any]:
        over = {"mean": low + 1, "low": low, "high": low + 2}
        psnr = {"psnr": {"mean": 40.0}}
        words = {"distill": "none", "cache": cache}
        return {"words": words, "status": status, "reasons": [], "above_control": over, "to_baseline": psnr}

    file = twin_matrix.RESULTS / "here" / "matrix_dit" / "matrix.json"
    data = {"cells": [cell("icc", 1.0), cell("svdcache", 1.0), cell("new", 1.0)], "prompts": ["a"]}
    monkeypatch.setattr(twin_matrix, "_file", lambda twin: file if twin == "dit" else None)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: json.dumps(data))
    monkeypatch.setattr(twin_matrix, "_known", lambda: {"icc": cell("icc", -3.0), "svdcache": cell("svdcache", 2.0)})
    text = twin_matrix.matrix_twins().splitlines()
    ours = "gate kept, above the control (+1.0 to +3.0 dB); 40.0 dB |"
    assert text[0] == "| combination | on the embedded model | on twin-dit |"
    assert text[2:4] == [f"| icc | gate kept, below the control (-3.0 to -1.0 dB); 40.0 dB | {ours}", ""]
    assert "2 are in the embedded model's matrix too; 1 fare alike" in text[-1]
    assert "1 of 2 on twin-dit (" in twin_matrix.matrix_twins_short()
    monkeypatch.setattr(twin_matrix, "_file", lambda twin: file)  # another twin is another column
    assert twin_matrix.matrix_twins().splitlines()[2].endswith(f"| {ours} {ours}")
