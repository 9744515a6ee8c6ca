"""The matrix: killed and continued it is the same; a crash is a failed cell; what is declared must agree with it."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from ditstack.cli.app import app
from ditstack.errors import BadFile, RecipeError
from ditstack.files import write_atomically
from ditstack.matrix import cell
from ditstack.matrix.cell import Bench, Record, tasks
from ditstack.matrix.combine import Job
from ditstack.matrix.schema import Cell, Matrix, read
from ditstack.matrix.survey import Survey, name_of
from ditstack.measure.bench import Trial
from ditstack.measure.bench import trial as bench_trial
from ditstack.recipe import plan
from ditstack.recipe.adapter import find
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.recipe import Recipe

AXES = {"quantize": ["none", "int8"], "cache": ["none", "reuse"]}
QUIET = Console(quiet=True)


def survey(axes: dict[str, list[str]] = AXES, steps: int = 4) -> Survey:
    base = Recipe.read("tiny", [f"sampler.steps={steps}", "sampler.guidance=1.0", "quality.psnr_min=40"])
    return Survey.of(base, axes, list(base.prompts[:2]))


def timeless(matrix: Matrix) -> Matrix:
    """Without what differs from run to run."""
    for one in matrix.cells:
        one.seconds = one.seconds_range = one.speedup = one.speedup_range = None
    return matrix


def bench(folder: Path, asked: Survey) -> Bench:
    write_atomically(folder / "survey.json", asked.model_dump_json().encode())
    return Bench(folder)


def test_a_matrix_killed_on_its_way_and_continued_is_the_same(tmp_path: Path) -> None:
    asked, whole, cut = survey(), Job(survey(), tmp_path / "whole"), Job(survey(), tmp_path / "cut")
    for job in (whole, cut):
        write_atomically(job.work / "survey.json", asked.model_dump_json(indent=1).encode())
    running = subprocess.Popen([sys.executable, "-m", "ditstack.matrix.cell", str(cut.work)], stderr=subprocess.DEVNULL)
    while not (first := list(cut.work.glob("none-*.json"))):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    stamps = {path: path.stat().st_mtime_ns for path in first}
    assert len(list(cut.work.glob("*-*.json"))) < 5
    for job in (whole, cut):
        cell.main(job.work)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "what was finished is kept"
    matrix = timeless(cut.matrix())
    assert matrix == timeless(whole.matrix())
    assert [one.status for one in matrix.cells] == ["ok", "ok", "degraded", "degraded", "control"]
    both, control = matrix.cells[-2:]
    assert (control.steps, both.control) == ({"full": 1}, control.name)
    assert both.above_control is not None
    assert len(both.psnr_each) == len(both.errors) == len(matrix.prompts), "every prompt's own figures are kept"
    alone = [next(one for one in matrix.cells if one.name == part).errors for part in ("int8-none", "none-reuse")]
    beyond = [error - math.hypot(a, b) for error, a, b in zip(both.errors, *alone, strict=True)]
    assert both.interaction is not None
    assert both.interaction.mean == pytest.approx(sum(beyond) / len(beyond)), "interactions can be made again"
    assert (both.name, both.parts, both.interaction is not None) == ("int8-reuse", ["int8-none", "none-reuse"], True)
    assert all((cut.folder / picture).is_file() for one in matrix.cells for picture in one.pictures)
    assert {(row.steps, row.cache, row.equal_steps) for row in matrix.few_steps} == {(4, "reuse", 2)}


def test_a_crash_is_a_failed_red_cell_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = survey({"cache": ["none", "reuse"]})
    job = Job(asked, tmp_path)
    died: list[str] = []
    start = subprocess.Popen

    def worker(words: list[str], **how: object) -> subprocess.Popen[bytes]:
        """Writes the records that are missing, and dies of the first `reuse` that it meets."""
        for name, chosen in tasks(asked):
            if (job.work / f"{name}.json").is_file() or not isinstance(chosen, dict):
                continue
            (job.work / "now").write_text(name)
            if name == "reuse":
                died.append(name)
                return start([sys.executable, "-c", "import os; os.abort()"])
            record = Record(cell=Cell(name=name, words=chosen, status="ok"))
            write_atomically(job.work / f"{name}.json", record.model_dump_json().encode())
        for name, _ in tasks(asked):
            write_atomically(job.work / f"{name}.json", b'{"rows": []}') if "steps" in name else None
        return start([sys.executable, "-c", ""])

    monkeypatch.setattr("ditstack.matrix.combine.subprocess.Popen", worker)
    monkeypatch.setattr("ditstack.matrix.combine.POLL", 0.01)
    matrix = job.run(QUIET)
    plain, crashed = matrix.cells
    assert (plain.status, crashed.status, died) == ("ok", "failed", ["reuse"])
    assert crashed.reasons == ["killed by SIGABRT"]
    assert "planned as possible" in crashed.contradiction
    assert "**failed**" in (tmp_path / "matrix.md").read_text()
    job.run(QUIET)
    assert died == ["reuse", "reuse"], "what failed is tried again"


def test_a_refusal_is_shown_with_its_reason_and_is_red_if_the_stack_works_when_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"quantize": ["none", "fp8dq"], "cache": ["none", "reuse"]}
    machine = bench(tmp_path / "a", survey(axes)).record({"quantize": "fp8dq", "cache": "none"}).cell
    assert machine.status == "refused"
    assert "compute capability" in machine.reasons[0]
    assert machine.contradiction == "", "what the machine lacks cannot be forced"
    reuse = find("cache", "reuse")
    monkeypatch.setattr(reuse, "needs", property(lambda self: frozenset({Capability.FLOAT_WEIGHTS})))
    asked = survey({"quantize": ["none", "int8"], "cache": ["none", "reuse"]}, steps=2)
    wrong = bench(tmp_path / "b", asked).record({"quantize": "int8", "cache": "reuse"}).cell
    assert wrong.status == "refused"
    assert wrong.contradiction == "refused, but it works when it is forced"


def test_nothing_is_refused_only_while_it_is_forced() -> None:
    refused = Recipe.read("tiny", ["quantize={method: torchao, scheme: fp8dq}"])
    if any(step.reasons for step in plan.plan(refused)):
        with plan.forced():
            plan.check_plan(refused)
        with pytest.raises(Exception, match="cannot be stacked"):
            plan.check_plan(refused)


def test_the_parts_of_a_cell_are_its_stages_alone_on_the_same_lora() -> None:
    axes = {
        "distill": ["none", "lora"],
        "quantize": ["none", "int8"],
        "attention": ["native"],
        "cache": ["none", "icc"],
    }
    asked = survey(axes)
    parts = asked.parts({"distill": "lora", "quantize": "int8", "attention": "native", "cache": "icc"})
    assert [name_of(part) for part in parts] == ["lora-int8-native-none", "lora-none-native-icc"]
    assert asked.parts({"distill": "lora", "quantize": "none", "attention": "native", "cache": "icc"}) == []
    assert asked.few() == [("none", 4), ("lora", 4)]
    names = [name_of(one) for one in asked.combinations()]
    assert names[:2] == ["none-none-native-none", "none-int8-native-none"], "references come first"


def test_a_folder_with_another_survey_is_refused(tmp_path: Path) -> None:
    write_atomically(tmp_path / "work" / "survey.json", b"{}")
    with pytest.raises(BadFile, match="holds another matrix"):
        Job(survey(), tmp_path).run(QUIET)


def test_a_matrix_of_a_stack_that_skips_nothing_says_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        """The process that measures, in this one."""

        returncode = 0

        def __init__(self, words: list[str], **how: object) -> None:
            cell.main(Path(words[-1]))

        poll, kill, wait = (lambda self: 0,) * 3

    monkeypatch.setattr("ditstack.matrix.combine.subprocess.Popen", Worker)
    words = ["--methods", "cache=none,fbcache", "--prompts", "1", "--out", str(tmp_path / "m")]
    changes = [
        word for one in ("sampler.steps=2", "sampler.guidance=1.0", "quality.psnr_min=1") for word in ("--set", one)
    ]
    said = CliRunner().invoke(app, ["matrix", "--model", "tiny", *words, *changes])
    assert "2 cells: 1 ok, 1 idle\n" in said.output
    plain, asleep = read(tmp_path / "m" / "matrix.json").cells
    assert (plain.status, plain.reasons) == ("ok", [])
    assert (asleep.status, asleep.reasons[0]) == ("idle", "idle: cache skipped nothing; every step ran in full")


def test_a_sampler_varies_as_stages_do_and_is_measured_against_all_steps(tmp_path: Path) -> None:
    asked = survey({"sampler": ["none", "unipc-2", "euler-4"], "cache": ["none", "reuse"]})
    fewer = {"sampler": "unipc-2", "cache": "reuse"}
    sampler = asked.recipe(fewer).sampler
    assert (sampler.scheduler, sampler.steps, sampler.guidance) == ("UniPCMultistepScheduler", 2, 1.0)
    assert [name_of(part) for part in asked.parts(fewer)] == ["unipc-2-none", "none-reuse"]
    assert asked.parts({"sampler": "euler-4", "cache": "reuse"}) == [], "the recipe's own sampler accelerates nothing"
    assert asked.plain(fewer) == asked.recipe({}).plain()
    asked = asked.model_copy(update={"base": {**asked.base, "quality": {"psnr_min": 1.0}}})
    alone = bench(tmp_path / "work", asked).record({"sampler": "unipc-2", "cache": "none"}).cell
    assert (alone.steps, alone.macs_ratio) == ({"full": 2}, 0.5)
    assert (alone.status, alone.control) == ("ok", ""), "it is what controls are, and stands beside none"
    assert 1 < alone.psnr_each[0] < math.inf
    with pytest.raises(RecipeError, match="wanted a solver and its steps, such as unipc-20"):
        survey({"sampler": ["unipc"]})


def test_a_sampler_may_vary_on_a_lora_that_brings_steps_of_its_own() -> None:
    asked = survey({"distill": ["none", "lora"], "sampler": ["none", "dpm-3"], "cache": ["none"]}, steps=6)
    steps = [asked.recipe(one).sampler.steps for one in asked.combinations()]
    assert steps == [6, 3, 4, 3]


def test_a_cache_below_its_control_is_not_ok_though_it_keeps_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = survey({"cache": ["none", "reuse"]})
    asked = asked.model_copy(update={"base": {**asked.base, "quality": {"psnr_min": 1.0}}})
    here = bench(tmp_path / "work", asked)
    reused = here.record({"cache": "reuse"}).cell
    assert reused.above_control is not None
    assert (reused.status == "ok") == (reused.above_control.low > 0)
    monkeypatch.setattr(Bench, "_beside", lambda *_: ["not surely above 2 evaluations, Euler"])
    assert here.record({"cache": "reuse"}).cell.status == "degraded"


def test_a_lora_stands_beside_the_plain_model_with_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = survey({"distill": ["none", "lora"]}, steps=12)
    asked = asked.model_copy(update={"prompts": asked.prompts[:1]})
    here, raced, tried = bench(tmp_path / "work", asked), list[Recipe](), list[str]()

    def trial(recipe: Recipe, prompts: list[str], against: Recipe | None = None) -> Trial:
        tried.append(recipe.name)
        raced.extend([against] if against is not None and "distill" in recipe.adapters else [])
        return bench_trial(recipe, prompts, against=against)

    monkeypatch.setattr(cell, "trial", trial)
    plain, lora = (here.record({"distill": word}).cell for word in ("none", "lora"))
    assert plain.plain_macs_ratio == 1
    assert plain.to_plain == {}
    plains = [name for name in tried if "plain" in name]
    assert plains == ["none (plain)", "lora (plain)"], "the plain model is not run anew for the LoRA to stand beside"
    assert lora.to_baseline["psnr"].mean == math.inf, "to the same LoRA alone, which it is"
    assert 10 < lora.to_plain["psnr"].mean < 60, "but the plain model makes other pictures"
    assert lora.plain_macs_ratio == pytest.approx(4 / 12, abs=0.01), "of 12 steps"
    assert [("distill" in one.adapters, one.sampler.steps) for one in raced] == [(False, 12)], "and races that model"
    assert lora.seconds_range is not None
    assert lora.seconds_range[0] <= (lora.seconds or 0) <= lora.seconds_range[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU tells its own peak")
def test_without_a_gpu_no_memory_is_told_since_a_process_only_knows_its_highest_point(tmp_path: Path) -> None:
    cell = bench(tmp_path / "work", survey({"cache": ["none"]}, steps=1)).record({"cache": "none"}).cell
    assert cell.peak_memory is None
    assert cell.weight_bytes


def test_a_record_that_is_torn_is_set_aside_and_measured_again(tmp_path: Path) -> None:
    asked = survey({"cache": ["none", "reuse"]})
    job = Job(asked, tmp_path)
    whole = {"none": Record(cell=Cell(name="none", words={"cache": "none"}, status="ok"))}
    write_atomically(job.work / "survey.json", asked.model_dump_json(indent=1).encode())
    write_atomically(job.work / "none.json", whole["none"].model_dump_json(indent=1).encode())
    for text in (b"", b"{", b"[]", b"\xff", b'{"cell": 3}'):
        (job.work / "reuse.json").write_bytes(text)
        job._settle()
        assert "reuse" in job._missing()
        assert "none" not in job._missing()
    assert len([*job.work.glob("reuse.json.torn*")]) == 5
    (job.work / "survey.json").write_bytes(b"\xff")
    with pytest.raises(BadFile):
        job._settle()


def test_a_matrix_whose_plain_model_cannot_run_says_so_and_keeps_no_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    base = Recipe.read("tiny", [f"model.source={tmp_path / 'empty'}"])
    job = Job(Survey.of(base, AXES, ["x"]), tmp_path / "m")

    class Here:
        """The worker, in this process."""

        returncode = 0

        def __init__(self, command: list[str], **_: object) -> None:
            cell.main(Path(command[-1]))

        def poll(self) -> int:
            return 0

        def kill(self) -> None: ...

        def wait(self) -> None: ...

    monkeypatch.setattr(subprocess, "Popen", Here)
    with pytest.raises(BadFile, match=r"^model\.source: the folder .* holds no model_index\.json"):
        job.run(QUIET)
    assert len(job._missing()) == len(tasks(job.survey)), "another attempt measures every cell"
