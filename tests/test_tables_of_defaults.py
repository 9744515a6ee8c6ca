"""The page on defaults: what loses is counted, and what is chosen on all models but one never saw the one."""

from typing import Any

import pytest

from tables import defaults


def row(model: str, name: str, psnr: float, kind: str = "constant", **more: Any) -> dict[str, Any]:
    each = [psnr - 1, psnr, psnr + 1]
    found = {"model": model, "steps": 28, "full": 7, "name": name, "kind": kind, "psnr_each": each, "prompts": 3}
    return {**found, "psnr_on_others": each, **more}


def fitted(model: str, psnr: float) -> dict[str, Any]:
    chosen = {"schedule": [0, 3], "order": 2, "coordinate": "sigma"}
    return row(model, "fitted", psnr, "fitted", chosen=chosen)


def shown(table: Any, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    data = {"rows": rows, "fitted_on": 16, "machine": "here", "steps": 28, "full": 7}
    monkeypatch.setattr(defaults, "newest", lambda case: data)
    return table()


def of(model: str, default: float, even: float, control: float, own: float) -> list[dict[str, Any]]:
    others = [row(model, "control: DDIM", control - 5, "control", psnr_on_others=[0.0])]
    return [
        row(model, "default", default, "default"),
        row(model, "even", even, "even"),
        row(model, "control: UniPC", control, "control"),
        *others,
        fitted(model, own),
    ]


def test_the_control_is_the_one_that_was_best_on_other_prompts_and_the_choice_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(defaults.defaults, of("dit", 30.0, 29.0, 32.0, 33.0), monkeypatch)
    assert (
        "| 7 of 28 | 30.0 | -1.00 (-1.00 to -1.00) | UniPC: +2.00 (+2.00 to +2.00) | +3.00 (+3.00 to +3.00) |" in text
    )
    assert "| 0, 3; order 2 in sigma |" in text
    assert "| the default |" in shown(defaults.defaults, of("dit", 30.0, 29.0, 32.0, 30.0), monkeypatch)


def test_what_is_behind_is_counted_over_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        *of("tiny", 40.0, 39.9, 38.0, 39.5),
        *of("dit", 30.0, 29.0, 33.0, 32.8),
        *of("pixart", 30.0, 31.0, 20.0, 30.8),
    ]
    text = shown(defaults.defaults_verdict, rows, monkeypatch)
    assert "| default | 3 |  | 1 of 3 | 1 of 3 |" in text
    assert "| even | 3 | 1 of 3 |  | 1 of 3 |" in text
    assert "| `schedule: fitted` | 3 | 1 of 3 | 1 of 3 | 0 of 3 |" in text
    assert "the third of the settings (1) where the default is furthest behind the best row" in text
    assert "gains +2.8 dB over it; over all settings +1.0 dB." in text


def test_a_loss_that_calibration_said_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*of("tiny", 40.0, 39.9, 43.0, 41.0), *of("dit", 30.0, 29.0, 33.0, 32.0)]
    said = "schedule: without a cache, as many evaluations by UniPC, order 2 gain +1.00 dB (+0.50 to +1.50) over this"
    rows[4]["beside"] = said
    assert "| 0 of 2 | 0 of 2 | 2 of 2; of these it says so in 1 |" in shown(
        defaults.defaults_verdict, rows, monkeypatch
    )
    told = "| 0, 3; order 2 in sigma; says that UniPC, order 2 without a cache is ahead |"
    assert told in shown(defaults.defaults, rows, monkeypatch)
    rows[4]["beside"] = f"{said} (not clear)"
    assert "without a cache is ahead, not clearly |" in shown(defaults.defaults, rows, monkeypatch)


def test_a_second_run_stands_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = of("dit", 30.0, 29.0, 32.0, 33.0), of("dit", 31.0, 32.0, 30.0, 31.5)
    data = {
        case: {"rows": rows, "fitted_on": 16, "machine": "here"}
        for case, rows in (("defaults", [*first, *of("tiny", 1.0, 1.0, 1.0, 1.0)]), ("defaults_again", again))
    }
    monkeypatch.setattr(defaults, "newest", data.get)
    text = defaults.defaults_again()
    assert (
        "| 7 of 28 | the default | +3.00 (+3.00 to +3.00) | +0.50 (+0.50 to +0.50) | 0, 3; order 2 in sigma |" in text
    )
    assert "|  |  | even | +4.00 (+4.00 to +4.00) | -0.50 (-0.50 to -0.50) |  |" in text
    assert "|  |  | the best control | +1.00 (+1.00 to +1.00) | +1.50 (+1.50 to +1.50) |  |" in text
    assert "embedded" not in text


def test_the_judge_that_foretells_is_the_one_whose_best_constant_gains_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"default": (40.0, 30.0, 20.0), "early": (44.0, 31.0, 19.0), "late": (41.0, 30.5, 21.0)}
    rows = [row("pixart", name, psnr) for name, (psnr, _, _) in names.items()]
    judged = [
        {"model": "pixart", "name": name, "pictures": [pictures], "latents": [latents]}
        for name, (_, pictures, latents) in names.items()
    ]
    data = {"defaults": {"rows": rows}, "judges": {"rows": judged, "steps": 28, "full": 7}}
    monkeypatch.setattr(defaults, "newest", data.get)
    # of +4 and +1 pictures say +1 and +0.5; final latents -1 and +1, which puts one pair of three in order
    assert "| 2.50 | 1.75 | 33% | 100% |" in defaults.defaults_judges()


def test_what_is_chosen_on_the_others_is_the_best_of_their_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for model, second, early in (("tiny", 30.0, 41.0), ("dit", 48.0, 39.5), ("pixart", 46.0, 40.5)):
        rows += [row(model, "default", 40.0, "default"), fitted(model, 42.0)]
        rows += [row(model, "order 2", second), row(model, "earlier", early)]
    text = shown(defaults.defaults_left_out, rows, monkeypatch)
    assert "| embedded FLUX | order 2 | -10.0 (-10.0 to -10.0) | +2.0 (+2.0 to +2.0) |" in text
    assert "| twin-dit, DDIM, guidance 4 | earlier | -0.5 (-0.5 to -0.5) |" in text


def test_forms_of_the_subspace_stand_beside_first_order_in_the_whole_space(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("tiny", defaults.WHOLE, 40.0), row("tiny", "a form", 39.0)]
    text = shown(defaults.subspace, rows, monkeypatch)
    assert "| whole space, order 1 | 40.0 dB |" in text
    assert "| a form | -1.00 (-1.00 to -1.00) |" in text
