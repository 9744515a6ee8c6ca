"""What a matrix answers, by the worse end of each interval and against the plain model with all its steps."""

from html import unescape
from pathlib import Path

from ditstack.matrix import figures, page
from ditstack.matrix.advice import advice
from ditstack.matrix.markdown import render
from ditstack.matrix.schema import Estimate
from matrices import estimate, matrix


def test_a_lora_of_an_older_file_is_beside_the_plain_model_by_its_seconds_and_never_the_gate_s_answer(
    tmp_path: Path,
) -> None:
    given = matrix(tmp_path)
    for one in given.cells:
        one.words = {"distill": "none", **one.words}
    lora = given.cells[0].model_copy(update={"name": "lora", "words": {**given.cells[0].words, "distill": "lora"}})
    lora.speedup, lora.seconds, lora.speedup_range = 1.0, 0.5, None
    given.cells.append(lora)
    assert figures.figure(given, lora, "speedup").text == "14.0"
    assert figures.figure(given, lora, "to_baseline.psnr") == figures.Figure()
    answers = {one.wish: one.cell for one in advice(given)}
    assert lora not in [answers[wish] for wish in answers if "other pictures" not in wish]
    assert answers["If other pictures than the plain model's will do: fastest on a few-step LoRA"] is lora
    lora.to_plain, lora.plain_macs_ratio, lora.speedup = {"psnr": estimate(40)}, 0.1, 14.0
    assert advice(given)[0].cell is lora, "with its fidelity to the plain model known, it is the fastest"


def test_a_fitted_sampler_is_judged_by_the_plain_models_pictures_and_named_as_such(tmp_path: Path) -> None:
    given = matrix(tmp_path)
    for one in given.cells:
        one.words = {"distill": "none", **one.words}
    assert "aim at the plain model's own pictures" not in page.write(given, tmp_path).read_text()
    words = {**given.cells[0].words, "distill": "solver.9"}
    fitted = given.cells[2].model_copy(update={"name": "fitted", "words": words, "plain_macs_ratio": 0.3})
    fitted.speedup = fitted.seconds = 20.0
    fitted.speedup_range = None
    fitted.to_baseline = {"psnr": estimate(40)}
    given.cells.append(fitted)
    answers = {one.wish: one for one in advice(given)}
    assert answers["Fastest above the gate"].cell is fitted
    assert not any("LoRA" in f"{wish} {one.says}" for wish, one in answers.items())
    assert page.View(given, tmp_path).title(fitted) == "solver.9", "beside the plain model's cell, which it is not"
    for text in (page.write(given, tmp_path).read_text(), render(given)):
        assert "solver.9 at distill aim at the plain model's own pictures" in unescape(text)


def test_a_cell_is_judged_by_the_worse_end_and_a_control_may_be_the_answer(tmp_path: Path) -> None:
    given = matrix(tmp_path)
    fast = given.cells[2]
    fast.to_baseline["psnr"] = Estimate(mean=35, low=29.9, high=40)
    assert advice(given)[0].cell is not fast
    fast.to_baseline["psnr"] = Estimate(mean=35, low=30.1, high=40)
    assert advice(given)[0].cell is fast
    fast.status = "control"
    assert advice(given)[0].cell is fast
    given.gate = {"psnr_min": 200.0}
    assert advice(given)[0].cell is given.cells[0], "only the plain model's very pictures"


def test_memory_of_a_processor_is_never_shown(tmp_path: Path) -> None:
    given = matrix(tmp_path)
    for one in given.cells:
        one.peak_memory = 123_456_789
    assert figures.figure(given, given.cells[0], "memory").text == "123"
    given.machine = "CPU x86_64, 1 threads"
    assert "peak memory" not in page.write(given, tmp_path).read_text()
